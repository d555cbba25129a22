"""Log densities along the probability flow, from denoisers that are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from simformer_ppl.diffusion.density import exact_probes, hutchinson_probes, log_density
from simformer_ppl.diffusion.process import EDM
from simformer_ppl.joint import DENSITY_LEVELS

LEVELS = np.geomspace(EDM().lowest, EDM().highest, DENSITY_LEVELS).astype(np.float32)
WITHIN = 0.03  # nats on average: narrow Gaussians are off by .02, wide ones by a tenth of it


def raw_output(denoise):
    """What a network with this denoiser would say."""

    def prediction(noised, level):
        s = level[:, None]
        return (denoise(noised, s) - noised / (1 + s**2)) * jnp.sqrt(1 + s**2) / s

    return prediction


def gaussian(mean, covariance):
    scales, directions = np.linalg.eigh(covariance)

    def denoise(noised, s):
        return mean + ((noised - mean) @ directions * scales / (scales + s**2)) @ directions.T

    return raw_output(denoise)


@pytest.mark.parametrize("sd", [1.0, 0.3, 0.03])
def test_density_of_a_gaussian_of_any_width(sd):
    correlation = np.array([[1.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 1.0]])
    mean, covariance = np.array([0.5, -1.0, 0.2]), sd**2 * correlation
    values = np.random.default_rng(0).multivariate_normal(mean, covariance, 50)
    latent = jnp.ones(values.shape, bool)
    found = log_density(gaussian(mean, covariance), jnp.asarray(values), latent, LEVELS, exact_probes(latent, 3))
    assert np.abs(found - multivariate_normal(mean, covariance).logpdf(values)).mean() < WITHIN


def test_given_channels_are_left_alone():
    covariance = np.array([[1.0, 0.6], [0.6, 1.0]])
    values = jnp.asarray(np.random.default_rng(3).normal(size=(20, 2)), jnp.float32)
    latent = jnp.broadcast_to(jnp.array([True, False]), values.shape)
    conditional = gaussian(np.zeros(1), np.array([[1 - 0.6**2]]))

    def prediction(noised, level):
        # the first channel given the second, which enters clean
        centre = 0.6 * values[:, 1:]
        s = level[:, None]
        clean = conditional(noised[:, :1] - centre, level) * s / jnp.sqrt(1 + s**2)
        clean = clean + (noised[:, :1] - centre) / (1 + s**2) + centre
        raw = (clean - noised[:, :1] / (1 + s**2)) * jnp.sqrt(1 + s**2) / s
        return jnp.concatenate([raw, jnp.full_like(raw, 7.0)], 1)

    found = log_density(prediction, values, latent, LEVELS, exact_probes(latent, 1))
    joint, given = multivariate_normal(np.zeros(2), covariance), norm()
    np.testing.assert_allclose(found, joint.logpdf(values) - given.logpdf(values[:, 1]), atol=2 * WITHIN)


def test_density_of_two_narrow_modes():
    modes, sd = np.array([-1.0, 1.0]), 0.05

    def denoise(noised, s):
        weight = jax.nn.softmax(-0.5 * (noised - modes) ** 2 / (sd**2 + s**2), -1)
        return (weight * (modes + sd**2 / (sd**2 + s**2) * (noised - modes))).sum(-1, keepdims=True)

    values = np.random.default_rng(1).choice(modes, 100) + sd * np.random.default_rng(2).normal(size=100)
    latent = jnp.ones((100, 1), bool)
    found = log_density(raw_output(denoise), jnp.asarray(values)[:, None], latent, LEVELS, exact_probes(latent, 1))
    exact = np.log(norm(modes, sd).pdf(values[:, None]).mean(1))
    assert np.abs(found - exact).mean() < WITHIN


def test_random_probes_are_right_on_average():
    mean, covariance = np.zeros(4), np.diag([1.0, 0.5, 0.2, 0.1]) + 0.05
    values, latent = jnp.zeros((2_000, 4)), jnp.ones((2_000, 4), bool)
    probes = hutchinson_probes(jax.random.key(0), latent, 4)
    found = np.asarray(log_density(gaussian(mean, covariance), values, latent, LEVELS, probes))
    exact = multivariate_normal(mean, covariance).logpdf(np.zeros(4))
    assert found.std() > 0
    assert abs(found.mean() - exact) < 4 * found.std() / np.sqrt(len(found)) + WITHIN
