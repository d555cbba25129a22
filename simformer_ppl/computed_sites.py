"""Deterministic sites that the model computes from the sites that a network draws."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.extend import core
from jaxtyping import Array

from simformer_ppl.replay import Replay
from simformer_ppl.structure import ModelStructure

_COMPARED = 8
"""Simulations at which what the model computes is compared with what was simulated."""

_CLOSE = 1e-3
"""Largest difference, in standard deviations, by which the two count as the same."""


def find_computed(structure: ModelStructure, replay: Replay, simulated: Mapping[str, np.ndarray]) -> frozenset[str]:
    """Token sites that are functions of other tokens, and that the model computes as they were simulated.

    A model that leaves JAX on the way (a callback) is not run again on draws, since its runs may be slow.

    Parameters
    ----------
    structure, replay
        The model.
    simulated
        Arrays of ``(num_simulations, *site.shape)`` by site.
    """
    records, sites = structure.deterministics, structure.sites
    names = tuple(
        name
        for name, site in sites.items()
        if site.is_deterministic
        and not (site.is_discrete or site.is_embedded or records[name].is_random)
        and records[name].reads <= sites.keys()
    )
    if not names:
        return frozenset()
    count = min(_COMPARED, len(next(iter(simulated.values()))))
    keys = jax.random.split(jax.random.key(0), count)
    held = {name: jax.numpy.asarray(value[:count]) for name, value in simulated.items() if name not in names}
    try:
        program = jax.make_jaxpr(lambda held: replay.sites(keys, held, names))(held)
        if _leaves_jax(program.jaxpr):
            return frozenset()
        computed = replay.sites(keys, held, names)
    except Exception as error:  # to compute is a gain: not worth failing for
        structure.info.append(f"deterministic sites are not computed: {type(error).__name__} {error}"[:160])
        return frozenset()

    def same(name: str) -> bool:
        scale = np.maximum(np.nanstd(simulated[name], 0), 1e-30)
        return bool((np.abs(np.asarray(computed[name]) - simulated[name][:count]) <= _CLOSE * scale).all())

    return frozenset(name for name in names if same(name))


def compute(
    replay: Replay, values: Mapping[str, Array], names: frozenset[str], held: frozenset[str] | None = None
) -> dict[str, Array]:
    """Values of some sites, computed from rows of the others.

    Parameters
    ----------
    replay
        The model.
    values
        Every token site, each with one leading axis of rows.
    names
        The sites to be computed.
    held
        Sites that the model is held at; all others by default.
    """
    if not names:
        return {}
    rows = {name: value for name, value in values.items() if name not in names and (held is None or name in held)}
    keys = jax.random.split(jax.random.key(0), len(next(iter(rows.values()))))
    return replay.sites(keys, rows, tuple(sorted(names)))


def _leaves_jax(program: core.Jaxpr) -> bool:
    inner = jax.tree.leaves(
        [list(eqn.params.values()) for eqn in program.eqns],
        is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr),
    )
    programs = [each.jaxpr if isinstance(each, core.ClosedJaxpr) else each for each in inner]
    return any("callback" in eqn.primitive.name for eqn in program.eqns) or any(
        _leaves_jax(each) for each in programs if isinstance(each, core.Jaxpr)
    )
