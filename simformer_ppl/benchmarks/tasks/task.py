"""What a benchmark task supplies, and the questions that are asked of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from simformer_ppl.simformer import Simformer

DrawConditional = Callable[..., np.ndarray]
"""``(rng, values, given, num_draws) -> [num_draws, scalars]``: exact draws, given scalars as given; where sites are
functions, the coordinates of their points follow as a dict."""


@dataclass(frozen=True)
class Task:
    """A model, and exact draws of its conditionals, where these are known.

    Attributes
    ----------
    name
        As typed.
    model
        The NumPyro model.
    draw_conditional
        Independent draws of the scalars (in the order of the tokens) that are not given; None where nobody knows them.
    options
        Arguments of :class:`~simformer_ppl.Simformer` beside the model.
    all_conditionals
        Whether random conditionals are asked about, or posteriors.
    units
        Numbers of the scalars that are given together; each alone by default.
    shipped
        Name of the references in sbibm-jax, where it has some.
    points
        Of functions, how many a question is about; at places that are drawn for each.
    """

    name: str
    model: Callable[..., Any]
    draw_conditional: DrawConditional | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    all_conditionals: bool = False
    units: tuple[tuple[int, ...], ...] = ()
    shipped: str | None = None
    points: Mapping[str, int] = field(default_factory=dict)


class Question(NamedTuple):
    """A conditional of the joint, and draws of it.

    Attributes
    ----------
    values
        Of the given scalars; whatever, elsewhere.
    given
        Which scalars are given.
    reference
        Draws of all scalars, the given ones as given; none where they are not known.
    coordinates
        Of the points of functions, whose scalars are these points.
    """

    values: Float[np.ndarray, " scalars"]
    given: Bool[np.ndarray, " scalars"]
    reference: Float[np.ndarray, "draws scalars"]
    coordinates: Mapping[str, Float[np.ndarray, " points"]] = {}

    @property
    def latent_reference(self) -> Float[np.ndarray, "draws latent"]:
        """Draws of the scalars that are not given."""
        return self.reference[:, ~self.given]


def fresh_questions(task: Task, count: int, num_draws: int, seed: int) -> list[Question]:
    """Simulate observations, and draw what is not given of them.

    Posterior tasks are asked for posteriors. The others for the joint, the posterior, the likelihood, and what
    Bernoulli masks of rate .3 and .7 leave, a fifth each, as in Gloeckler et al. 2024 (appendix A2.2), who give the
    pairs of SLCP as a whole too.

    Parameters
    ----------
    task
        The task.
    count
        Number of questions.
    num_draws
        Draws of each reference.
    seed
        Of observations, masks and draws.
    """
    rng = np.random.default_rng(seed)
    simformer = Simformer(task.model, **task.options)
    sites = simformer.structure.sites.values()
    simulations = simformer.simulate(jax.random.key(seed), count)
    questions = []
    for number, own in zip(range(count), rng.spawn(count), strict=True):
        values, is_data, coordinates = [], [], {}
        for site in sites:
            scalars = simulations[site.name].values[number].ravel().astype(float)
            if site.name in task.points:  # a function of one axis
                chosen = np.sort(own.choice(scalars.size, task.points[site.name], replace=False))
                dim = simulations[site.name].dims[-1]
                scalars, coordinates[site.name] = scalars[chosen], simulations[dim].values[chosen]
            values.append(scalars)
            is_data.append(np.full(scalars.size, site.is_data))
        data, scalars = np.concatenate(is_data), np.concatenate(values)
        given = _random_mask(rng, data, task.units) if task.all_conditionals else data
        arguments = (coordinates,) if coordinates else ()
        reference = np.zeros((0, len(scalars)))
        if task.draw_conditional is not None:
            reference = task.draw_conditional(own, scalars, given, num_draws, *arguments)
        questions.append(Question(scalars, given, reference, coordinates))
    return questions


def shipped_questions(task: Task, num_draws: int) -> list[Question]:
    """The ten observations of sbibm (Lueckmann et al. 2021) and their reference posteriors, from sbibm-jax.

    Raises
    ------
    ImportError
        If sbibm-jax is not installed: the extra ``bench``.
    """
    from sbibm_jax import get_task

    source = get_task(task.shipped)
    questions = []
    for number in range(1, 11):
        observation = np.asarray(source.get_observation(num_observation=number), float).ravel()
        draws = np.asarray(source.get_reference_posterior_samples(num_observation=number), float)[:num_draws]
        given = np.repeat([False, True], [draws.shape[1], len(observation)])
        values = np.concatenate([np.zeros(draws.shape[1]), observation])
        reference = np.concatenate([draws, np.tile(observation, (len(draws), 1))], 1)
        questions.append(Question(values, given, reference))
    return questions


def _random_mask(
    rng: np.random.Generator, is_data: Bool[np.ndarray, " scalars"], units: tuple[tuple[int, ...], ...]
) -> Bool[np.ndarray, " scalars"]:
    """Which scalars are given; not all of them."""
    while True:
        kind, coins = rng.integers(5), rng.uniform(size=len(is_data))
        for unit in units:
            coins[list(unit)] = coins[unit[0]]
        given = (np.zeros_like(is_data), is_data, ~is_data, coins < 0.3, coins < 0.7)[kind]
        if not given.all():
            return given
