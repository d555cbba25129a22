"""Arrays of draws into ArviZ InferenceData, and labelled arrays into plain ones.

Every axis is named by `Site.dims`, one name per axis of the site's shape, so nothing is inferred from plates here. A
slash, which `numpyro.handlers.scope` puts into names, is a path separator in netCDF and in `xarray.DataTree`: sites
and dims are stored with a dot in its place (``scope/x`` becomes ``scope.x``), and may be looked up, labelled and read
back under their NumPyro names.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from numbers import Number
from typing import TYPE_CHECKING, Any

import arviz_base as azb
import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from simformer_ppl.structure import Deterministic, ModelStructure, Site

__all__ = ["align", "dataset_to_arrays", "resolve_dims", "simulations_to_dataset", "to_inference_data"]

SAMPLE_DIMS = ("chain", "draw")
SIMULATION_DIM = "simulation"
GROUPS = (
    "posterior",
    "posterior_predictive",
    "sample_stats",
    "prior",
    "prior_predictive",
    "sample_stats_prior",
    "observed_data",
    "constant_data",
)

type Dims = tuple[str, ...]
type Variables = dict[str, tuple[Dims, np.ndarray]]


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
    log_density: np.ndarray | None = None,
    num_chains: int = 4,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """Lay draws out as ArviZ InferenceData.

    When anything is given, drawn parameters and partly given data sites form ``posterior``, data sites nothing is
    known of ``posterior_predictive``, given data ``observed_data`` (NaN where missing) and given parameters
    ``constant_data``. When nothing is given: ``prior`` and ``prior_predictive``. Deterministic sites follow the drawn
    parameters; where no parameter is drawn they join the drawn data, as `numpyro.infer.Predictive` returns them.

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
    log_density
        ``(num_samples, *batch_shape)``, stored as ``lp`` in ``sample_stats`` (nothing given: ``sample_stats_prior``).
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
        names=_stored_names(structure),
        dims=resolve_dims(structure, dims),
        batch_shape=tuple(batch_shape),
        batch_dims=_batch_dims(structure, batch_shape, batch_dims, dims),
        num_samples=_num_samples(draws, predictive or {}, num_chains),
        num_chains=num_chains,
    )
    groups: dict[str, Variables] = {group: {} for group in GROUPS}
    _place_draws(frame, groups, draws, {*given, *restricted})
    _place_deterministics(frame, groups, deterministics or {}, conditional=bool(given or restricted))
    _place_predictive(frame, groups, predictive or {})
    _place_given(frame, groups, given)
    if log_density is not None:
        lp = frame.drawn("log_density", log_density, (), ())
        groups["sample_stats" if given or restricted else "sample_stats_prior"]["lp"] = lp
    _place_constants(frame, groups, constants or {}, dims or {})
    return _tree(groups, _labels(coords) | _labels(batch_coords), _attributes(attrs))


