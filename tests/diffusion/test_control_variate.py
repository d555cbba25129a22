"""The control variate: it changes the variance of a target, not its mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simformer_ppl.diffusion.control_variate import ModelGradient, controlled_target

MANY = 200_000
CENTRES = jnp.array([[-1.0, 0.5], [1.0, -0.5]])
SCALES = jnp.array([0.3, 0.8])


def log_density(point):
    """A mixture of two Gaussians of different widths."""
    squares = ((point - CENTRES) ** 2).sum(-1) / SCALES**2
    return jax.nn.logsumexp(-0.5 * squares - 2 * jnp.log(SCALES))


def draw_mixture(key):
    which_key, noise_key = jax.random.split(key)
    which = jax.random.randint(which_key, (MANY,), 0, 2)
    return CENTRES[which] + SCALES[which, None] * jax.random.normal(noise_key, (MANY, 2))


@pytest.fixture(scope="module")
def mixture():
    points = draw_mixture(jax.random.key(0))
    gradient = jax.jit(jax.vmap(jax.grad(log_density)))(points)
    return points, ModelGradient(gradient, gradient.T @ gradient / MANY, jnp.ones(2, bool))


@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0])
def test_the_mean_of_the_target_stays(mixture, sigma):
    points, gradient = mixture
    noise = jax.random.normal(jax.random.key(1), points.shape)
    noised, level = points + sigma * noise, jnp.full(MANY, sigma)
    # any weight that reads the noised values will do
    log_variance = jnp.stack([jnp.sin(noised[:, 0]), 0.5 * noised[:, 1]], 1)
    target, _ = controlled_target(points, noise, level, jnp.ones_like(points, bool), gradient, log_variance)
    for test in (jnp.ones(MANY), jnp.tanh(noised[:, 0]), jnp.cos(noised[:, 1]), noised[:, 0] * noised[:, 1] > 0):
        change = (target - points) * test[:, None]
        assert (abs(change.mean(0)) < 5 * change.std(0) / np.sqrt(MANY)).all()


def test_a_gaussian_is_denoised_without_variance():
    covariance = jnp.array([[1.0, 0.8], [0.8, 1.0]])
    precision = jnp.linalg.inv(covariance)
    points = jax.random.multivariate_normal(jax.random.key(0), jnp.zeros(2), covariance, (1_000,))
    noise, sigma = jax.random.normal(jax.random.key(1), points.shape), 0.7
    gradient = ModelGradient(-points @ precision, precision, jnp.ones(2, bool))
    latent = jnp.ones_like(points, bool)
    target, _ = controlled_target(points, noise, jnp.full(1_000, sigma), latent, gradient, jnp.zeros_like(points))
    exact = (points + sigma * noise) @ jnp.linalg.inv(covariance + sigma**2 * jnp.eye(2)) @ covariance
    # but for residuals beyond six standard deviations, which are cut
    np.testing.assert_allclose(target, exact, atol=1e-4)


def test_given_and_unreliable_channels_keep_their_target(mixture):
    points, gradient = mixture
    points, values = points[:100], gradient.values[:100]
    noise = jax.random.normal(jax.random.key(1), points.shape)
    latent = jnp.ones_like(points, bool).at[:50, 0].set(False)
    gradient = gradient._replace(values=values, known=jnp.array([True, False]))
    target, _ = controlled_target(points, noise, jnp.ones(100), latent, gradient, jnp.zeros_like(points))
    moved = np.asarray(target != points)
    assert not moved[:50].any() and moved[50:, 0].all() and not moved[:, 1].any()
