"""Long statistical checks at the default settings: `pytest -m slow`, some ten minutes on two cores."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS
from numpyro.infer.reparam import LocScaleReparam
from scipy.stats import multivariate_normal

from simformer_ppl import Simformer
from simformer_ppl.diagnostics.c2st import c2st
from tests.conftest import chain_model

pytestmark = pytest.mark.slow

EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
STANDARD_ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


@pytest.fixture(scope="module")
def default_chain():
    return Simformer(chain_model).fit(jax.random.key(0), 20_000, progress_bar=False)


CHAIN_QUERIES = {"p(a, b | y)": [4, 5, 6], "p(a, b, y1, y2 | y0)": [4], "p(b, y1, y2 | a, y0)": [0, 4], "joint": []}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("query", CHAIN_QUERIES)
def test_gaussian_chain(default_chain, gaussian_chain, query, seed):
    rng = np.random.default_rng(seed)
    full = rng.multivariate_normal(np.zeros(7), gaussian_chain.covariance)
    given = np.isin(np.arange(7), CHAIN_QUERIES[query])
    mean, covariance = gaussian_chain.conditional(given, full)
    reference = rng.multivariate_normal(mean, covariance, 1_000)
    masked = np.where(given, full, np.nan)
    conditioned = default_chain.condition(a=masked[0], b=masked[1:4], y=masked[4:])
    drawn = conditioned.draw(jax.random.key(seed), (1_000,))
    values = np.broadcast_to(full, (1_000, 7)).copy()
    values[:, ~given] = reference
    samples = values.copy()
    for name, places in {"a": slice(0, 1), "b": slice(1, 4), "y": slice(4, 7)}.items():
        if name in drawn:
            samples[:, places] = np.asarray(drawn[name]).reshape(1_000, -1)
    log_prob = conditioned.log_prob({"a": values[:, 0], "b": values[:, 1:4], "y": values[:, 4:]})
    error = np.median(np.abs(log_prob - multivariate_normal(mean, covariance).logpdf(reference)))
    score = c2st(samples[:, ~given], reference)
    print(f"{query} seed {seed}: C2ST {score:.3f}, median |log_prob error| {error:.3f} nat")
    # .54 and three standard errors of an accuracy over 2,000 labels
    assert score < 0.54 + 3 * 0.5 / np.sqrt(2_000)
    assert error < 0.15


def eight_schools(y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", 8):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, STANDARD_ERROR), obs=y)


def test_eight_schools_against_nuts():
    simformer = Simformer(eight_schools).fit(jax.random.key(0), 20_000, progress_bar=False)
    draws = simformer.condition(y=EFFECT).draw(jax.random.key(1), (4_000,))
    non_centred = numpyro.handlers.reparam(eight_schools, config={"theta": LocScaleReparam(0)})
    nuts = MCMC(
        NUTS(non_centred, target_accept_prob=0.95),
        num_warmup=1_000,
        num_samples=4_000,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    nuts.run(jax.random.key(2), y=EFFECT)
    reference = nuts.get_samples()
    ours, exact = (
        np.concatenate([np.asarray(d[n]).reshape(len(d["mu"]), -1) for n in ("mu", "tau", "theta")], 1)
        for d in (draws, reference)
    )
    difference = (ours.mean(0) - exact.mean(0)) / exact.std(0)
    ratio = ours.std(0) / exact.std(0)
    score = c2st(ours[:1_000], exact[::16])
    print(f"eight schools: largest |difference| {abs(difference).max():.3f} sd, ", end="")
    print(f"sd ratio {ratio.min():.3f} to {ratio.max():.3f}, C2ST {score:.3f}")
    assert (abs(difference) <= 0.15).all() and (ratio >= 0.85).all() and (ratio <= 1.18).all()
