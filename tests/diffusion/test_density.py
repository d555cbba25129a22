"""Log densities along the probability flow, from denoisers that are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm
from scipy.stats import multivariate_normal, norm

from simformer_ppl.diffusion.density import (
    _linear_flow,
    estimated_log_density,
    even_levels,
    hutchinson_probes,
    log_density,
    unit_vectors,
)
from simformer_ppl.diffusion.process import EDM
from simformer_ppl.joint import DENSITY_GAP, HUTCHINSON_GAP

LEVELS = even_levels(EDM().lowest, EDM().highest, DENSITY_GAP)
WITHIN = 0.03  # nats: importance weights are then off by 3 %


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


def test_every_row_has_latent_channels_of_its_own():
    sds = np.array([0.3, 1.0, 0.1])
    values = sds * np.random.default_rng(3).normal(size=(3, 3))
    latent = jnp.array([[True, False, False], [True, True, True], [False, True, True]])
    found = log_density(gaussian(np.zeros(3), np.diag(sds**2)), jnp.asarray(values), latent, LEVELS, 3)
    np.testing.assert_allclose(found, (norm(0, sds).logpdf(values) * latent).sum(1), atol=WITHIN)


def error_at(count, sd=0.3):
    values = sd * jnp.linspace(-2.0, 2.0, 20)[:, None]
    rising = np.geomspace(EDM().lowest, EDM().highest, count)
    flow = gaussian(np.zeros(1), np.array([[sd**2]]))
    found = log_density(flow, values, jnp.ones(values.shape, bool), rising, 1)
    return np.abs(found - norm(0, sd).logpdf(values[:, 0])).mean()


def test_error_falls_with_the_third_power_of_the_gap():
    # eightfold in the limit; fourfold, were the previous level not used
    assert error_at(11) > 5.5 * error_at(21)


def error_of_a_step(size):
    """Of a gap of this size: what the speed is multiplied with, and its derivatives with powers of."""
    jacobian, (constant, linear, quadratic) = np.random.default_rng(4).normal(size=(2, 3, 3))
    parts = [jacobian * size, constant * size, linear * size**2, quadratic * size**3]
    system = np.zeros((6, 6))
    system[:3] = np.column_stack([parts[0], parts[3], parts[2], parts[1]])
    system[3, 4] = system[4, 5] = 1.0  # the powers t^2 / 2, t, 1
    found = _linear_flow(*(jnp.asarray(part, jnp.float32)[None] for part in parts))
    return np.abs(found[0] - expm(system)[:3, -1]).max()


def test_a_linear_flow_is_followed_to_its_end():
    # a step of a method of third order: sixteenfold in the limit
    assert error_of_a_step(0.2) > 12 * error_of_a_step(0.1)
    stiff = _linear_flow(-1e4 * jnp.eye(3)[None], jnp.ones((1, 3)), jnp.zeros((1, 3)), jnp.zeros((1, 3)))
    np.testing.assert_allclose(stiff, 1e-4, rtol=1e-3)


def test_gradient_is_the_score_both_ways():
    covariance = np.array([[0.5, 0.3], [0.3, 0.4]])
    point, latent = jnp.array([0.4, -0.2]), jnp.ones((1, 2), bool)

    def density(value):
        return log_density(gaussian(np.zeros(2), covariance), value[None], latent, LEVELS, 2)[0]

    score = -np.linalg.solve(covariance, point)
    np.testing.assert_allclose(jax.grad(density)(point), score, atol=0.02)
    np.testing.assert_allclose(jax.jacfwd(density)(point), score, atol=0.02)


def test_single_precision_stays_under_double():
    values, latent = jnp.zeros((2, 1), jnp.float32), jnp.ones((2, 1), bool)
    alone = log_density(gaussian(np.zeros(1), np.ones((1, 1))), values, latent, LEVELS, 1)
    with jax.enable_x64(True):
        found = log_density(lambda noised, level: 0.0 * noised, values, latent, LEVELS, 1)
    # whose output is nothing is a standard normal
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, alone, atol=WITHIN)


def test_random_probes_are_right_on_average():
    mean, covariance = np.zeros(4), np.diag([1.0, 0.5, 0.2, 0.1]) + 0.05
    values, latent = jnp.zeros((2_000, 4)), jnp.ones((2_000, 4), bool)
    probes = hutchinson_probes(jax.random.key(0), latent, 4)
    flow = gaussian(mean, covariance), values, latent, even_levels(EDM().lowest, EDM().highest, HUTCHINSON_GAP)
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
