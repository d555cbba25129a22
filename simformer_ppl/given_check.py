"""Whether what is given lies where the network has learned: among the simulations."""

import os
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from simformer_ppl.diagnostics.novelty import FAR, Novelty, Simulated
from simformer_ppl.exceptions import NoveltyWarning
from simformer_ppl.joint import LearnedJoint
from simformer_ppl.replay import Replay
from simformer_ppl.tokens.conditions import Given, encode_given
from simformer_ppl.training.simulate import simulate

JOINTLY = "jointly"

COMPARED, FEWEST_SIMULATIONS = 2_000, 50
"""Simulations that values are compared with, and how few can tell nothing."""

MOST_ROWS, MOST_PATTERNS = 1_000, 16
"""Conditions of a batch, and patterns of what is given in them, that are looked at unasked."""

_FAR_BY_CHANCE = 0.005
"""Share of a batch that may lie far outside, as simulations themselves do now and then."""

_PACKAGE = f"{Path(__file__).parent}{os.sep}"


class GivenCheck(NamedTuple):
    """How unlike the simulations the given values are.

    Attributes
    ----------
    p_values
        Of each site's given values, and of all given values ``jointly``, arrays of ``batch_shape``: the share of
        simulations that are at least as unlike the others.
    remoteness
        The same: distance from the simulations, on a scale where the median simulation is at 0 and the most remote one
        at 1. Above 2 values count as far outside, where answers are guesses.
    num_simulations
        How many the values are compared with.
    label
        Of the distribution.
    """

    p_values: dict[str, Float[np.ndarray, "*batch"]]
    remoteness: dict[str, Float[np.ndarray, "*batch"]]
    num_simulations: int
    label: str

    @property
    def far(self) -> tuple[str, ...]:
        """Sites, or ``jointly``, whose values lie far outside, in any condition of the batch."""
        return tuple(name for name, values in self.remoteness.items() if (values > FAR).any())

    def __repr__(self) -> str:
        lines = [f"What is given in {self.label}, among {self.num_simulations:,} simulations:"]
        if not self.p_values:
            return "\n".join([*lines, "  no values are given"])
        width = max(map(len, self.p_values))
        lines.append(f"  {'':<{width}}  p-value  remoteness")
        for name, values in self.p_values.items():
            verdict = "  far outside" if name in self.far else ""
            lines.append(f"  {name:<{width}}  {values.min():7.4f}  {self.remoteness[name].max():10.2f}{verdict}")
        if any(values.size > 1 for values in self.p_values.values()):
            lines.append("  (of the most unlike condition of the batch)")
        return "\n".join(lines)


def check_given(joint: LearnedJoint, given: Given, simulated: Simulated, label: str) -> GivenCheck:
    """Compare the given values, site by site and jointly, with simulations.

    Parameters
    ----------
    joint
        Knows the channels and their scale.
    given
        What is given.
    simulated
        What the network has learned from.
    label
        Of the distribution.

    Raises
    ------
    ValueError
        If there are too few simulations, or a value is traced by JAX.
    """
    if len(simulated) < FEWEST_SIMULATIONS:
        raise ValueError(
            f"Expected at least {FEWEST_SIMULATIONS} finite simulations to compare with, got {len(simulated)}."
        )
    for name in _traced(given):
        raise ValueError(f"Site '{name}': expected values that are known, got one that JAX traces.")
    found = _compare(joint, given, simulated, tuple(given.values), None, None)
    shaped = {name: [part.reshape(given.batch_shape) for part in novelty] for name, novelty in found.items()}
    return GivenCheck(
        {name: p_value for name, (p_value, _) in shaped.items()},
        {name: remoteness for name, (_, remoteness) in shaped.items()},
        len(simulated),
        label,
    )


def simulate_again(joint: LearnedJoint, replay: Replay) -> Simulated:
    """What values are compared with where the simulations of training are not at hand."""
    values = simulate(replay, jax.random.key(0), COMPARED, tuple(joint.layout.sites))
    channels = np.asarray(joint.standardisation.forward(jax.jit(joint.layout.encode)(values)))
    return Simulated(channels[np.isfinite(channels).all(1)])


def warn_if_far(joint: LearnedJoint, simulated: Simulated, given: Given, names: Collection[str], label: str) -> None:
    """Warn of values far outside the simulations.

    Nothing is said of values that are traced, where simulations are few, and of few conditions of a large batch.

    Parameters
    ----------
    joint, simulated, given, label
        As of :func:`check_given`.
    names
        Sites whose values are new.
    """
    if len(simulated) < FEWEST_SIMULATIONS or _traced(given):
        return
    found = _compare(joint, given, simulated, names, MOST_ROWS, MOST_PATTERNS)
    far = {name: novelty.remoteness > FAR for name, novelty in found.items()}
    named = [name for name, rows in far.items() if rows.sum() > _FAR_BY_CHANCE * rows.size]
    if named:
        told = ", ".join("all together" if name == JOINTLY else f"'{name}'" for name in named)
        rows = np.any([far[name] for name in named], 0)
        where = f" in {rows.sum()} of {rows.size} conditions" if rows.size > 1 else ""
        worst = max(found[name].remoteness.max() for name in named)
        warnings.warn(
            f"{label}: given values ({told}) lie far outside the simulations{where} (remoteness {worst:.1f}, where "
            "the most remote of them is at 1). The network has seen nothing like it: check the model and the data; "
            "check_given() tells more.",
            NoveltyWarning,
            skip_file_prefixes=(_PACKAGE,),
        )


def _traced(given: Given) -> list[str]:
    return [name for name, value in given.values.items() if isinstance(value, jax.core.Tracer)]


def _compare(
    joint: LearnedJoint,
    given: Given,
    simulated: Simulated,
    names: Collection[str],
    most_rows: int | None,
    most_patterns: int | None,
) -> dict[str, Novelty]:
    """Novelty of the named sites, and jointly where there are several, in every condition of the batch."""
    layout = joint.layout
    with jax.ensure_compile_time_eval():  # values are known inside of ``jax.jit`` too
        channels, tokens = encode_given(layout, given)
        standardised = np.asarray(joint.standardisation.forward(channels)).reshape(-1, layout.num_channels)
    known = tokens[..., layout.token_of_channel].reshape(-1, layout.num_channels)
    known = np.broadcast_to(known, standardised.shape)[:most_rows]
    parts = {name: np.zeros(layout.num_channels, bool) for name in names}
    for name, part in parts.items():
        part[layout.channel_slices[name]] = True
    if len(given.values) > 1:
        parts[JOINTLY] = np.ones(layout.num_channels, bool)
    rows = standardised[:most_rows]
    return {name: _by_pattern(rows, known & part, simulated, most_patterns) for name, part in parts.items()}


def _by_pattern(
    values: Float[np.ndarray, "rows channels"],
    known: Bool[np.ndarray, "rows channels"],
    simulated: Simulated,
    most_patterns: int | None,
) -> Novelty:
    """Novelty of every row by what is given in it; a p-value of 1 where nothing is, or is looked at."""
    p_value, remoteness = np.ones(len(values)), np.zeros(len(values))
    patterns, which = np.unique(known, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns[:most_patterns]):
        if pattern.any():
            rows = which.ravel() == number
            p_value[rows], remoteness[rows] = simulated.novelty(values[rows], pattern)
    return Novelty(p_value, remoteness)
