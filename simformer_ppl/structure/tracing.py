"""Run a model abstractly: which sites there are, and of what shape."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from simformer_ppl.exceptions import StructureWarning
from simformer_ppl.structure.running import Message, Run, innermost, run


@dataclass(frozen=True)
class TracedSite:
    """A site as the model states it, before it is decided what becomes a token."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    plates: tuple[str, ...] = ()
    dims: tuple[str, ...] = ()
    event_dim: int = 0
    distribution: str = "Deterministic"
    num_categories: int = 0
    is_observed: bool = False
    is_auxiliary: bool = False
    is_deterministic: bool = False
    is_masked_observation: bool = False

    @property
    def size(self) -> int:
        """Number of scalars."""
        return int(np.prod(self.shape, dtype=int))

    @property
    def traced_names(self) -> tuple[str, ...]:
        """The sample sites by which the model states it: an ``obs_mask`` makes two of one."""
        return (f"{self.name}_observed", f"{self.name}_unobserved") if self.is_masked_observation else (self.name,)


@dataclass(frozen=True)
class ModelTrace:
    """What one abstract run of a model shows.

    Attributes
    ----------
    sites
        Random and deterministic sites in trace order; those that an ``obs_mask`` splits are folded back into one.
    factors
        Names of ``numpyro.factor`` sites.
    plates
        Plate sizes.
    num_keys
        Number of calls of ``numpyro.prng_key``.
    params
        Names of ``numpyro.param`` statements.
    seeded
        Sites that the model itself seeds.
    """

    sites: dict[str, TracedSite]
    factors: tuple[str, ...]
    plates: dict[str, int]
    num_keys: int
    params: tuple[str, ...] = ()
    seeded: tuple[str, ...] = ()

    @property
    def random(self) -> dict[str, TracedSite]:
        """The sample sites."""
        return {name: site for name, site in self.sites.items() if not site.is_deterministic}

    @property
    def deterministic(self) -> dict[str, TracedSite]:
        """The deterministic sites."""
        return {name: site for name, site in self.sites.items() if site.is_deterministic}


def elementary(fn: Any) -> Any:
    """The law that a site is drawn from, its log density element by element: no masks, no ``to_event`` outside."""
    fn = _without_masks(fn)
    while isinstance(fn, dist.Independent):
        fn = fn.base_dist
    return fn


def _without_masks(fn: Any) -> Any:
    if isinstance(fn, dist.MaskedDistribution):
        return _without_masks(fn.base_dist).expand(fn.batch_shape)
    if isinstance(fn, dist.Independent | dist.ExpandedDistribution):
        base = _without_masks(fn.base_dist)
        if base is fn.base_dist:
            return fn
        if isinstance(fn, dist.Independent):
            return base.to_event(fn.reinterpreted_batch_ndims)
        return base.expand(fn.batch_shape)
    return fn


def is_factor(fn: Any) -> bool:
    """Whether a sample site is a ``numpyro.factor``."""
    return isinstance(innermost(fn), dist.Unit)


def trace_abstractly(model: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> ModelTrace:
    """Trace a model, unconditioned, without computing anything."""
    traced: list[ModelTrace] = []

    def shapes(key: jax.Array, zero: jax.Array) -> None:
        traced.append(_model_trace(*run(model, args, kwargs, key, placeholder=zero)))

    jax.eval_shape(shapes, jax.random.key(0), jnp.zeros(()))
    return traced[0]


def trace_with_key(
    model: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], key: jax.Array
) -> tuple[ModelTrace, dict[str, Message]]:
    """Trace a model, unconditioned, simulating it with a key."""
    messages, handler = run(model, args, kwargs, key)
    return _model_trace(messages, handler), messages


def _model_trace(messages: dict[str, Message], handler: Run) -> ModelTrace:
    sites: dict[str, TracedSite] = {}
    factors = []
    for name, msg in messages.items():
        if msg["type"] == "deterministic":
            sites[name] = _deterministic_site(msg)
        elif msg["type"] == "sample":
            if is_factor(msg["fn"]):
                factors.append(name)
            else:
                sites[name] = _sample_site(msg, handler.observations)
    plates = {frame.name: frame.size for msg in messages.values() for frame in _frames(msg)}
    return ModelTrace(
        sites=_fold_masked_observations(sites),
        factors=tuple(factors),
        plates=plates,
        num_keys=handler.num_keys,
        params=tuple(dict.fromkeys(handler.params)),
        seeded=tuple(dict.fromkeys(handler.seeded)),
    )


