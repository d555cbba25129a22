"""Arrays of draws into ArviZ InferenceData."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from simformer_ppl.datasets import Variables, check_lengths, check_shape, library_attributes, to_dataset
from simformer_ppl.naming import (
    SAMPLE_DIMS,
    Dims,
    find_record,
    find_site,
    name_axes,
    resolve_batch_dims,
    resolve_dims,
    stored,
    stored_labels,
    stored_names,
)

if TYPE_CHECKING:
    from simformer_ppl.structure import ModelStructure

__all__ = ["to_inference_data"]

GROUPS = (
    "posterior",
    "posterior_predictive",
    "sample_stats",
    "log_likelihood",
    "log_prior",
    "prior",
    "prior_predictive",
    "observed_data",
    "constant_data",
)


def to_inference_data(
    structure: ModelStructure,
    draws: Mapping[str, np.ndarray],
    *,
    given: Mapping[str, np.ndarray],
    restricted: Collection[str] = (),
    batch_shape: tuple[int, ...] = (),
    batch_dims: Sequence[str] | None = None,
    batch_coords: Mapping[str, Any] | None = None,
    deterministics: Mapping[str, np.ndarray] | None = None,
    predictive: Mapping[str, np.ndarray] | None = None,
    sample_stats: Mapping[str, np.ndarray] | None = None,
    log_probs: Mapping[str, np.ndarray] | None = None,
    num_chains: int = 4,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """Lay draws out as ArviZ InferenceData.

    When anything is given, drawn parameters and partly given data sites form ``posterior``, data sites nothing is
    known of ``posterior_predictive``, given data ``observed_data`` (NaN where missing) and given parameters
    ``constant_data``. When nothing is given but covariates: ``prior`` and ``prior_predictive``. Deterministic sites
    follow the drawn parameters; where no parameter is drawn they join the drawn data, as `numpyro.infer.Predictive`
    returns them.

    Draws are independent, so cutting them into chains is a matter of form: it lets every ArviZ function apply. Draws
    of dtype bool become integers, which ArviZ's quantiles need.

    Parameters
    ----------
    structure
        The model the draws belong to.
    draws
        ``(num_samples, *batch_shape, *site.shape)`` for every site with a latent scalar.
    given
        ``(*batch_shape, *site.shape)``, or ``site.shape`` where the batch shares it, for every site of which a scalar
        is given; NaN where missing.
    restricted
        Sites held to an interval or read by a constraint: known of, though without a value.
    batch_shape
        Shape of the batch of conditions.
    batch_dims
        Its names, by default ``batch``, or ``batch_0``, ``batch_1``, ... for several.
    batch_coords
        Labels of batch dims.
    deterministics
        ``(num_samples, *batch_shape, *shape)`` of deterministic sites. Those that are tokens are sites of
        `structure` and belong in `draws`; they are passed over here.
    predictive
        Replicates of given data sites, shaped as `draws`, for ``posterior_predictive``.
    sample_stats
        ``(num_samples, *batch_shape)`` by name: ``lp``, ``log_weight``.
    log_probs
        Log densities by site, element by element: ``(num_samples, *batch_shape, *shape)``, where the site's shape
        begins with `shape`. Those of data form ``log_likelihood``, others ``log_prior``. NaN where a scalar is missing:
        without a batch, what is left lies along a dim of its own, ``{site}_observed``.
    num_chains
        Divides ``num_samples``.
    coords
        Labels of dims. A dim without any is numbered.
    dims
        Names of the axes by site, in place of `Site.dims`; also the only source of names for `constants`.
    constants
        Array arguments of the model, for ``constant_data``. One named like a site carries that site's observations
        and is left out; one named like a dim of the group gets an underscore.
    attrs
        Attributes of the root and of every group, beside the library, its version and the time.

    Returns
    -------
    Tree of groups with dims ``(chain, draw, *batch_dims, *site dims)``, which netCDF can store.

    Raises
    ------
    ValueError
        When `num_chains` does not divide the number of draws, an array does not fit its site, or a name clashes.

    Examples
    --------
    >>> import numpy as np, numpyro, numpyro.distributions as dist
    >>> from simformer_ppl.structure import trace_structure
    >>> def model(y=None):
    ...     mu = numpyro.sample("mu", dist.Normal(0, 5))
    ...     with numpyro.plate("school", 3):
    ...         numpyro.sample("y", dist.Normal(mu, 1), obs=y)
    >>> structure = trace_structure(model)
    >>> tree = to_inference_data(structure, {"mu": np.zeros(100)}, given={"y": np.ones(3)}, num_chains=2)
    >>> sorted(tree.children), dict(tree.posterior.sizes), tree.observed_data.y.dims
    (['observed_data', 'posterior'], {'chain': 2, 'draw': 50}, ('school',))
    """
    frame = _Frame(
        structure=structure,
        names=stored_names(structure),
        dims=resolve_dims(structure, dims),
        batch_shape=tuple(batch_shape),
        batch_dims=resolve_batch_dims(structure, batch_shape, batch_dims, dims),
        num_samples=_num_samples(draws, predictive or {}, num_chains),
        num_chains=num_chains,
    )
    groups: dict[str, Variables] = {group: {} for group in GROUPS}
    known = {*(name for name in given if not find_site(structure, name).is_covariate), *restricted}
    _place_draws(frame, groups, draws, known)
    _place_deterministics(frame, groups, deterministics or {}, conditional=bool(known))
    _place_predictive(frame, groups, predictive or {})
    _place_given(frame, groups, given)
    for name, stat in (sample_stats or {}).items():
        groups["sample_stats"][name] = frame.drawn(name, stat, (), ())
    labels = stored_labels(coords) | stored_labels(batch_coords)
    for name, value in (log_probs or {}).items():
        labels |= _place_log_probs(frame, groups, name, np.asarray(value))
    _place_constants(frame, groups, constants or {}, dims or {})
    return _tree(groups, labels, library_attributes(attrs))


@dataclass(frozen=True)
class _Frame:
    """What all variables of one tree share."""

    structure: ModelStructure
    names: dict[str, str]
    dims: dict[str, Dims]
    batch_shape: tuple[int, ...]
    batch_dims: Dims
    num_samples: int
    num_chains: int

    def drawn(self, name: str, value: Any, shape: tuple[int, ...], dims: Dims) -> tuple[Dims, np.ndarray]:
        array = np.asarray(value)
        check_shape(name, array, (self.num_samples, *self.batch_shape, *shape))
        if array.dtype == bool:
            array = array.astype(np.int8)
        array = array.reshape(self.num_chains, self.num_samples // self.num_chains, *array.shape[1:])
        return (*SAMPLE_DIMS, *self.batch_dims, *dims), array

    def fixed(self, name: str, value: Any) -> tuple[Dims, np.ndarray]:
        site, array = self.structure.sites[name], np.asarray(value)
        # a site may lack leading batch axes, or hold them with length 1: the batch shares it there
        lacking = len(self.batch_shape) - max(array.ndim - len(site.shape), 0)
        expected = (*self.batch_shape[max(lacking, 0) :], *site.shape)
        if array.ndim == len(expected) and all(n in (1, m) for n, m in zip(array.shape, expected, strict=True)):
            batched = (*expected[: len(expected) - len(site.shape)], *array.shape[array.ndim - len(site.shape) :])
            array = np.broadcast_to(array, batched)
        check_shape(name, array, expected)
        return (*self.batch_dims[max(lacking, 0) :], *self.dims[name]), array


def _num_samples(draws: Mapping[str, np.ndarray], predictive: Mapping[str, np.ndarray], num_chains: int) -> int:
    lengths = {name: np.shape(value)[0] for name, value in {**predictive, **draws}.items() if np.ndim(value)}
    if not lengths:
        raise ValueError("expected draws of at least one site, got none")
    num_samples = next(iter(lengths.values()))
    if num_chains < 1 or num_samples % num_chains:
        raise ValueError(
            f"num_samples={num_samples} draws cannot be laid out as num_chains={num_chains} chains of one length: "
            f"choose a num_samples that num_chains divides, or num_chains=1"
        )
    return num_samples


def _place_draws(
    frame: _Frame, groups: dict[str, Variables], draws: Mapping[str, np.ndarray], known: Collection[str]
) -> None:
    for name, value in draws.items():
        site = find_site(frame.structure, name)
        when, predicted = ("posterior", name not in known) if known else ("prior", True)
        group = f"{when}_predictive" if site.is_data and predicted else when
        groups[group][frame.names[name]] = frame.drawn(name, value, site.shape, frame.dims[name])


def _place_deterministics(
    frame: _Frame, groups: dict[str, Variables], deterministics: Mapping[str, np.ndarray], *, conditional: bool
) -> None:
    when = "posterior" if conditional else "prior"
    group = when if groups[when] else f"{when}_predictive"
    for name, value in deterministics.items():
        if name in frame.structure.sites:
            continue
        record = find_record(frame.structure, name)
        groups[group][frame.names[name]] = frame.drawn(name, value, record.shape, frame.dims[name])


def _place_predictive(frame: _Frame, groups: dict[str, Variables], predictive: Mapping[str, np.ndarray]) -> None:
    group = groups["posterior_predictive"]
    for name, value in predictive.items():
        if frame.names.get(name) in group:
            raise ValueError(f"site {name!r} is not given: its draws are the replicates, expected no others")
        group[frame.names[name]] = frame.drawn(name, value, find_site(frame.structure, name).shape, frame.dims[name])


def _place_given(frame: _Frame, groups: dict[str, Variables], given: Mapping[str, np.ndarray]) -> None:
    for name, value in given.items():
        group = "observed_data" if find_site(frame.structure, name).is_data else "constant_data"
        groups[group][frame.names[name]] = frame.fixed(name, value)


def _place_log_probs(
    frame: _Frame, groups: dict[str, Variables], name: str, value: np.ndarray
) -> dict[str, np.ndarray]:
    """Place log densities of a site; return the labels of the observed elements, where some are missing."""
    site, lead = find_site(frame.structure, name), 1 + len(frame.batch_shape)
    group = groups["log_likelihood" if site.is_data else "log_prior"]
    shape = value.shape[lead:]
    missing = np.isnan(value).all(0)
    if frame.batch_shape or not missing.any():
        group[frame.names[name]] = frame.drawn(name, value, shape, frame.dims[name][: len(shape)])
        return {}
    dim = f"{frame.names[name]}_observed"
    group[frame.names[name]] = frame.drawn(name, value[:, ~missing], (int((~missing).sum()),), (dim,))
    return {dim: np.array([f"{name}[{', '.join(map(str, index))}]" for index in np.argwhere(~missing)])}


def _place_constants(
    frame: _Frame,
    groups: dict[str, Variables],
    constants: Mapping[str, np.ndarray],
    dims: Mapping[str, Sequence[str]],
) -> None:
    group = groups["constant_data"]
    arrays = {stored(name): np.asarray(value) for name, value in constants.items() if name not in frame.structure.sites}
    variables: Variables = {}
    for name, array in arrays.items():
        unnamed = tuple(f"{name}_dim_{axis}" for axis in range(array.ndim))
        variables[name] = (name_axes(name, array.shape, unnamed, dims), array)
    taken = {dim for names, _ in [*group.values(), *variables.values()] for dim in names}
    for name, variable in variables.items():
        # an index argument often has the name of the plate it runs over, which xarray keeps for the labels
        group[f"{name}_" if name in taken or name in group else name] = variable


def _tree(groups: dict[str, Variables], coords: dict[str, np.ndarray], attrs: dict[str, Any]) -> xr.DataTree:
    groups = {group: variables for group, variables in groups.items() if variables}
    check_lengths(list(groups.values()), coords)
    datasets: dict[str, xr.Dataset] = {"/": xr.Dataset(attrs=attrs)}
    for group, variables in groups.items():
        datasets[group] = to_dataset(variables, coords, () if group.endswith("_data") else SAMPLE_DIMS, attrs)
    return xr.DataTree.from_dict(datasets)
