"""Pictures of answers: against the prior, as functions, in pairs beside a known truth; and of what a question masks."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import arviz as az
import jax
import numpy as np
import xarray as xr
from jaxtyping import ArrayLike
from matplotlib.axes import Axes

from simformer_ppl.conditioned import ConditionedDistribution

_LEVELS = (0.5, 0.9)
_GROUPS = ("posterior", "posterior_predictive", "prior", "prior_predictive")


def plot_prior_posterior(
    prior: xr.DataTree, posterior: xr.DataTree, var_names: Collection[str] | None = None, **kwargs: Any
) -> Any:
    """Draw the marginals of an answer over those of the prior, by :func:`arviz.plot_prior_posterior`.

    Parameters
    ----------
    prior
        Of ``simformer.condition().sample(...)``.
    posterior
        Of ``simformer.condition(...).sample(...)``.
    var_names
        Sites; all of the posterior by default.
    **kwargs
        For ArviZ.

    Returns
    -------
    ArviZ' plot collection.

    Raises
    ------
    ValueError
        If a group is absent.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> prior = az.from_dict({"prior": {"mu": rng.normal(0.0, 1.0, (4, 100))}})
    >>> posterior = az.from_dict({"posterior": {"mu": rng.normal(0.8, 0.3, (4, 100))}})
    >>> _ = plot_prior_posterior(prior, posterior)
    """
    before, after = _group(prior, "prior"), _group(posterior, "posterior")
    names = [name for name in after.data_vars if name in before.data_vars] if var_names is None else list(var_names)
    both = xr.DataTree.from_dict({"prior": before.to_dataset()[names], "posterior": after.to_dataset()[names]})
    return az.plot_prior_posterior(both, var_names=names, **kwargs)


def plot_pair(
    draws: xr.DataTree, truth: Mapping[str, ArrayLike] | None = None, var_names: Collection[str] | None = None,
    **kwargs: Any,
) -> Any:  # fmt: skip
    """Draw pairs of scalars against each other, with lines at their true values, by :func:`arviz.plot_pair`.

    Parameters
    ----------
    draws
        Of ``sample``.
    truth
        True values by site, of the site's shape.
    var_names
        Sites; all by default.
    **kwargs
        For ArviZ.

    Returns
    -------
    ArviZ' plot collection.

    Raises
    ------
    ValueError
        If the draws have no group ``posterior`` or ``prior``, or a true value is of an unknown site or another shape.

    Examples
    --------
    >>> import numpy as np
    >>> draws = np.random.default_rng(0).normal(size=(4, 100, 2))
    >>> posterior = az.from_dict({"posterior": {"theta": draws}})
    >>> _ = plot_pair(posterior, {"theta": [0.0, 0.5]})
    """
    group = "posterior" if "posterior" in draws.children else "prior"
    whole = _group(draws, group).to_dataset()
    known = whole.sel(kwargs.get("coords") or {})
    names = [str(name) for name in (known.data_vars if var_names is None else var_names)]
    lines = _truths(whole, {} if truth is None else truth, kwargs.get("coords") or {})
    collection = az.plot_pair(draws, var_names=names, group=group, **kwargs)
    places = [(name, index) for name in names for index in np.ndindex(known[name].shape[2:])]
    for (row, column), ax in np.ndenumerate(collection.viz["plot"].values.reshape(len(places), len(places))):
        if ax is None or not ax.axison:  # the other triangle
            continue
        if places[column] in lines:
            ax.axvline(lines[places[column]], color="black", lw=1, ls="--")
        if places[row] in lines and row != column:
            ax.axhline(lines[places[row]], color="black", lw=1, ls="--")
    return collection


def plot_function(
    draws: xr.DataTree, name: str, *, dim: str | None = None, truth: xr.DataArray | None = None,
    levels: Sequence[float] = _LEVELS, num_curves: int = 5, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Draw a function of a coordinate: bands that hold shares of the draws at every point, and what was seen.

    Parameters
    ----------
    draws
        Of ``sample(..., at={dim: grid})``.
    name
        The site.
    dim
        Its continuous dim; may be left out, where it has no other.
    truth
        The function, if it is known, along `dim`.
    levels
        Central shares of the draws, each drawn as a band.
    num_curves
        Single draws that are drawn too.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        If the site is not among the draws, or `dim` is not one of its dims, or left out where there are several.

    Examples
    --------
    >>> import numpy as np
    >>> time = np.linspace(0.0, 1.0, 20)
    >>> curves = np.random.default_rng(0).normal(size=(4, 100, 1)) + np.sin(6.0 * time)
    >>> tree = az.from_dict({"posterior": {"f": curves}}, coords={"time": time}, dims={"f": ["time"]})
    >>> plot_function(tree, "f").get_xlabel()
    'time'
    """
    import matplotlib.pyplot as plt

    group = next((each for each in _GROUPS if each in draws.children and name in draws[each].data_vars), None)
    if group is None:
        known = [str(var) for each in _GROUPS if each in draws.children for var in draws[each].data_vars]
        raise ValueError(f"Site {name!r} is not among the draws. Expected one of: {', '.join(known)}.")
    values = draws[group][name].stack(sample=("chain", "draw"))
    own = [str(each) for each in values.dims if each != "sample"]
    if (dim is None and len(own) != 1) or (dim is not None and own != [dim]):
        raise ValueError(
            f"Site {name!r} has the dims {own}: expected one, {dim or 'the continuous one'!r}; choose from the others "
            "by `tree.isel`."
        )
    along = own[0]
    values = values.sortby(along).transpose("sample", along)
    ax = ax or plt.subplots(figsize=(6, 3.5), layout="constrained")[1]
    for rank, level in enumerate(sorted(levels, reverse=True)):
        low, high = values.quantile([(1 - level) / 2, (1 + level) / 2], "sample").values
        ax.fill_between(
            values[along], low, high, color="C0", alpha=0.2 + 0.2 * rank, lw=0, label=f"{level:.0%} of draws"
        )
    ax.plot(values[along], values.values[:num_curves].T, color="C0", lw=0.6)
    if truth is not None:
        if along not in getattr(truth, "dims", ()):
            raise ValueError(f"truth: expected a DataArray along {along!r}, got {type(truth).__name__}.")
        ax.plot(truth[along], truth, color="black", ls="--", lw=1, label="truth")
    for given in ("observed_data", "constant_data"):
        if given in draws.children and name in draws[given].data_vars:
            seen = draws[given][name].dropna(along)
            ax.plot(seen[along], seen, "o", color="black", ms=4, label="given")
    ax.set(xlabel=along, ylabel=name)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
    return ax


