"""Simformer: what users hold. It wires the rooms and holds no mathematics."""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr
from flax import nnx
from jaxtyping import Array, PRNGKeyArray
from tqdm import tqdm

from simformer_ppl import persistence
from simformer_ppl.calibration import Calibration, calibrate, read_given
from simformer_ppl.computed_sites import find_computed
from simformer_ppl.conditioned import ConditionedDistribution
from simformer_ppl.diagnostics.novelty import Simulated
from simformer_ppl.diffusion.process import PROCESSES
from simformer_ppl.function_distribution import FunctionDistribution
from simformer_ppl.given_check import COMPARED
from simformer_ppl.joint import LearnedJoint
from simformer_ppl.labelled_arrays import dataset_to_arrays, simulations_to_dataset
from simformer_ppl.naming import check_coords, resolve_dims
from simformer_ppl.network import Embedding, NetworkConfig, read_embedding
from simformer_ppl.progress import progress
from simformer_ppl.replay import Replay
from simformer_ppl.same_laws import refuse_other_laws
from simformer_ppl.sequences import Sequences
from simformer_ppl.structure import trace_structure
from simformer_ppl.structure.covariates import Covariate, WithCovariates
from simformer_ppl.structure.tables import html_table, text_table
from simformer_ppl.tokens.attention import Attention
from simformer_ppl.tokens.conditions import Given, read_values
from simformer_ppl.tokens.functions import read_functions
from simformer_ppl.tokens.layout import TokenLayout
from simformer_ppl.tokens.masks import EVERY_QUESTION, Questions
from simformer_ppl.tokens.plates import read_plates, same_tokens
from simformer_ppl.training.checkpoint import Checkpoints, fingerprint
from simformer_ppl.training.devices import describe_devices
from simformer_ppl.training.fit import Trainer, train
from simformer_ppl.training.left_out import keep_finite
from simformer_ppl.training.model_gradient import model_gradient
from simformer_ppl.training.optimiser import make_optimiser
from simformer_ppl.training.provenance import is_own, mark
from simformer_ppl.training.recipe import BATCH_SIZE, LEARNING_RATE, default_steps, split
from simformer_ppl.training.simulate import simulate

CUSTOM = "custom"


