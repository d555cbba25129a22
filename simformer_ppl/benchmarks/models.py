"""Models of any size, to measure what grows with the number of tokens."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan


def plate(num_tokens: int) -> Callable[[], None]:
    """A hierarchy: two hyperparameters, as many parameters as data."""

    def model() -> None:
        mu, tau = numpyro.sample("mu", dist.Normal(0, 1)), numpyro.sample("tau", dist.HalfCauchy(1))
        with numpyro.plate("n", (num_tokens - 2) // 2):
            numpyro.sample("y", dist.Normal(numpyro.sample("theta", dist.Normal(mu, tau)), 1))

    return model


def scanned(num_tokens: int) -> Callable[[], None]:
    """A hidden Markov chain, written with ``scan``."""

    def model() -> None:
        def step(x, _):
            x = numpyro.sample("x", dist.Normal(x, 1))
            numpyro.sample("y", dist.Normal(x, 1))
            return x, None

        scan(step, 0.0, None, length=num_tokens // 2)

    return model


def looped(num_tokens: int) -> Callable[[], None]:
    """The same chain, written with a Python loop: a site for every scalar."""

    def model() -> None:
        x = 0.0
        for t in range(num_tokens // 2):
            x = numpyro.sample(f"x{t}", dist.Normal(x, 1))
            numpyro.sample(f"y{t}", dist.Normal(x, 1))

    return model


def regression(num_tokens: int, num_covariates: int = 20) -> Callable[[], None]:
    """Dense linear regression: every datum reads every coefficient."""
    rows = num_tokens - num_covariates - 1
    design = np.random.default_rng(0).normal(size=(rows, num_covariates)).astype(np.float32)

    def model() -> None:
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([num_covariates]).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1))
        with numpyro.plate("n", rows):
            numpyro.sample("y", dist.Normal(jnp.asarray(design) @ beta, sigma))

    return model


def mixture(num_tokens: int, num_components: int = 4) -> Callable[[], None]:
    """A mixture with its labels: once these are known, a datum reads one component."""

    def model() -> None:
        with numpyro.plate("k", num_components):
            mu = numpyro.sample("mu", dist.Normal(0, 3))
        with numpyro.plate("n", (num_tokens - num_components) // 2):
            label = numpyro.sample("label", dist.Categorical(jnp.ones(num_components) / num_components))
            numpyro.sample("y", dist.Normal(mu[label], 1))

    return model


SIZED = {"plate": plate, "scan": scanned, "loop": looped, "regression": regression, "mixture": mixture}
