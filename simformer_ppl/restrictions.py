"""What is asked of draws beyond given values: intervals, supports that read other sites, constraints, new priors."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float

from simformer_ppl.computed_sites import compute
from simformer_ppl.diffusion.tempering import Weight
from simformer_ppl.joint import LearnedJoint
from simformer_ppl.replay import Replay
from simformer_ppl.structure import ModelStructure, Site
from simformer_ppl.tokens.transforms import scalar_support


class Constraint(NamedTuple):
    """A log weight of values.

    Attributes
    ----------
    function
        From rows of the values of all token sites, by name, to a scalar for each; compiled.
    reads
        The sites that it looks at.
    label
        Its name.
    """

    function: Callable[[Mapping[str, Array]], Float[Array, " rows"]]
    reads: frozenset[str]
    label: str


_BESIDE = 1e-3
"""Least distance of a draw that lies outside, in standard deviations."""

_REPEATS = 8
"""Runs of the model by which it shows whether a density is known."""


@dataclass(frozen=True, eq=False)
class Restrictions:
    """A weight on draws.

    Attributes
    ----------
    joint
        Where the draws come from.
    replay
        The model.
    intervals
        Bounds by site.
    supports
        Sites whose support depends on other sites.
    constraints
        Functions of all sites.
    priors
        New distributions by site.
    held
        Sites that the model is held at when it tells supports and densities; all by default.
    computed
        Deterministic sites that are as the model computes them from the others.
    """

    joint: LearnedJoint
    replay: Replay
    intervals: Mapping[str, tuple[np.ndarray, np.ndarray]]
    supports: tuple[str, ...]
    constraints: tuple[Constraint, ...]
    priors: Mapping[str, dist.Distribution]
    held: frozenset[str] | None = None
    computed: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.intervals or self.supports or self.constraints or self.priors)

    @property
    def are_certain(self) -> bool:
        """Whether all weights are zero or one."""
        return not self.constraints and not self.priors

    def weigh(self, channels: Float[Array, "rows channels"]) -> Weight:
        """Weights of draws, any number of them at the cost of few compilations."""
        rows = len(channels)
        missing = (1 << max(rows - 1, 0).bit_length()) - rows
        padded = jnp.concatenate([channels, jnp.broadcast_to(channels[-1:], (missing, channels.shape[1]))])
        return Weight(*(np.asarray(part, np.float64)[:rows] for part in self.traced(padded)))

    def log_weight(self, channels: Float[Array, "rows channels"]) -> Float[Array, " rows"]:
        """Log weights under ``jax.jit``."""
        log_weight, violation = self.traced(channels)
        return jnp.where(violation > 0, -jnp.inf, log_weight)

    def traced(self, channels: Float[Array, "rows channels"]) -> tuple[Float[Array, " rows"], Float[Array, " rows"]]:
        """Log weights, and how far draws lie outside the intervals; NaN counts as no weight.

        Not compiled as a whole: models that ask for values in Python are run row by row.
        """
        values = self.joint.layout.decode(channels)
        computed = compute(self.replay, values, self.computed, self.held)
        values |= computed
        for name, value in computed.items():
            part = self.joint.layout.channel_slices[name]
            channels = channels.at[:, part].set(self.joint.layout.transforms[name].forward(value))
        held = {name: value for name, value in values.items() if self.held is None or name in self.held}
        log_weight = jnp.zeros(channels.shape[0])
        if self.supports:
            log_weight = jnp.where(self.replay.inside(held, self.supports), log_weight, -jnp.inf)
        for constraint in self.constraints:
            log_weight = log_weight + constraint.function(held)
        for name, new in self.priors.items():
            old = self.replay.log_probs(held, (name,))[name]
            change = jax.vmap(partial(_log_prob, new))(values[name]) - old.reshape(len(old), -1).sum(1)
            log_weight = log_weight + change
        log_weight = jnp.where(jnp.isnan(log_weight), -jnp.inf, log_weight)
        return log_weight, self._violation(channels, values)

    def inside(self, channels: Float[Array, "rows channels"]) -> Bool[np.ndarray, " rows"]:
        """Draws of positive weight."""
        return np.isfinite(self.weigh(channels).tempered(1.0))

    def _violation(self, channels: Float[Array, "rows channels"], values: Mapping[str, Array]) -> Float[Array, " rows"]:
        """Distance from the intervals in standardised channels; 0 where all values lie inside."""
        square, within = jnp.zeros(channels.shape[0]), jnp.ones(channels.shape[0], bool)
        standardised = self.joint.standardisation.forward(channels)
        for name, bounds in self.intervals.items():
            part = self.joint.layout.channel_slices[name]
            lower, upper = (self._standardised_bound(name, bound) for bound in bounds)
            beyond = jnp.maximum(jnp.maximum(lower - standardised[:, part], standardised[:, part] - upper), 0.0)
            square += (beyond**2).sum(-1)
            inside = (values[name] >= bounds[0]) & (values[name] <= bounds[1])
            within &= inside.reshape(len(channels), -1).all(-1)
        return jnp.where(within, 0.0, jnp.maximum(jnp.sqrt(square), _BESIDE))

    def _standardised_bound(self, name: str, bound: np.ndarray) -> Float[Array, " channels"]:
        layout = self.joint.layout
        support = scalar_support(layout.sites[name])
        clipped = np.clip(
            bound, getattr(support, "lower_bound", -np.inf), getattr(support, "upper_bound", np.inf)
        ).astype(np.float32)
        channels = (
            jnp.zeros(layout.num_channels)
            .at[layout.channel_slices[name]]
            .set(layout.transforms[name].forward(jnp.asarray(clipped)))
        )
        standardised = self.joint.standardisation.forward(channels)[layout.channel_slices[name]]
        # infinite bounds of the support, however they are mapped
        unbounded = np.where(np.isinf(bound), bound, 0.0).ravel()
        return jnp.where(jnp.isinf(unbounded), unbounded, standardised)


def _log_prob(law: dist.Distribution, value: Array) -> Float[Array, ""]:
    return jnp.where(law.support(value), law.log_prob(value), -jnp.inf).sum()


def read_constraint(sites: Mapping[str, Site], constraint: Any) -> Constraint:
    """Check a constraint on values of the right shapes.

    Raises
    ------
    ValueError
        If it is no function, cannot be traced by JAX, or does not return a scalar.
    """
    if not callable(constraint):
        raise ValueError(f"constraint: expected a function of a dict of site values, got {constraint!r}.")
    label = getattr(constraint, "__name__", repr(constraint))
    example = {name: jax.ShapeDtypeStruct(site.shape, site.dtype) for name, site in sites.items()}
    try:
        program, result = jax.make_jaxpr(constraint, return_shape=True)(example)
    except KeyError as error:
        raise ValueError(f"constraint '{label}': no site {error}. Expected one of: {', '.join(sites)}.") from error
    except Exception as error:
        raise ValueError(
            f"constraint '{label}': expected a JAX function from a dict of site values to a scalar log weight; "
            f"it raised {type(error).__name__}: {error}"
        ) from error
    if getattr(result, "shape", None) != ():
        raise ValueError(f"constraint '{label}': expected a scalar log weight, got {result}.")
    used = {id(variable) for equation in program.eqns for variable in equation.invars}
    used |= {id(variable) for variable in program.jaxpr.outvars}
    reads = {name for name, variable in zip(sorted(sites), program.jaxpr.invars, strict=True) if id(variable) in used}
    return Constraint(jax.jit(jax.vmap(constraint)), frozenset(reads), label)


def read_prior(
    structure: ModelStructure, replay: Replay, name: str, new: Any, held: Collection[str]
) -> dist.Distribution:
    """Check a new prior, of a site whose density the sites that are held tell.

    Raises
    ------
    ValueError
        If the site is not random, its law in the model is not known, or the distribution does not fit the site.
    """
    if name not in structure.sites:
        raise ValueError(f"prior: site '{name}' is unknown. Expected one of: {', '.join(structure.sites)}.")
    site = structure.sites[name]
    if site.is_covariate:
        raise ValueError(f"prior: site '{name}' is a covariate, which is only ever given. Expected another site.")
    if site.is_deterministic:
        raise ValueError(f"prior: site '{name}' is deterministic. Expected a sample site.")
    if not isinstance(new, dist.Distribution):
        raise ValueError(f"prior: site '{name}': expected a NumPyro distribution, got {new!r}.")
    try:
        fits = np.broadcast_shapes(new.shape(), site.shape) == site.shape
    except ValueError:
        fits = False
    if not fits or new.event_dim > len(site.shape):
        raise ValueError(
            f"prior: site '{name}': expected a distribution that broadcasts to shape {site.shape}, got {new.shape()}."
        )
    simulated = replay.sites(jax.random.split(jax.random.key(0), 1), {}, tuple({*held, name}))
    repeated = {other: jnp.repeat(value, _REPEATS, 0) for other, value in simulated.items()}
    densities = np.asarray(replay.log_probs(repeated, (name,))[name])
    # what is not held is simulated afresh in every repeat
    if not np.allclose(densities, densities[0]):
        raise ValueError(
            f"prior: the density of '{name}' depends on a site that is no token or that is a function, and so is not "
            f"known. Expected a site whose parents are all among {', '.join(held)}."
        )
    return new