def _fold_masked_observations(sites: dict[str, TracedSite]) -> dict[str, TracedSite]:
    folded = {}
    for name, site in sites.items():
        stem, _, suffix = name.rpartition("_")
        if suffix in ("observed", "unobserved") and _is_masked_observation(stem, sites):
            if suffix == "observed":
                dims = tuple(dim.replace(f"{name}_dim_", f"{stem}_dim_") for dim in site.dims)
                folded[stem] = replace(site, name=stem, dims=dims, is_observed=True, is_masked_observation=True)
        elif not _is_masked_observation(name, sites):
            folded[name] = site
    return folded


def _is_masked_observation(name: str, sites: dict[str, TracedSite]) -> bool:
    parts = [sites.get(f"{name}_observed"), sites.get(f"{name}_unobserved")]
    whole = sites.get(name)
    are_random = all(part is not None and not part.is_deterministic for part in parts)
    return are_random and whole is not None and whole.is_deterministic


def _sample_site(msg: Message, observations: dict[str, Any]) -> TracedSite:
    name, fn = msg["name"], msg["fn"]
    shape = jnp.broadcast_shapes(jnp.shape(msg["value"]), fn.shape(msg["kwargs"].get("sample_shape", ())))
    plates, dims = _dims(name, shape, fn.event_dim, _frames(msg))
    if observations.get(name) is not None:
        _warn_if_observed_differently(name, jnp.shape(observations[name]), shape)
    return TracedSite(
        name=name,
        shape=tuple(shape),
        dtype=np.dtype(jnp.result_type(msg["value"])),
        plates=plates,
        dims=dims,
        event_dim=fn.event_dim,
        distribution=type(innermost(fn)).__name__,
        num_categories=_num_categories(innermost(fn)),
        is_observed=bool(msg["is_observed"] or name in observations),
        is_auxiliary=bool(msg["infer"].get("is_auxiliary", False)),
    )


def _warn_if_observed_differently(name: str, observed: tuple[int, ...], shape: tuple[int, ...]) -> None:
    padded = (1,) * (len(shape) - len(observed)) + observed
    if len(padded) != len(shape) or any(had not in (1, size) for had, size in zip(padded, shape, strict=True)):
        warnings.warn(
            f"site {name!r} is observed with shape {observed} but simulated with shape {shape}: put it in a plate",
            StructureWarning,
            stacklevel=2,
        )


def _deterministic_site(msg: Message) -> TracedSite:
    shape = tuple(jnp.shape(msg["value"]))
    frames = _frames(msg)
    # a deterministic value does not say how many event axes it has: as many as make the plates fit
    event_dim = next((e for e in range(len(shape) + 1) if _fit(shape, e, frames)), 0)
    plates, dims = _dims(msg["name"], shape, event_dim, frames)
    dtype = np.dtype(jnp.result_type(msg["value"]))
    return TracedSite(msg["name"], shape, dtype, plates, dims, is_deterministic=True)


def _fit(shape: tuple[int, ...], event_dim: int, frames: Sequence[Any]) -> bool:
    axes = [(len(shape) - event_dim + frame.dim, frame.size) for frame in frames]
    return all(axis >= 0 and shape[axis] == size for axis, size in axes)


def _dims(
    name: str, shape: tuple[int, ...], event_dim: int, frames: Sequence[Any]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Plates that index an axis, outermost first, and a name for every axis."""
    by_axis = {len(shape) - event_dim + frame.dim: frame for frame in frames}
    by_axis = {axis: frame for axis, frame in by_axis.items() if axis >= 0 and shape[axis] == frame.size}
    dims, unnamed = [], 0
    for axis in range(len(shape)):
        if axis in by_axis:
            dims.append(by_axis[axis].name)
        else:
            dims.append(f"{name}_dim_{unnamed}")
            unnamed += 1
    indexing = {frame.name for frame in by_axis.values()}
    return tuple(frame.name for frame in frames if frame.name in indexing), tuple(dims)


def _frames(msg: Message) -> list[Any]:
    """Enclosing plates, outermost first: NumPyro lists them as a message meets them, from the inside."""
    return list(reversed(msg.get("cond_indep_stack", [])))


def _num_categories(fn: Any) -> int:
    if type(fn).__name__.startswith("Ordered"):
        return 0
    if isinstance(fn, dist.CategoricalProbs):
        return int(fn.probs.shape[-1])
    return int(fn.logits.shape[-1]) if isinstance(fn, dist.CategoricalLogits) else 0