def plot_mask(asked: ConditionedDistribution, *, ax: Axes | None = None) -> Axes:
    """Draw which token attends to which in a question, by the graph of the model: ``attention="moral"``.

    Parameters
    ----------
    asked
        Of ``simformer.condition(...)``.
    ax
        Where to draw; a new figure by default.

    Returns
    -------
    The axes; a row attends to the columns that are marked.

    Raises
    ------
    ValueError
        If a function is given, whose tokens are the points that are asked for, or the conditions of a batch differ in
        what is missing.

    Examples
    --------
    >>> import jax, numpyro, numpyro.distributions as dist
    >>> from simformer_ppl import Simformer
    >>> def model():
    ...     mu = numpyro.sample("mu", dist.Normal())
    ...     with numpyro.plate("school", 3):
    ...         numpyro.sample("y", dist.Normal(mu, 1))
    >>> simformer = Simformer(model).fit(jax.random.key(0), 100, num_steps=2, progress_bar=False)
    >>> plot_mask(simformer.condition(y=[0.3, np.nan, -0.1])).get_xlabel()
    'p(mu, y[1 of 3] | y[2 of 3]): row attends to column'
    """
    given = np.zeros(asked.structure.num_tokens, bool)
    for name, value in asked.given.values.items():
        if name in asked.given.coordinates:
            raise ValueError(
                f"Site '{name}' is a function: its tokens are the points that are asked for, not the grid's."
            )
        site = asked.structure.sites[name]
        if isinstance(value, jax.core.Tracer):
            raise ValueError(f"Site '{name}' is traced by JAX. Expected values.")
        seen = ~np.isnan(np.asarray(value)).reshape(-1, site.size)
        if not len(seen) or (seen != seen[0]).any():
            raise ValueError(f"Site '{name}': other elements are missing in each condition of a batch. Expected one.")
        tokens = given[site.token_slice]
        tokens[:] = seen[0] if len(tokens) == site.size else True
    drawn = asked.structure.plot("matrix", conditioned=given, ax=ax)
    drawn.set_xlabel(f"{asked!r}: {drawn.get_xlabel()}")
    return drawn


def _group(draws: xr.DataTree, name: str) -> xr.DataTree:
    if name not in draws.children:
        raise ValueError(f"Expected draws with the group {name!r}, got {list(draws.children)}.")
    return draws.children[name]


def _truths(
    known: xr.Dataset, truth: Mapping[str, ArrayLike], coords: Mapping[str, Any]
) -> dict[tuple[str, tuple[int, ...]], float]:
    """True values by site and place, of the coordinates that are shown."""
    lines: dict[tuple[str, tuple[int, ...]], float] = {}
    for name, value in truth.items():
        if name not in known.data_vars:
            raise ValueError(f"truth: site {name!r} is not among the draws. Expected some of: {list(known.data_vars)}.")
        array, shape = np.asarray(value, float), known[name].shape[2:]
        if array.shape != shape:
            raise ValueError(f"truth: site {name!r}: expected shape {shape}, got {array.shape}.")
        one = known[name].isel(chain=0, draw=0).copy(data=array)
        shown = one.sel({dim: labels for dim, labels in coords.items() if dim in one.dims}).values
        lines |= {(name, index): float(shown[index]) for index in np.ndindex(shown.shape)}
    return lines