class Simformer:
    """One network for every conditional of a NumPyro model (Gloeckler et al. 2024).

    Parameters
    ----------
    model
        A NumPyro model. It is traced, never run on real data.
    model_args, model_kwargs
        Its arguments. Data arguments stay ``None``.
    sites
        Sample or deterministic sites that become tokens; every sample site by default. Random sites left out are
        simulated and marginalised.
    data_sites
        Sites that are data; found from the model by default, see
        :func:`simformer_ppl.structure.trace_structure`.
    coords
        Coordinates by dim (a plate's name is its dim).
    dims
        Names of the axes by site, where the plates do not name them, or by array argument of the model.
    attention
        ``"moral"`` (each example's mask from the model's graph and from what is given), ``"contextual"`` (from the
        given discrete values too: with ``z`` given, ``m[z]`` reads one element; see
        :attr:`~simformer_ppl.structure.ModelStructure.contexts`), ``"dense"``, ``"directed"`` (the published variant,
        biased, for comparison), a bool matrix ``[tokens, tokens]`` with row = query, or a JAX
        function ``(conditioned[tokens], values by site) -> mask`` of one example, in which what is not given holds a
        constant inside its support.
    share_exchangeable
        Let the elements of a plate that the model cannot tell apart share their weights, so that answers follow a
        permutation of the plate and every simulation counts for all of its elements; and let elements that differ by
        known constants only share them up to a function of these. With ``attention="dense"`` and
        without sharing, the network knows nothing of the model's structure.
    use_density
        Let training use the gradient of the model's own log density at the simulations, where the model has one: it
        lowers the variance of the training target and leaves its mean, see
        :mod:`simformer_ppl.diffusion.control_variate`. Simulations that do not come from :meth:`simulate` are learned
        without.
    process
        The diffusion process: ``"edm"``, or, for comparison, the published ``"ve"`` and ``"vp"`` with their weighting
        and 500 evaluations of Euler-Maruyama, the first of which finds the mean and the last of which denoises.
    network
        Size of the network.
    continuous_dims
        Dims of the model along which sites are functions of a coordinate, with numbers in `coords`; a dict says how
        many points of each function training sees at once (at most 24 by default, fewer where functions are many). Such
        sites can be given and asked for at any coordinates within the range.
    covariates
        Arguments of the model that vary between datasets, each with a NumPyro distribution or a function of a key that
        draws them for training; they have no place in `model_args` and `model_kwargs`. They become sites that are given
        in every question. Where `dims` names their batch axes like plates of the model, the elements of these can be
        exchangeable.
    embeddings
        Flax NNX modules by site, for images, long series and other data that are only ever given: each is called on one
        value of its site (standardised, in the site's shape), returns an array ``(tokens, features)`` or
        ``(features,)``, and is trained along, from the weights that it has. Such a site is given in full or left out.
    varying_plates
        Exchangeable plates that training sees with any number of their elements, so that :meth:`resize` answers for
        other sizes.

    Raises
    ------
    ValueError
        If a named site is not in the model, the model cannot be simulated, or an option is unknown.

    Examples
    --------
    >>> import jax, numpyro, numpyro.distributions as dist
    >>> def model(y=None):
    ...     mu = numpyro.sample("mu", dist.Normal(0, 1))
    ...     numpyro.sample("y", dist.Normal(mu, 0.5), obs=y)
    >>> simformer = Simformer(model)
    >>> simformer.structure.tokens
    ('mu', 'y')
    >>> _ = simformer.fit(jax.random.key(0), 1_000, num_steps=500, progress_bar=False)
    >>> posterior = simformer.condition(y=1.0)
    >>> posterior
    p(mu | y)
    >>> posterior.sample(jax.random.key(1), 100).posterior["mu"].sizes["draw"]
    25
    """

    questions: ClassVar[Questions] = EVERY_QUESTION
    """What training asks; a subclass may ask otherwise."""

    def __init__(
        self,
        model: Callable,
        model_args: tuple = (),
        model_kwargs: Mapping[str, Any] | None = None,
        *,
        sites: Collection[str] | None = None,
        data_sites: Collection[str] | None = None,
        coords: Mapping[str, Any] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
        attention: Attention = "moral",
        share_exchangeable: bool = True,
        use_density: bool = True,
        process: str = "edm",
        network: NetworkConfig | None = None,
        covariates: Mapping[str, Covariate] | None = None,
        continuous_dims: Collection[str] | Mapping[str, int] = (),
        embeddings: Mapping[str, nnx.Module] | None = None,
        varying_plates: Collection[str] = (),
    ):
        if process not in PROCESSES:
            raise ValueError(f"process: expected one of {sorted(PROCESSES)}, got {process!r}.")
        self._model, self._covariates, self._embeddings = model, covariates, embeddings
        if covariates:
            model = WithCovariates(model, covariates, dims or {})
            sites = {*sites, *covariates} if sites and not isinstance(sites, str) else sites
        modules = {} if embeddings is None else embeddings
        if not isinstance(modules, Mapping):
            raise ValueError(f"embeddings: expected modules by site, got {type(modules).__name__}.")
        read: dict[str, Embedding] = {}

        def tokens_of(name: str, shape: tuple[int, ...]) -> int:
            read[name] = read_embedding(name, modules[name], shape)
            return read[name].num_tokens

        self.structure = trace_structure(
            model, model_args, model_kwargs, sites=sites, data_sites=data_sites,
            embedded={name: partial(tokens_of, name) for name in modules},
        )  # fmt: skip
        self._replay = Replay(model, tuple(model_args), dict(model_kwargs or {}))
        self.coords, self.dims = dict(coords or {}), dict(dims or {})
        check_coords(self.structure, self._replay.array_arguments(), self.dims, self.coords)
        for dim, labels in self.coords.items():
            persistence.labels_as_json(dim, labels)  # refuses what could not be saved
        self.network_config = network or NetworkConfig()
        self.attention, self.process = attention, process
        self.history = xr.Dataset()
        self.share_exchangeable, self.use_density = share_exchangeable, use_density
        self.continuous_dims = continuous_dims
        if read and continuous_dims:
            raise ValueError("embeddings: expected none beside continuous_dims.")
        if self.structure.sites and all(
            site.is_embedded or site.is_covariate for site in self.structure.sites.values()
        ):
            raise ValueError(
                f"Expected a site that can be asked for, got {', '.join(self.structure.sites)} alone: embedded sites "
                "and covariates are only ever given."
            )
        functions = read_functions(self.structure, continuous_dims, self.coords, self.dims) if continuous_dims else None
        layout = TokenLayout.of(self.structure, share_exchangeable=share_exchangeable, functions=functions)
        if varying_plates and not share_exchangeable:
            raise ValueError("varying_plates: expected share_exchangeable=True, so that elements share their weights.")
        self.varying_plates = (varying_plates,) if isinstance(varying_plates, str) else tuple(varying_plates)
        for dim in {*self.varying_plates} & {*(functions.grids if functions else ())}:
            raise ValueError(
                f"varying_plates: '{dim}' is a continuous dim, of which every question has the points that it asks "
                "for. Expected another plate."
            )
        elements = read_plates(self.structure, self.varying_plates)
        self._sequences = Sequences(
            self.structure, layout, attention, share_exchangeable, self.network_config, functions, read, elements
        )
        self._tokens = len(self._sequences.training.layout.group_of_token)
        self._joint: LearnedJoint | None = None
        self._simulated: Simulated | None = None
        self._computed: frozenset[str] = frozenset()

    # ------------------------------------------------------------------ training

    def simulate(
        self,
        rng_key: PRNGKeyArray,
        num_simulations: int,
        *,
        executor: Executor | None = None,
        checkpoint_dir: str | Path | None = None,
        progress_bar: bool = True,
    ) -> xr.Dataset:
        """Draw simulations from the model.

        Parameters
        ----------
        rng_key
            Source of all simulations; they are the same with any executor.
        num_simulations
            How many.
        executor
            Runs simulations side by side, 32 a task; of :mod:`concurrent.futures`, or of its interface. For slow
            simulators outside JAX; others are vectorised here. Processes must not be forked:
            ``ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))``.
        checkpoint_dir
            Where to keep finished simulations; the same call goes on from there, if it was cut off.
        progress_bar
            Show how many are done, if it takes longer than a moment.

        Returns
        -------
        Every token site, with the dim ``simulation`` first, then the dims of the plates. Simulations that raise an
        error are left out.

        Raises
        ------
        ValueError
            If no simulations are asked for, more than half raise errors, or `checkpoint_dir` holds others.
        RuntimeError
            If the executor cannot run the model.

        Warns
        -----
        SimulationWarning
            If simulations raise errors.
        """
        if num_simulations < 1:
            raise ValueError(f"num_simulations: expected at least 1, got {num_simulations}.")
        values = simulate(
            self._replay, rng_key, num_simulations, tuple(self.structure.sites), executor=executor,
            folder=checkpoint_dir, progress_bar=progress_bar,
        )  # fmt: skip
        return mark(simulations_to_dataset(self.structure, values, self.coords, self.dims), values, self._replay)

    def fit(
        self,
        rng_key: PRNGKeyArray,
        num_simulations: int = 10_000,
        *,
        simulations: xr.Dataset | Mapping[str, Array] | None = None,
        num_steps: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        validation_fraction: float = 0.05,
        progress_bar: bool = True,
        checkpoint_dir: str | Path | None = None,
    ) -> "Simformer":
        """Train the network on simulations; fitting again goes on from the present weights.

        Parameters
        ----------
        rng_key
            Source of the simulations, the initial weights and all randomness of training.
        num_simulations
            How many to draw, unless `simulations` are passed.
        simulations
            From :meth:`simulate`, or arrays by site with a leading axis.
        num_steps
            Gradient steps; chosen from the number of simulations and tokens by default
            (:func:`simformer_ppl.training.recipe.default_steps`).
        batch_size
            Examples a step, 64 by default (each noised twice, where the model's gradient is not used); split over all
            devices that JAX sees. A CPU is one device, and trains on one core, unless
            ``numpyro.set_host_device_count`` is called before anything else.
        learning_rate
            Peak learning rate, 1.5e-3 by default.
        validation_fraction
            Share of the simulations held out, to choose the best weights.
        progress_bar
            Show steps, rate, remaining time and losses.
        checkpoint_dir
            Where to save the state of training now and then; a run that was cut off goes on from there.

        Returns
        -------
        Itself, trained. Ctrl-C ends training early and keeps the best weights so far.

        Raises
        ------
        ValueError
            If simulations do not fit the model, too many are not finite, or a number is out of range.

        Warns
        -----
        SimulationWarning
            If simulations are not finite; they are left out.
        DeviceWarning
            If there is a GPU, and JAX does not see it. The devices that train are logged (logger ``simformer_ppl``).
        TrainingWarning
            If it was interrupted, or its loss is no number any more.
        """
        data_key, split_key, init_key, train_key = jax.random.split(rng_key, 4)
        channels, known = self._channels(data_key, num_simulations, simulations, progress_bar)
        train_set, validation_set = split(split_key, channels, validation_fraction)
        steps = default_steps(len(train_set), self._tokens) if num_steps is None else num_steps
        batch = BATCH_SIZE if batch_size is None else batch_size
        rate = LEARNING_RATE if learning_rate is None else learning_rate
        for name, value in {"num_steps": steps, "batch_size": batch, "learning_rate": rate}.items():
            if value <= 0:
                raise ValueError(f"{name}: expected a positive number, got {value}.")
        if self._joint is None:
            self._joint = self._initialise(init_key, train_set)
        joint = self._joint
        self._simulated = Simulated(np.asarray(joint.standardisation.forward(jnp.asarray(train_set[:COMPARED]))))
        gradient = None
        if self.use_density and known:
            gradient = model_gradient(self._replay, self.structure, joint.layout, joint.standardisation, train_set)
        gradients = None if gradient is None else gradient.values
        trainer = Trainer(
            self._sequences.training, joint.standardisation, joint.process, make_optimiser(rate, steps), batch,
            gradient and gradient._replace(values=gradient.values[:0]), self.questions, self._sequences.functions,
        )  # fmt: skip
        checkpoints = None
        if checkpoint_dir is not None:
            settings = (jax.random.key_data(train_key), steps, batch, rate, gradient is not None)
            run = fingerprint(train_set, validation_set, joint.parameters, settings)
            checkpoints = Checkpoints(checkpoint_dir, run)
        bar = tqdm(total=steps, desc=f"fit on {describe_devices(batch)}", unit="step", disable=not progress_bar)
        parameters, history = train(
            trainer,
            self._sequences.trained_on,
            joint.parameters,
            train_key,
            train_set,
            validation_set,
            gradients,
            steps,
            bar,
            checkpoints,
        )
        self._joint = replace(joint, parameters=parameters)
        self.history = _extend(self.history, history.assign_attrs(model_gradient=int(gradient is not None)))
        return self

    def plot_history(self, ax: Any = None) -> Any:
        """Draw the training and validation loss against the step.

        Parameters
        ----------
        ax
            Matplotlib axes; new ones by default.

        Returns
        -------
        The axes.

        Raises
        ------
        ValueError
            If the network is not fitted yet.
        """
        import matplotlib.pyplot as plt

        if not self.history.data_vars:
            raise ValueError("Not fitted yet: there is no history. Call fit first.")
        ax = ax or plt.subplots(figsize=(6, 3.5), layout="constrained")[1]
        ax.plot(self.history["step"], self.history["training_loss"], lw=1, alpha=0.7, label="training")
        ax.plot(self.history["step"], self.history["validation_loss"], lw=1.5, label="validation")
        ax.set(xlabel="step", ylabel="denoising loss")
        ax.legend(frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
        return ax

    @property
    def num_parameters(self) -> int:
        """Number of the network's weights; 0 before the first fit."""
        return 0 if self._joint is None else sum(leaf.size for leaf in jax.tree.leaves(self._joint.parameters))

    def resize(
        self,
        model_args: tuple = (),
        model_kwargs: Mapping[str, Any] | None = None,
        *,
        coords: Mapping[str, Any] | None = None,
        covariates: Mapping[str, Covariate] | None = None,
    ) -> "Simformer":
        """The same network for the model with other arguments, by which plates have other sizes.

        Parameters
        ----------
        model_args, model_kwargs
            Arguments of the model.
        coords
            Coordinates by dim, of plates that vary in size; those of other dims are kept.
        covariates
            Where covariates are drawn from that lie in a plate that varies in size; the others are as they were by
            default.

        Returns
        -------
        A fitted Simformer of the new size, with the same weights. Sizes beyond the one it was trained on are a guess.

        Raises
        ------
        ValueError
            If the network is not fitted, the model differs in more than the sizes of `varying_plates`, or a covariate
            of the old size is left.

        Examples
        --------
        >>> import jax, numpy as np, numpyro, numpyro.distributions as dist
        >>> from simformer_ppl import Simformer
        >>> def model(size, y=None):
        ...     mu = numpyro.sample("mu", dist.Normal(0, 1))
        ...     with numpyro.plate("person", size):
        ...         numpyro.sample("y", dist.Normal(mu, 0.5), obs=y)
        >>> simformer = Simformer(model, (10,), varying_plates=["person"])
        >>> simformer = simformer.fit(jax.random.key(0), 1_000, num_steps=100, progress_bar=False)
        >>> simformer.resize((3,)).condition(y=np.ones(3)).draw(jax.random.key(1), (5,))["mu"].shape
        (5,)
        """
        if self._joint is None:
            raise ValueError("Not fitted yet: call fit before resize.")
        if self._sequences.alike is not None:
            raise ValueError("Resized already: expected the Simformer that was trained, which can be resized at will.")
        if not self.varying_plates:
            raise ValueError("Expected plates that training sees at any size: Simformer(..., varying_plates=[...]).")
        old_covariates, new_covariates = self._covariates or {}, covariates or {}
        for name in old_covariates.keys() - new_covariates.keys():
            for plate in {*self.varying_plates} & {*self.dims.get(name, ())}:
                raise ValueError(
                    f"covariates: expected where {name!r} is drawn from, which varies in size by {plate!r}."
                )
        kept = {dim: labels for dim, labels in self.coords.items() if dim not in self.varying_plates}
        resized = type(self)(
            self._model,
            model_args,
            model_kwargs,
            **{
                **self._configuration()["options"],
                "attention": self.attention,
                "coords": kept | dict(coords or {}),
                "network": self.network_config,
                "varying_plates": (),
            },
            covariates={**old_covariates, **new_covariates} or None,
            embeddings=self._embeddings,
        )
        old, new = self._sequences, resized._sequences
        if old.functions is not None and new.functions is not None:
            old.functions.refuse_other_grids(new.functions)
        tokens = same_tokens(self.structure, resized.structure, self.varying_plates)
        refuse_other_laws(self.structure, self._replay, resized.structure, resized._replay, self.varying_plates)
        layout = old.layout.at(new.layout.sites, tokens)
        alike = self.structure.exchangeable + self.structure.constant_plates
        resized._sequences = replace(new, layout=layout, alike=alike, _made={})
        resized._joint = resized._sequences.resized_joint(self._joint, tokens)
        resized.history, resized._computed = self.history, self._computed
        return resized

    # ------------------------------------------------------------------ asking

    def condition(
        self,
        data: Mapping[str, Any] | None = None,
        /,
        *,
        constraint: Callable[[Mapping[str, Array]], Array] | None = None,
        prior: Mapping[str, dist.Distribution] | None = None,
        **sites: Any,
    ) -> ConditionedDistribution:
        """Give some values and get the distribution of all others.

        Parameters
        ----------
        data
            Values by site, for names that are no Python identifiers, or that are arguments here.
        constraint
            A JAX function from a dict of the values of all token sites to a scalar log weight, by which draws are
            weighted; several calls multiply.
        prior
            NumPyro distributions by site, in place of the model's: draws are weighted by the ratio of the densities.
        **sites
            Values by site: arrays that broadcast to the site's shape, ``xarray.DataArray``, floats, or
            :func:`~simformer_ppl.between`, :func:`~simformer_ppl.above`, :func:`~simformer_ppl.below`. NaN marks a
            missing scalar. Axes before the site's shape are batch axes, equal or broadcastable between sites.

        Returns
        -------
        The conditioned distribution; of the joint, where nothing is given.

        Raises
        ------
        ValueError
            If the network is not fitted, a site is unknown or given twice, a shape is wrong, a value lies outside the
            support, part of an event is missing whose support is not elementwise, nothing is left to sample, a
            constraint is no function to a scalar, or a prior does not fit its site.

        Warns
        -----
        NoveltyWarning
            If given values lie far outside the simulations of the last fit, see
            :meth:`~simformer_ppl.ConditionedDistribution.check_given`.

        Examples
        --------
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from simformer_ppl import Simformer, above
        >>> def model(y=None):
        ...     mu = numpyro.sample("mu", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(mu, 0.5), obs=y)
        >>> simformer = Simformer(model).fit(jax.random.key(0), 1_000, num_steps=100, progress_bar=False)
        >>> posterior = simformer.condition(y=1.0)
        >>> positive = posterior.condition(mu=above(0.0)).sample(jax.random.key(1))
        >>> bool((positive.posterior["mu"] > 0).all())
        True
        >>> simformer.condition(y=1.0, prior={"mu": dist.Normal(0.0, 0.1)})
        p(mu | y, mu ~ Normal)
        """
        if self._joint is None:
            raise ValueError("Not fitted yet: call fit(rng_key, num_simulations) before condition.")
        parts = (self.structure, self._joint, self._replay, Given(), self._simulated, self.coords, self.dims)
        start = ConditionedDistribution(*parts, computed=self._computed)
        if self._sequences.functions is not None:
            start = FunctionDistribution(*parts, sequences=self._sequences, computed=self._computed)
        return start.condition(data, constraint=constraint, prior=prior, **sites)

    # ------------------------------------------------------------------ checking

    def calibrate(
        self,
        rng_key: PRNGKeyArray,
        given: Collection[str] | Mapping[str, Any] | None = None,
        *,
        num_simulations: int = 500,
        num_draws: int = 100,
        sites: Collection[str] | None = None,
        at: Mapping[str, Any] | None = None,
        progress_bar: bool = True,
    ) -> Calibration:
        """Check a kind of question on fresh simulations: true values should fall anywhere among the draws.

        Simulation-based calibration (Talts et al. 2018), coverage of intervals, and TARP (Lemos et al. 2023) for all
        scalars together; on what it returns, :meth:`~simformer_ppl.calibration.Calibration.local_c2st` tests the answer
        to one observation.

        Parameters
        ----------
        rng_key
            Source of all randomness.
        given
            Sites that are given, or bool masks of given scalars by site; the data sites by default.
        num_simulations
            Fresh simulations.
        num_draws
            Draws for each.
        sites
            Those to ask for, all others by default.
        at
            Coordinates by continuous dim at which functions are asked for, among those where they are simulated.
        progress_bar
            Shows the progress of what takes longer than seconds.

        Returns
        -------
        What deviates, as a table where it is printed; its ``pit`` is what ``az.plot_ecdf_pit`` draws.

        Raises
        ------
        ValueError
            If the network is not fitted, `given` names no site, leaves nothing latent or is no mask, or `sites` or `at`
            are such as :meth:`~simformer_ppl.ConditionedDistribution.draw` refuses.

        Examples
        --------
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> def model(y=None):
        ...     mu = numpyro.sample("mu", dist.Normal(0, 1))
        ...     numpyro.sample("y", dist.Normal(mu, 0.5), obs=y)
        >>> simformer = Simformer(model).fit(jax.random.key(0), 1_000, num_steps=100, progress_bar=False)
        >>> calibration = simformer.calibrate(jax.random.key(1), given=["y"], num_simulations=100, num_draws=50)
        >>> calibration.pit["prior_sbc"]["mu"].shape
        (1, 100)
        """
        for dim in {*(at or {})} & {*self.structure.sites}:
            raise ValueError(f"at: '{dim}' is a site. Expected coordinates by continuous dim.")
        masks = read_given(self.structure, given)
        anything = self.condition().of_sites(sites, at)
        for name in anything.latent_sites:  # before simulating, what lies between simulations is refused
            anything.where_asked(name, np.zeros((1, *self.structure.sites[name].shape)))
        simulate_key, ask_key = jax.random.split(rng_key)
        simulated = self.simulate(simulate_key, num_simulations, progress_bar=progress_bar)
        values = dataset_to_arrays(self.structure, simulated, self.coords, self.dims)
        count = simulated.sizes["simulation"]
        finite = np.all([np.isfinite(value.reshape(count, -1)).all(1) for value in values.values()], 0)
        values = {name: value[finite] for name, value in values.items()}
        ask = lambda given: self.condition(given).of_sites(sites, at)  # noqa: E731
        labels = {**self.coords, **(at or {})}, resolve_dims(self.structure, self.dims)
        with progress("calibrate", progress_bar):
            return calibrate(ask, values, masks, *labels, ask_key, num_draws)

    def check(
        self,
        rng_key: PRNGKeyArray,
        *,
        num_simulations: int = 500,
        num_draws: int = 100,
        progress_bar: bool = True,
    ) -> dict[str, Calibration]:
        """Print how the posterior, the likelihood and the joint distribution are calibrated, and return it.

        Parameters
        ----------
        rng_key, num_simulations, num_draws, progress_bar
            As of :meth:`calibrate`.
        """
        sites = {name: site for name, site in self.structure.sites.items() if not site.is_covariate}
        data = [name for name, site in sites.items() if site.is_data]
        parameters = [name for name in sites if name not in data]
        patterns = {"posterior": data, "likelihood": parameters, "joint": []}
        asked_for = {name for name, site in sites.items() if not site.is_embedded}
        asked = {kind: given for kind, given in patterns.items() if asked_for - set(given)}
        keys = jax.random.split(rng_key, len(asked))
        found = {
            kind: self.calibrate(
                key, given, num_simulations=num_simulations, num_draws=num_draws, progress_bar=progress_bar
            )
            for key, (kind, given) in zip(keys, asked.items(), strict=True)
        }
        print("\n\n".join(map(repr, found.values())))
        return found

    # ------------------------------------------------------------------ keeping

    def save(self, path: str | Path) -> None:
        """Write weights, standardisation, configuration and versions to a folder; no pickle, no training set.

        Raises
        ------
        ValueError
            If the network is not fitted yet, has been resized, or the folder holds something else.
        """
        if self._joint is None:
            raise ValueError("Not fitted yet: there is nothing to save. Call fit first.")
        if self._sequences.alike is not None:
            raise ValueError(
                "Resized: expected the Simformer that was trained, which can be resized after it is loaded."
            )
        persistence.save(Path(path), self._joint, self.structure, self._configuration(), self.history)

    @classmethod
    def load(
        cls,
        path: str | Path,
        model: Callable,
        model_args: tuple = (),
        model_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> "Simformer":
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path
            The folder.
        model, model_args, model_kwargs
            The model, as it was.
        **options
            Options of :class:`Simformer` that cannot be stored: `covariates`, `embeddings`, and an `attention` that is
            an array or a function.

        Returns
        -------
        A fitted Simformer, with bit-identical draws for the same key.

        Raises
        ------
        ValueError
            If the model's structure is not the saved one; the message says where it differs.
        """
        configuration = persistence.read_configuration(Path(path))
        stored = configuration["options"]
        stored["network"] = NetworkConfig(**stored["network"])
        stored["coords"] = {name: persistence.read_labels(values) for name, values in stored["coords"].items()}
        drawn = [name for name, site in configuration["structure"]["sites"].items() if site.get("is_covariate")]
        if drawn and not options.get("covariates"):
            raise ValueError(f"{path}: saved with covariates {drawn}. Expected them again: load(..., covariates=...).")
        read = [name for name, site in configuration["structure"]["sites"].items() if site.get("is_embedded")]
        if read and not options.get("embeddings"):
            raise ValueError(
                f"{path}: saved with embeddings of {read}. Expected them again: load(..., embeddings=...)."
            )
        if stored["attention"] == CUSTOM and "attention" not in options:
            raise ValueError(
                f"{path}: saved with an attention of your own. Expected it again: load(..., attention=...)."
            )
        loaded = cls(model, model_args, model_kwargs, **{**stored, **options})
        persistence.check_structure(configuration["structure"], persistence.describe_structure(loaded.structure))
        # as they were in training: the components of the same constants are not unique
        constants = persistence.read_constants(Path(path), loaded.structure)
        layout = replace(loaded._sequences.layout, constants=constants)
        loaded._sequences = replace(loaded._sequences, layout=layout, _made={})
        template = loaded._initialise(jax.random.key(0), np.zeros((1, layout.num_channels), np.float32))
        parameters, standardisation = persistence.read_arrays(Path(path), template)
        loaded._joint = replace(template, parameters=parameters, standardisation=standardisation)
        loaded.history = persistence.read_history(Path(path))
        loaded._computed = frozenset(configuration.get("computed", ()))
        return loaded

    # ------------------------------------------------------------------ looks

    def __repr__(self) -> str:
        return f"{self._headline()}\n{text_table(self.structure, self.dims)}"

    def _repr_html_(self) -> str:
        return f"<p>{self._headline()}</p>{html_table(self.structure, self.dims)}"

    def _headline(self) -> str:
        if self._joint is None:
            return "Simformer (not fitted)"
        steps = int(self.history["step"][-1]) if "step" in self.history.coords else 0
        return f"Simformer (fitted: {self.num_parameters:,} parameters, {steps:,} steps)"

    # ------------------------------------------------------------------ parts of the above

    def _channels(
        self, rng_key: PRNGKeyArray, num_simulations: int, simulations: Any, progress_bar: bool = False
    ) -> tuple[np.ndarray, bool]:
        """Finite simulations as channels, and whether they are known to be the model's own."""
        passed = simulations is not None
        if simulations is None:
            simulations = self.simulate(rng_key, num_simulations, progress_bar=progress_bar)
        values = dataset_to_arrays(self.structure, simulations, self.coords, self.dims)
        layout = self._sequences.layout
        channels = np.asarray(jax.jit(layout.encode)(values))
        finite = keep_finite(channels, {n: layout.channel_slices[n] for n in self.structure.sites})
        kept = {name: value[finite] for name, value in values.items()}
        self._computed = find_computed(self.structure, self._replay, kept)
        own = is_own(simulations, values, self._replay)
        if passed and not own:
            for name, site in self.structure.sites.items():
                read_values(site, kept[name])
        return channels[finite], own

    def _initialise(self, rng_key: PRNGKeyArray, channels: np.ndarray) -> LearnedJoint:
        return self._sequences.initial_joint(rng_key, channels, PROCESSES[self.process])

    def _configuration(self) -> dict[str, Any]:
        return {
            "options": {
                "sites": list(self.structure.sites),
                "data_sites": [name for name, site in self.structure.sites.items() if site.is_data],
                "coords": {name: persistence.labels_as_json(name, values) for name, values in self.coords.items()},
                "dims": {name: list(names) for name, names in self.dims.items()},
                "attention": self.attention if isinstance(self.attention, str) else CUSTOM,
                "share_exchangeable": self.share_exchangeable,
                "use_density": self.use_density,
                "process": self.process,
                "network": self.network_config._asdict(),
                "continuous_dims": _plain(self.continuous_dims),
                "varying_plates": list(self.varying_plates),
            },
            "structure": persistence.describe_structure(self.structure),
            "computed": sorted(self._computed),
        }


def _plain(names: Collection[str] | Mapping[str, int]) -> list[str] | dict[str, int]:
    """As JSON has it."""
    if isinstance(names, Mapping):
        return dict(names)
    return [names] if isinstance(names, str) else list(names)


def _extend(old: xr.Dataset, new: xr.Dataset) -> xr.Dataset:
    """Append a run to the history."""
    if not old.data_vars:
        return new
    later = new.assign_coords(step=new["step"] + int(old["step"][-1]))
    return xr.concat([old, later], "step").assign_attrs(new.attrs)
