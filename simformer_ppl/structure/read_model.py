"""Read a model into a `ModelStructure`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpyro.distributions import constraints

from simformer_ppl.exceptions import StructureWarning
from simformer_ppl.structure.covariates import WithCovariates
from simformer_ppl.structure.model_structure import ModelStructure
from simformer_ppl.structure.reading import Reading, read_densely, read_laws
from simformer_ppl.structure.roles import observed_sites
from simformer_ppl.structure.running import asks_for_values
from simformer_ppl.structure.sites import Deterministic, Site
from simformer_ppl.structure.source_lines import line_of_error
from simformer_ppl.structure.supports import acts_per_scalar, base_constraint, unconstrained_shape
from simformer_ppl.structure.token_graph import Block, TokenGraph
from simformer_ppl.structure.tracing import ModelTrace, TracedSite, trace_abstractly


def trace_structure(
    model: Callable[..., Any],
    model_args: Sequence[Any] = (),
    model_kwargs: Mapping[str, Any] | None = None,
    *,
    sites: Collection[str] | None = None,
    data_sites: Collection[str] | None = None,
    embedded: Mapping[str, Callable[[tuple[int, ...]], int]] | None = None,
) -> ModelStructure:
    """Read the structure of a NumPyro model, without computing anything.

    A model that asks for random values in Python cannot be read so: it is simulated twice, and its graph is dense.

    Parameters
    ----------
    model
        A NumPyro model.
    model_args, model_kwargs
        Its arguments. Observations among them are ignored, but say which sites are data.
    sites
        Sample or deterministic sites whose scalars become tokens. All sample sites by default; a sample site that is
        left out is a nuisance, simulated but eliminated from the graph.
    data_sites
        Which of them are data. By default those with observations; if none has any, those that get some when the
        arguments that are None are filled; else those that no other site reads.
    embedded
        By site, of those that are read as a whole, from their shape to the number of tokens that stand for it.

    Returns
    -------
    The structure.

    Raises
    ------
    ValueError
        If `model_args` is no tuple, a name is unknown, a plate is subsampled, a site is ImproperUniform, or a support
        has no map to unconstrained space.

    Warns
    -----
    StructureWarning
        If the model branches in Python on a random value (the graph is then dense), has soft constraints
        (``numpyro.factor``, an observation that reads other sites), parameters (``numpyro.param``, modules) or seeds.

    Examples
    --------
    >>> import numpyro
    >>> import numpyro.distributions as dist
    >>> def model(y=None):
    ...     mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    ...     with numpyro.plate("n", 2):
    ...         numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)
    >>> structure = trace_structure(model)
    >>> structure.tokens
    ('mu', 'y[0]', 'y[1]')
    >>> structure.adjacency.astype(int).tolist()
    [[0, 0, 0], [1, 0, 0], [1, 0, 0]]
    """
    if not isinstance(model_args, tuple | list):
        raise ValueError(f"model_args: expected a tuple of arguments, got {type(model_args).__name__}")
    args, kwargs = tuple(model_args), dict(model_kwargs or {})
    trace, names, reading = _read(model, args, kwargs, sites, data_sites)
    for message in _remarks(trace, reading):
        warnings.warn(message, StructureWarning, stacklevel=2)
    counts = _read_embedded(embedded or {}, trace, reading, names)
    blocks = _blocks(trace, reading, names, counts)
    graph = TokenGraph.of_scalars(reading.scalars, blocks)
    token_sites = _sites(trace, reading, names, blocks, counts)
    drawn = set(model.names) if isinstance(model, WithCovariates) else set()
    for name in drawn & set(data_sites or ()):
        raise ValueError(f"data_sites: {name!r} is a covariate. Expected other sites.")
    if data_sites is None:
        data_sites = observed_sites(model, args, kwargs, trace) & set(names) or _unread(names, graph) - drawn
    for name in drawn - set(token_sites):
        raise ValueError(
            f"covariates: {name!r} is the name of a plate of the model too. Expected a name that nothing else has."
        )
    token_sites = {
        n: replace(site, is_data=n in set(data_sites), is_covariate=n in drawn) for n, site in token_sites.items()
    }
    token_sites |= {n: _as_a_whole(token_sites[n]) for n in counts}
    shapes = {n: token_sites[n].token_shape if n in names else trace.sites[n].shape for n in reading.nodes}
    apart = frozenset(dim for name in counts for dim in trace.sites[name].dims)
    return ModelStructure(
        sites=token_sites,
        tokens=tuple(label for site in token_sites.values() for label in site.labels()),
        plates=dict(trace.plates),
        deterministics=_deterministics(trace, reading, names),
        nuisances=tuple(n for n in trace.random if n not in names),
        factors=trace.factors,
        info=reading.info,
        _graph=graph,
        _axes={n: (shapes[n], trace.sites[n].dims) for n in reading.nodes},
        _scalar_graph=reading.given,
        _path=reading.path,
        _exchangeability=reading.exchangeability and partial(reading.exchangeability, graph.full, shapes, apart),
    )


def _read(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    sites: Collection[str] | None,
    data_sites: Collection[str] | None,
) -> tuple[ModelTrace, tuple[str, ...], Reading]:
    """Trace a model, choose its token sites, read its laws; densely, if it cannot be traced without values."""
    try:
        trace = trace_abstractly(model, args, kwargs)
        names = _token_names(trace, sites, data_sites)
        return trace, names, read_laws(model, args, kwargs, trace, frozenset(names) & frozenset(trace.deterministic))
    except AssertionError as error:  # NumPyro's own, as of two sites of one name
        raise ValueError(f"The model cannot be run: {error}.") from error
    except Exception as error:
        if not asks_for_values(error):
            raise
        line = line_of_error(error)
        where = f"at {line} " if line else ""
        reason = (
            f"the model asks {where}for the value of a random site while it is traced, as a Python `if`, float() or "
            "f-string does: its graph is dense, each scalar is taken to read all before it"
        )
    warnings.warn(f"{reason}. Use jnp.where or jax.lax.cond for a sharper graph.", StructureWarning, stacklevel=3)
    wanted = frozenset(sites or ()) | frozenset(data_sites or ())
    trace, reading = read_densely(model, args, kwargs, wanted, reason)
    return trace, _token_names(trace, sites, data_sites), reading


def _remarks(trace: ModelTrace, reading: Reading) -> Iterator[str]:
    """What the user may not expect of a simulation."""
    if trace.factors:
        yield (
            f"factor sites {list(trace.factors)} are soft constraints: they are not simulated, and answers are for the "
            "model without them"
        )
    if reading.soft:
        yield (
            f"sites {list(reading.soft)} are observed at values that read other sites, which is a soft constraint like "
            "numpyro.factor: here they are simulated as sites of their own"
        )
    if trace.params:
        yield f"numpyro.param sites {list(trace.params)} are not learned: they stay at their initial values"
    if trace.seeded:
        yield f"{list(trace.seeded)} are seeded inside the model: that seed is not used, since it is always the same"


def _token_names(
    trace: ModelTrace, sites: Collection[str] | None, data_sites: Collection[str] | None
) -> tuple[str, ...]:
    for argument, wanted in (("sites", sites), ("data_sites", data_sites)):
        if isinstance(wanted, str):
            raise ValueError(f"{argument} is a list of site names, not the string {wanted!r}")
        unknown = [name for name in wanted or () if name not in trace.sites]
        if unknown:
            raise ValueError(f"{argument}: unknown {unknown}; the model has {list(trace.sites)}")
    if sites is None:
        default = {name for name, site in trace.random.items() if not site.is_auxiliary}
        chosen = default | set(data_sites or ())
    else:
        chosen = set(sites)
        left_out = [name for name in data_sites or () if name not in chosen]
        if left_out:
            raise ValueError(f"data_sites: {left_out} are not among sites {list(sites)}")
    if not chosen:
        raise ValueError(f"no site is left to be a token; the model has {list(trace.sites)}")
    return tuple(name for name in trace.sites if name in chosen)


def _read_embedded(
    embedded: Mapping[str, Callable[[tuple[int, ...]], int]],
    trace: ModelTrace,
    reading: Reading,
    names: Collection[str],
) -> dict[str, int]:
    """Tokens of the sites that are read as a whole."""
    counts = {}
    for name, count in embedded.items():
        if name not in names:
            raise ValueError(f"embeddings: '{name}' is no token site. Expected some of: {', '.join(names)}.")
        site, (support, is_static) = trace.sites[name], reading.supports[name]
        counts[name] = tokens = count(site.shape)
        reasons = {
            "its values are categories": site.num_categories > 0,
            "its support couples its scalars": not acts_per_scalar(support),
            "its support depends on other sites": not is_static,
            f"it has {site.size} scalars, fewer than the {tokens} tokens of its embedding": site.size < tokens,
        }
        for reason, holds in reasons.items():
            if holds:
                raise ValueError(f"embeddings: site '{name}' cannot be embedded: {reason}.")
    return counts


def _as_a_whole(site: Site) -> Site:
    """A site whose value is one event, in no plate."""
    support = constraints.independent(site.support, len(site.shape) - site.support.event_dim)
    return replace(site, is_embedded=True, is_elementwise=False, support=support, event_dim=len(site.shape), plates=())


def _blocks(
    trace: ModelTrace, reading: Reading, names: Collection[str], embedded: Mapping[str, int]
) -> dict[str | int, Block]:
    """A block per noise source (by number) and node (by name), in the order of the scalar graph."""
    blocks: dict[str | int, Block] = {i: Block(1, is_token=False, is_noise=True) for i in range(reading.num_noise)}
    for name in reading.nodes:
        size, (support, _) = trace.sites[name].size, reading.supports[name]
        if name in embedded:
            blocks[name] = Block(size, size, embedded[name])
        elif name not in names or acts_per_scalar(support):
            blocks[name] = Block(size, is_token=name in names)
        else:
            num_events = size // _event_size(trace.sites[name], support)
            num_tokens = int(np.prod(_token_shape(trace.sites[name], support), dtype=int))
            blocks[name] = Block(size, size // max(num_events, 1), num_tokens // max(num_events, 1))
    return blocks


def _event_size(site: TracedSite, support: constraints.Constraint) -> int:
    return int(np.prod(site.shape[len(site.shape) - support.event_dim :], dtype=int))


def _token_shape(site: TracedSite, support: constraints.Constraint) -> tuple[int, ...]:
    if base_constraint(support) is constraints.complex:
        raise ValueError(
            f"site {site.name!r} has complex values, and tokens are real: leave it out of `sites`, and make its real "
            "and imaginary parts deterministic sites"
        )
    try:
        return unconstrained_shape(support, site.shape)
    except NotImplementedError:
        raise ValueError(
            f"site {site.name!r} has the support {support}, which has no map to unconstrained space: leave it out of "
            "`sites`, or write it as a function of others"
        ) from None


def _sites(
    trace: ModelTrace,
    reading: Reading,
    names: Collection[str],
    blocks: Mapping[str | int, Block],
    embedded: Mapping[str, int],
) -> dict[str, Site]:
    out, start = {}, 0
    for name in names:
        traced, (support, is_static) = trace.sites[name], reading.supports[name]
        stop = start + blocks[name].num_tokens
        out[name] = Site(
            name=name,
            shape=traced.shape,
            support=support,
            support_is_static=is_static,
            support_reads=reading.support_reads.get(name, frozenset()),
            plates=traced.plates,
            dims=traced.dims,
            is_data=False,
            is_discrete=bool(support.is_discrete),
            is_deterministic=traced.is_deterministic,
            num_categories=traced.num_categories,
            event_dim=traced.event_dim,
            dtype=traced.dtype,
            distribution=traced.distribution,
            token_shape=(embedded[name],) if name in embedded else _token_shape(traced, support),
            token_slice=slice(start, stop),
            is_elementwise=acts_per_scalar(support),
        )
        start = stop
    return out


def _unread(names: Collection[str], graph: TokenGraph) -> frozenset[str]:
    """Sites that no other site reads, nuisances included."""
    own, start, read = {}, 0, 0
    for name, block in graph.blocks.items():
        own[name] = ((1 << block.num_tokens) - 1) << start
        for reads in graph.full[start : start + block.num_tokens]:
            read |= reads & ~own[name]
        start += block.num_tokens
    return frozenset(name for name in names if not read & own[name])


def _deterministics(trace: ModelTrace, reading: Reading, names: Collection[str]) -> dict[str, Deterministic]:
    left_out = {n for n in trace.random if n not in names and not reading.supports[n][0].is_discrete}
    noise = {n: reads & left_out for n, (reads, _) in reading.deterministics.items()}

    def has_density(name: str) -> bool:
        if not np.issubdtype(trace.sites[name].dtype, np.floating):
            return False
        if reading.deterministics[name][1]:
            return True
        sharing = [n for n in noise if n == name or (n in names and noise[n] & noise[name])]
        read = frozenset[str]().union(*(noise[n] for n in sharing))
        return 0 < sum(trace.sites[n].size for n in sharing) <= sum(trace.sites[n].size for n in read)

    return {
        n: Deterministic(n, site.shape, site.dims, *reading.deterministics[n], has_density(n))
        for n, site in trace.deterministic.items()
    }
