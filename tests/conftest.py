"""Models and trained networks shared by the tests."""

import fcntl
import os
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from simformer_ppl import NetworkConfig, Simformer
from simformer_ppl.diagnostics.novelty import Simulated
from tests import everywhere

SMALL = NetworkConfig(width=16, depth=1, heads=2)
"""For what holds whatever a network has learned."""


def chain_model(y=None):
    """a ~ N(0, 2), b_k ~ N(a, 1), y_k ~ N(b_k, 0.5): every conditional is Gaussian and known."""
    a = numpyro.sample("a", dist.Normal(0.0, 2.0))
    with numpyro.plate("k", 3):
        b = numpyro.sample("b", dist.Normal(a, 1.0))
        numpyro.sample("y", dist.Normal(b, 0.5), obs=y)


def zoo_model(x=None):
    """One site of every kind of support."""
    rate = numpyro.sample("rate", dist.HalfNormal(2.0))
    angle = numpyro.sample("angle", dist.Uniform(-1.0, 3.0))
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
    switch = numpyro.sample("switch", dist.Bernoulli(0.4))
    kind = numpyro.sample("kind", dist.Categorical(weights))
    width = numpyro.sample("width", dist.Uniform(0.0, rate + 0.1))
    numpyro.deterministic("ratio", rate / (1.0 + width))
    with numpyro.plate("item", 4, dim=-1):
        numpyro.sample("count", dist.Poisson(rate + switch))
        numpyro.sample("x", dist.Normal(angle + kind, 1.0 + width), obs=x)


class GaussianChain:
    """The exact joint of :func:`chain_model` over (a, b_0, b_1, b_2, y_0, y_1, y_2)."""

    def __init__(self):
        mixing = np.zeros((7, 7))
        mixing[:, 0] = 2.0
        for k in range(3):
            mixing[1 + k, 1 + k] = mixing[4 + k, 1 + k] = 1.0
            mixing[4 + k, 4 + k] = 0.5
        self.covariance = mixing @ mixing.T

    def conditional(self, given, values):
        """Mean and covariance of the tokens not in the bool mask `given`, at the full vector `values`."""
        latent = ~given
        cross = self.covariance[np.ix_(latent, given)]
        gain = cross @ np.linalg.inv(self.covariance[np.ix_(given, given)]) if given.any() else cross
        covariance = self.covariance[np.ix_(latent, latent)] - gain @ cross.T
        return gain @ values[given], covariance


def pytest_configure(config):
    config.pluginmanager.register(everywhere)
    if config.option.markexpr == "not slow":
        # short tests spend their time in the compiler; read by JAX when it first looks for devices
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


@pytest.fixture(scope="session")
def gaussian_chain():
    return GaussianChain()


def trained_once(path: Path, model, num_simulations: int, num_steps: int, batch_size=None, **options) -> Simformer:
    """Train in the first process that asks; the others load what it saved."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            simformer = Simformer(model, **options)
            training = {"num_steps": num_steps, "batch_size": batch_size, "progress_bar": False}
            simformer.fit(jax.random.key(0), num_simulations, **training).save(path)
        unstored = {name: option for name, option in options.items() if name in ("covariates", "embeddings")}
        return Simformer.load(path, model, options.get("model_args", ()), **unstored)


def untrained(model, *, shaken: bool = False, **options) -> Simformer:
    """A network of random weights, for what holds whatever it has learned; shaken, those that start at zero too."""
    simformer = Simformer(model, network=SMALL, **options)
    channels, _ = simformer._channels(jax.random.key(0), 2_000, None)
    joint = simformer._initialise(jax.random.key(1), channels)
    if shaken:
        leaves, tree = jax.tree.flatten(joint.parameters)
        rng = np.random.default_rng(0)
        moved = [leaf + jnp.asarray(rng.normal(0.0, 0.1, leaf.shape), leaf.dtype) for leaf in leaves]
        joint = replace(joint, parameters=jax.tree.unflatten(tree, moved))
    simformer._joint = joint
    simformer._simulated = Simulated(np.asarray(joint.standardisation.forward(jnp.asarray(channels))))
    return simformer


@pytest.fixture(scope="session")
def chain(shared_folder):
    """A network that has learned the Gaussian chain."""
    return trained_once(shared_folder / "chain", chain_model, 20_000, 3_000, network=NetworkConfig(depth=2))


@pytest.fixture(scope="session")
def hasty(shared_folder):
    """A network that has seen too little of the Gaussian chain to be exact."""
    return trained_once(shared_folder / "hasty", chain_model, 500, 500, batch_size=32, network=SMALL)


@pytest.fixture(scope="session")
def zoo(shared_folder):
    """A network that has hardly seen the zoo: for shapes, supports and round trips, which hold whatever it learned."""
    options = {"coords": {"item": list("abcd")}, "network": SMALL, "use_density": False}
    return trained_once(shared_folder / "zoo", zoo_model, 2_000, 300, **options)
