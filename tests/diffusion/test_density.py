"""Log densities along the probability flow, from denoisers that are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from simformer_ppl.diffusion.density import estimated_log_density, hutchinson_probes, log_density, unit_vectors
from simformer_ppl.diffusion.process import EDM
from simformer_ppl.joint import DENSITY_LEVELS, HUTCHINSON_LEVELS


def levels(count):
    return np.geomspace(EDM().lowest, EDM().highest, count).astype(np.float32)


LEVELS = levels(DENSITY_LEVELS)
WITHIN = 0.03  # nats on average: that of narrow modes is off by .02, that of Gaussians by less than .01


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
    found = log_density(gaussian(mean, covariance), jnp.asarray(values), latent, LEVELS, 3)
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

    found = log_density(prediction, values, latent, LEVELS, 1)
    joint, given = multivariate_normal(np.zeros(2), covariance), norm()
    np.testing.assert_allclose(found, joint.logpdf(values) - given.logpdf(values[:, 1]), atol=2 * WITHIN)


MODES, WEIGHTS, SD = np.array([-1.0, 1.0]), np.array([0.3, 0.7]), 0.05


def two_narrow_modes(noised, s):
    weight = jax.nn.softmax(np.log(WEIGHTS) - 0.5 * (noised - MODES) ** 2 / (SD**2 + s**2), -1)
    return (weight * (MODES + SD**2 / (SD**2 + s**2) * (noised - MODES))).sum(-1, keepdims=True)


def log_density_of_two_narrow_modes(values):
    latent = jnp.ones((len(values), 1), bool)
    return log_density(raw_output(two_narrow_modes), jnp.asarray(values)[:, None], latent, LEVELS, 1)


def test_density_of_two_narrow_modes():
    values = np.random.default_rng(1).choice(MODES, 100, p=WEIGHTS) + SD * np.random.default_rng(2).normal(size=100)
    exact = np.log(norm(MODES, SD).pdf(values[:, None]) @ WEIGHTS)
    assert np.abs(log_density_of_two_narrow_modes(values) - exact).mean() < WITHIN


def test_nothing_is_between_two_narrow_modes():
    # where values are drawn to the line that parts the modes, faster than explicit methods follow
    grid = np.linspace(-2.0, 2.0, 2_001)
    density = np.exp(log_density_of_two_narrow_modes(grid))
    exact = norm(MODES, SD).pdf(grid[:, None]) @ WEIGHTS
    assert abs(np.trapezoid(density, grid) - 1) < 0.01
    assert np.trapezoid(np.abs(density - exact), grid) < 0.02


def test_rows_of_fewer_latent_channels_are_as_they_are_alone():
    covariance = np.array([[1.0, 0.6], [0.6, 1.0]])
    values = jnp.asarray(np.random.default_rng(3).normal(size=(2, 2)), jnp.float32)
    latent = jnp.array([[True, True], [True, True]])
    flow = gaussian(np.zeros(2), covariance)
    np.testing.assert_allclose(
        log_density(flow, values, latent, LEVELS, 5), log_density(flow, values, latent, LEVELS, 2), atol=1e-4
    )


def test_random_probes_are_right_on_average():
    mean, covariance = np.zeros(4), np.diag([1.0, 0.5, 0.2, 0.1]) + 0.05
    values, latent = jnp.zeros((2_000, 4)), jnp.ones((2_000, 4), bool)
    probes = hutchinson_probes(jax.random.key(0), latent, 4)
    flow = gaussian(mean, covariance), values, latent, levels(HUTCHINSON_LEVELS)
    found = np.asarray(estimated_log_density(*flow, probes))
    exact = multivariate_normal(mean, covariance).logpdf(np.zeros(4))
    assert found.std() > 0
    assert abs(found.mean() - exact) < 4 * found.std() / np.sqrt(len(found)) + WITHIN


def test_probes_resolve_the_identity_on_latent_channels():
    latent = jnp.array([[True, False, True], [True, True, True]])
    exact = unit_vectors(latent, 3)
    np.testing.assert_allclose(jnp.einsum("pbi,pbj->bij", exact, exact), jax.vmap(jnp.diag)(latent.astype(float)))
    random = hutchinson_probes(jax.random.key(0), latent, 4_000)
    second = jnp.einsum("pbi,pbj->bij", random, random)
    np.testing.assert_allclose(second, jax.vmap(jnp.diag)(latent.astype(float)), atol=5 / np.sqrt(4_000))