def simulations_to_dataset(
    structure: ModelStructure,
    values: Mapping[str, np.ndarray],
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> xr.Dataset:
    """Label simulations of the joint.

    Parameters
    ----------
    structure
        The model simulated.
    values
        ``(num_simulations, *site.shape)`` by name of a site or deterministic site.
    coords
        Labels of dims.
    dims
        Names of the axes by site, in place of `Site.dims`.

    Returns
    -------
    Dataset with dims ``(simulation, *site dims)``.

    Raises
    ------
    ValueError
        When a name is unknown or an array does not fit its site.

    Examples
    --------
    >>> import numpy as np, numpyro, numpyro.distributions as dist
    >>> from simformer_ppl.structure import trace_structure
    >>> structure = trace_structure(lambda: numpyro.sample("x", dist.Normal()))
    >>> dict(simulations_to_dataset(structure, {"x": np.zeros(10)}).sizes)
    {'simulation': 10}
    """
    names, site_dims = _stored_names(structure), resolve_dims(structure, dims)
    variables: Variables = {}
    count = None
    for name, value in values.items():
        array = np.asarray(value)
        shape = _record(structure, name).shape
        count = array.shape[0] if count is None and array.ndim else count
        _check_shape(name, array, (count if count is not None else 0, *shape))
        variables[names[name]] = ((SIMULATION_DIM, *site_dims[name]), array)
    labels = _labels(coords)
    _check_lengths([variables], labels)
    return _dataset(variables, labels, (SIMULATION_DIM,), _attributes(None))


def dataset_to_arrays(structure: ModelStructure, simulations: xr.Dataset | Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Read simulations back, checked against the model.

    Parameters
    ----------
    structure
        The model the simulations belong to.
    simulations
        A dataset with the dim ``simulation`` anywhere among its dims, or arrays ``(num_simulations, *site.shape)`` by
        site. Variables that are no sites of `structure` are passed over, so simulations of a model serve every choice
        of its sites.

    Returns
    -------
    ``(num_simulations, *site.shape)`` for every site.

    Raises
    ------
    ValueError
        When a site is missing, its shape is another, or the sites disagree in the number of simulations.

    Examples
    --------
    >>> import numpy as np, numpyro, numpyro.distributions as dist
    >>> from simformer_ppl.structure import trace_structure
    >>> structure = trace_structure(lambda: numpyro.sample("x", dist.Normal()))
    >>> dataset_to_arrays(structure, {"x": np.zeros(10)})["x"].shape
    (10,)
    """
    names = _stored_names(structure)
    keys = {name: name if name in simulations else names[name] for name in structure.sites}
    missing = [name for name, key in keys.items() if key not in simulations]
    if missing:
        raise ValueError(
            f"simulations lack the sites {missing}: expected {list(structure.sites)}, got {_keys(simulations)}"
        )
    arrays = {name: _simulation_first(site, simulations[keys[name]]) for name, site in structure.sites.items()}
    first, count = next(((name, array.shape[0]) for name, array in arrays.items() if array.ndim), ("", 0))
    for name, array in arrays.items():
        shape = structure.sites[name].shape
        if array.ndim == len(shape) + 1 and array.shape[1:] == shape and array.shape[0] != count:
            raise ValueError(f"site {name!r} has {array.shape[0]} simulations, site {first!r} has {count}")
        _check_shape(name, array, (count, *shape))
    return arrays


def align(
    site: Site,
    value: xr.DataArray,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> tuple[np.ndarray, Dims, dict[str, np.ndarray]]:
    """Read a labelled value given for a site: its dims by name, its scalars by label.

    A value without labels on a dim is read by position. A value whose dims xarray numbered itself (``dim_0``, ...) is
    read by position altogether.

    Parameters
    ----------
    site
        The site the value is given for.
    value
        Holds every dim of the site longer than 1, in any order; a scalar is broadcast.
    coords
        Our labels of dims. A dim without any is numbered, as in what `to_inference_data` returns.
    dims
        Names of the axes by site, in place of `Site.dims`.

    Returns
    -------
    array
        ``(*batch_shape, *site.shape)``; NaN where a label of ours is absent from `value`.
    extra_dims
        Names of the leading axes: the dims of `value` that are not the site's.
    extra_coords
        Their labels, where there are any that netCDF can store.

    Raises
    ------
    ValueError
        When a dim of the site is absent or of another length, or a label is unknown or repeated.

    Examples
    --------
    >>> import numpyro, numpyro.distributions as dist, xarray as xr
    >>> from simformer_ppl.structure import trace_structure
    >>> def model():
    ...     with numpyro.plate("school", 3):
    ...         numpyro.sample("y", dist.Normal())
    >>> site = trace_structure(model).sites["y"]
    >>> value = xr.DataArray([3.0, 1.0], coords={"school": ["C", "A"]})
    >>> align(site, value, coords={"school": ["A", "B", "C"]})
    (array([ 1., nan,  3.]), (), {})
    """
    site_dims = _site_dims(site.name, site.shape, site.dims, dims or {})
    value = value.rename({dim: _stored(str(dim)) for dim in value.dims})
    if not value.ndim:
        return np.broadcast_to(value.to_numpy(), site.shape), (), {}
    if value.dims == tuple(f"dim_{axis}" for axis in range(value.ndim)):
        count = max(value.ndim - len(site_dims), 0)
        return value.to_numpy(), _default_batch_dims(count, set(site_dims)), {}
    extra_dims = tuple(str(dim) for dim in value.dims if dim not in site_dims)
    _check_batch_dims(extra_dims, ())
    for dim, length in zip(site_dims, site.shape, strict=True):
        value = _align_dim(site.name, value, dim, length, _labels(coords).get(dim), site_dims)
    value = value.transpose(*extra_dims, *site_dims)
    labels = {dim: value.indexes[dim] for dim in extra_dims if dim in value.indexes}
    return value.to_numpy(), extra_dims, {dim: np.asarray(i) for dim, i in labels.items() if i.nlevels == 1}


def resolve_dims(structure: ModelStructure, dims: Mapping[str, Sequence[str]] | None = None) -> dict[str, Dims]:
    """Name the axes of every site and deterministic site.

    Parameters
    ----------
    structure
        The model.
    dims
        Names by site, in place of `Site.dims`.

    Returns
    -------
    One name per axis, by site; slashes replaced.

    Raises
    ------
    ValueError
        When a site has too few or too many names, the same name twice, one that InferenceData needs for itself, or
        when two sites give one name to axes of different lengths.

    Examples
    --------
    >>> import numpyro, numpyro.distributions as dist
    >>> from simformer_ppl.structure import trace_structure
    >>> structure = trace_structure(lambda: numpyro.sample("w", dist.Normal().expand([3])))
    >>> resolve_dims(structure, {"w": ["feature"]})
    {'w': ('feature',)}
    """
    records: dict[str, Site | Deterministic] = {**structure.sites, **structure.deterministics}
    names = _stored_names(structure)
    resolved: dict[str, Dims] = {}
    lengths: dict[str, tuple[str, int]] = {}
    for name, record in records.items():
        resolved[name] = _site_dims(name, record.shape, record.dims, dims or {})
        for dim, length in zip(resolved[name], record.shape, strict=True):
            other, seen = lengths.setdefault(dim, (name, length))
            if seen != length:
                raise ValueError(
                    f"dim {dim!r} has length {seen} in site {other!r} and {length} in site {name!r}: "
                    f"name one of them otherwise, e.g. dims={{{name!r}: ...}}"
                )
            if dim in names.values():
                raise ValueError(f"site {name!r} has the dim {dim!r}, which is a site's name: choose another in dims")
    return resolved


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
        _check_shape(name, array, (self.num_samples, *self.batch_shape, *shape))
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
        _check_shape(name, array, expected)
        return (*self.batch_dims[max(lacking, 0) :], *self.dims[name]), array


def _place_draws(
    frame: _Frame, groups: dict[str, Variables], draws: Mapping[str, np.ndarray], known: Collection[str]
) -> None:
    for name, value in draws.items():
        site = _site(frame.structure, name)
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
        record = _record(frame.structure, name)
        groups[group][frame.names[name]] = frame.drawn(name, value, record.shape, frame.dims[name])


def _place_predictive(frame: _Frame, groups: dict[str, Variables], predictive: Mapping[str, np.ndarray]) -> None:
    group = groups["posterior_predictive"]
    for name, value in predictive.items():
        if frame.names.get(name) in group:
            raise ValueError(f"site {name!r} is not given: its draws are the replicates, expected no others")
        group[frame.names[name]] = frame.drawn(name, value, _site(frame.structure, name).shape, frame.dims[name])


def _place_given(frame: _Frame, groups: dict[str, Variables], given: Mapping[str, np.ndarray]) -> None:
    for name, value in given.items():
        group = "observed_data" if _site(frame.structure, name).is_data else "constant_data"
        groups[group][frame.names[name]] = frame.fixed(name, value)


def _place_constants(
    frame: _Frame,
    groups: dict[str, Variables],
    constants: Mapping[str, np.ndarray],
    dims: Mapping[str, Sequence[str]],
) -> None:
    group = groups["constant_data"]
    arrays = {
        _stored(name): np.asarray(value) for name, value in constants.items() if name not in frame.structure.sites
    }
    variables: Variables = {}
    for name, array in arrays.items():
        unnamed = tuple(f"{name}_dim_{axis}" for axis in range(array.ndim))
        variables[name] = (_site_dims(name, array.shape, unnamed, dims), array)
    taken = {dim for names, _ in [*group.values(), *variables.values()] for dim in names}
    for name, variable in variables.items():
        # an index argument often has the name of the plate it runs over, which xarray keeps for the labels
        group[f"{name}_" if name in taken or name in group else name] = variable


def _tree(groups: dict[str, Variables], coords: dict[str, np.ndarray], attrs: dict[str, Any]) -> xr.DataTree:
    groups = {group: variables for group, variables in groups.items() if variables}
    _check_lengths(list(groups.values()), coords)
    datasets: dict[str, xr.Dataset] = {"/": xr.Dataset(attrs=attrs)}
    for group, variables in groups.items():
        datasets[group] = _dataset(variables, coords, () if group.endswith("_data") else SAMPLE_DIMS, attrs)
    return xr.DataTree.from_dict(datasets)


def _dataset(
    variables: Variables, coords: dict[str, np.ndarray], sample_dims: Dims, attrs: dict[str, Any]
) -> xr.Dataset:
    dataset = azb.dict_to_dataset(
        {name: array for name, (_, array) in variables.items()},
        dims={name: list(dims) for name, (dims, _) in variables.items()},
        coords={dim: labels for dim, labels in coords.items() if dim not in sample_dims},
        sample_dims=list(sample_dims),
        attrs=attrs,
        # the conventions it checks hold by construction; it would warn of more chains than draws
        check_conventions=False,
    )
    if not sample_dims:
        # netCDF gives an empty list back as an array of floats
        del dataset.attrs["sample_dims"]
    return dataset


def _attributes(attrs: Mapping[str, Any] | None) -> dict[str, Any]:
    own = {
        "created_at": datetime.now(UTC).isoformat(),
        "inference_library": "simformer_ppl",
        "inference_library_version": importlib.metadata.version("simformer_ppl"),
    }
    return own | {name: _attribute(value) for name, value in (attrs or {}).items()}


def _attribute(value: Any) -> Any:
    """Numbers, strings and flat lists of them are what a netCDF attribute can be."""
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, str | Number | np.number):
        return value
    if isinstance(value, list | tuple | np.ndarray) and len(value) and all(isinstance(v, str | Number) for v in value):
        return [_attribute(v) for v in value]
    return str(value)


def _stored(name: str) -> str:
    return name.replace("/", ".")


def _stored_names(structure: ModelStructure) -> dict[str, str]:
    stored: dict[str, str] = {}
    # names without a slash first: they are stored as they are
    for name in sorted({*structure.sites, *structure.deterministics}, key=lambda name: "/" in name):
        free = _stored(name)
        while free in stored.values():
            free += "_"
        stored[name] = free
    return stored


def _labels(coords: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    return {_stored(dim): np.asarray(labels) for dim, labels in (coords or {}).items()}


def _site_dims(name: str, shape: tuple[int, ...], own: Sequence[str], dims: Mapping[str, Sequence[str]]) -> Dims:
    chosen = tuple(_stored(dim) for dim in dims.get(name, own))
    if len(chosen) != len(shape):
        raise ValueError(f"site {name!r}: expected {len(shape)} dims for its shape {shape}, got {chosen}")
    reserved = [dim for dim in chosen if dim in (*SAMPLE_DIMS, SIMULATION_DIM)]
    if reserved:
        raise ValueError(
            f"site {name!r}: {reserved} are dims of the draws, got dims {chosen}: "
            f"rename the plate or give dims={{{name!r}: ...}}"
        )
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"site {name!r}: expected a different dim for every axis, got {chosen}")
    return chosen


def _batch_dims(
    structure: ModelStructure,
    batch_shape: tuple[int, ...],
    batch_dims: Sequence[str] | None,
    dims: Mapping[str, Sequence[str]] | None,
) -> Dims:
    taken = {dim for names in resolve_dims(structure, dims).values() for dim in names}
    if batch_dims is None:
        return _default_batch_dims(len(batch_shape), taken)
    chosen = tuple(_stored(dim) for dim in batch_dims)
    if len(chosen) != len(batch_shape):
        raise ValueError(f"expected {len(batch_shape)} batch dims for the batch shape {batch_shape}, got {chosen}")
    _check_batch_dims(chosen, taken | set(_stored_names(structure).values()))
    return chosen


def _default_batch_dims(count: int, taken: Collection[str]) -> Dims:
    stem = "batch"
    while True:
        names = (stem,) if count == 1 else tuple(f"{stem}_{axis}" for axis in range(count))
        if not set(names) & set(taken):
            return names
        stem += "_"


def _check_batch_dims(batch_dims: Dims, taken: Collection[str]) -> None:
    clash = [dim for dim in batch_dims if dim in taken or dim in (*SAMPLE_DIMS, SIMULATION_DIM)]
    if clash or len(set(batch_dims)) < len(batch_dims):
        raise ValueError(
            f"expected batch dims that are different and no dims of the draws or of a site, got {batch_dims}: "
            f"rename {clash or batch_dims} in the values given"
        )


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


def _site(structure: ModelStructure, name: str) -> Site:
    if name not in structure.sites:
        raise ValueError(f"unknown site {name!r}: expected one of {list(structure.sites)}")
    return structure.sites[name]


def _record(structure: ModelStructure, name: str) -> Site | Deterministic:
    if name in structure.deterministics and name not in structure.sites:
        return structure.deterministics[name]
    return _site(structure, name)


def _check_shape(name: str, array: np.ndarray, expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise ValueError(f"site {name!r}: expected shape {expected}, got {array.shape}")


def _check_lengths(groups: Sequence[Variables], coords: Mapping[str, np.ndarray]) -> None:
    """Refuse what xarray would pad with NaN: one dim of two lengths, or labels of another length."""
    seen: dict[str, tuple[str, int]] = {}
    for variables in groups:
        for name, (dims, array) in variables.items():
            for dim, length in zip(dims, array.shape, strict=True):
                other, expected = seen.setdefault(dim, (name, length))
                if length != expected:
                    raise ValueError(f"dim {dim!r} has length {expected} in {other!r} and {length} in {name!r}")
    for dim, labels in coords.items():
        if dim in seen and dim not in SAMPLE_DIMS and labels.shape != (seen[dim][1],):
            raise ValueError(
                f"coords[{dim!r}]: expected {seen[dim][1]} labels for site {seen[dim][0]!r}, got shape {labels.shape}"
            )


def _simulation_first(site: Site, value: Any) -> np.ndarray:
    if not isinstance(value, xr.DataArray):
        return np.asarray(value)
    if SIMULATION_DIM not in value.dims:
        raise ValueError(f"site {site.name!r}: expected a dim {SIMULATION_DIM!r}, got dims {value.dims}")
    own = [_stored(dim) for dim in site.dims]
    rest: list[Hashable] = [dim for dim in value.dims if dim != SIMULATION_DIM]
    return value.transpose(SIMULATION_DIM, *(own if set(own) == set(rest) else rest)).to_numpy()


def _keys(simulations: xr.Dataset | Mapping[str, Any]) -> list[str]:
    return [str(name) for name in (simulations.data_vars if isinstance(simulations, xr.Dataset) else simulations)]


def _align_dim(
    name: str, value: xr.DataArray, dim: str, length: int, ours: np.ndarray | None, site_dims: Dims
) -> xr.DataArray:
    if dim not in value.dims:
        if length > 1:
            raise ValueError(
                f"site {name!r}: expected the dims {site_dims}, got {value.dims}: rename yours, or give "
                f"dims={{{name!r}: ...}}"
            )
        return value.expand_dims({dim: length})
    if dim in value.indexes and value.indexes[dim].nlevels == 1:
        origin = azb.rcParams["data.index_origin"]
        numbers = np.arange(origin, origin + length)
        theirs = value.indexes[dim]
        if theirs.has_duplicates:
            raise ValueError(f"site {name!r}: repeated labels {list(theirs[theirs.duplicated()])} of dim {dim!r}")
        # without labels of ours, numbers of another range are the user's own: read by position
        if ours is not None or theirs.isin(numbers).all():
            value = _reindex(name, value, dim, numbers if ours is None else ours)
    if value.sizes[dim] != length:
        raise ValueError(f"site {name!r}: expected length {length} of dim {dim!r}, got {value.sizes[dim]}")
    return value


def _reindex(name: str, value: xr.DataArray, dim: str, labels: np.ndarray) -> xr.DataArray:
    unknown = [label for label in value.indexes[dim].tolist() if label not in set(labels.tolist())]
    if unknown:
        raise ValueError(f"site {name!r}: unknown labels {unknown} of dim {dim!r}, expected some of {labels.tolist()}")
    if value.sizes[dim] < len(labels) and value.dtype == bool:
        # xarray would fill the gaps of a bool array with objects
        value = value.astype(float)
    return value.reindex({dim: labels})
