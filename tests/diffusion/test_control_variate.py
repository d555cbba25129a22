"""The control variate: it changes the variance of a target, not its mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import ndtr, ndtri

from simformer_ppl.diffusion.control_variate import ModelGradient, controlled_target, within_bounds
from simformer_ppl.tokens.bounds import Bounds

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


@pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0])
def test_the_mean_of_the_target_stays_where_a_density_ends_at_an_edge(sigma):
    """A normal distribution around the lower edge, where its density is highest; and one inside, for all the same."""
    bounds = Bounds(jnp.array([[0.0, -jnp.inf]]), jnp.array([[1.0, jnp.inf]]))
    half = jax.random.uniform(jax.random.key(0), (MANY,), minval=0.5, maxval=ndtr(2.0))
    points = jnp.stack([0.5 * ndtri(half), jax.random.normal(jax.random.key(1), (MANY,))], 1)

    def log_density(coordinates):
        values = bounds.bounded(coordinates)
        return -2 * values[0] ** 2 - 0.5 * values[1] ** 2 + jnp.log(bounds.slope(values)).sum()

    values = jax.jit(jax.vmap(jax.grad(log_density)))(bounds.unbounded(points))
    noise = jax.random.normal(jax.random.key(2), points.shape)
    noised = points + sigma * noise
    gradient = ModelGradient(values, 4 * jnp.eye(2), jnp.ones(2, bool))
    denoised = bounds.truncated_mean(noised, jnp.full_like(noised, sigma))
    moved = within_bounds(bounds, noise, gradient, points, denoised)
    latent = jnp.ones_like(points, bool)
    target, _ = controlled_target(points, moved[0], jnp.full(MANY, sigma), latent, moved[1], 0 * points)
    for test in (jnp.ones(MANY), jnp.tanh(noised[:, 0] / sigma), noised[:, 0] > 0, noised[:, 0] > 0.5):
        change = (target - points) * test[:, None]
        assert (abs(change.mean(0)) < 5 * change.std(0) / np.sqrt(MANY)).all()
    # and it is worth it: what remains of the target varies less about its mean
    if sigma == 0.05:
        inside = (points[:, 0] > 0.3) & (points[:, 0] < 0.7)
        assert (target - noised)[inside, 0].std() < 0.3 * (points - noised)[inside, 0].std()


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
