"""The samplers, fed denoisers that are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simformer_ppl.diffusion.loss import denoising_loss
from simformer_ppl.diffusion.process import EDM, PROCESSES, Condition, denoiser
from simformer_ppl.diffusion.samplers import adams, dpm_solver, euler, euler_maruyama, heun
from simformer_ppl.network.transformer import Output

MEAN = jnp.array([0.3, -0.5])
COVARIANCE = jnp.array([[0.5, 0.3], [0.3, 0.4]])


def gaussian_denoiser(noised, level):
    """E[x | x + level * noise] for x ~ N(MEAN, COVARIANCE)."""
    noisy = COVARIANCE + level[:, None, None] ** 2 * jnp.eye(2)
    return MEAN + jnp.einsum("ij,bj->bi", COVARIANCE, jnp.linalg.solve(noisy, (noised - MEAN)[..., None])[..., 0])


def mixture_denoiser(noised, level):
    """The same for a mixture of N(-1, 0.1) with weight 0.3 and N(1, 0.1)."""
    variance = 0.01 + level[:, None] ** 2
    logits = jnp.stack([jnp.log(w) - 0.5 * (noised - m) ** 2 / variance for w, m in ((0.3, -1.0), (0.7, 1.0))])
    means = jnp.stack([m + 0.01 / variance * (noised - m) for m in (-1.0, 1.0)])
    return (jax.nn.softmax(logits, 0) * means).sum(0)


def solved(solve, denoiser, shape, grid, seed=0):
    """Draws from standard normal noise."""
    noise_key, step_key = jax.random.split(jax.random.key(seed))
    return solve(step_key, denoiser, jax.random.normal(noise_key, shape), grid)


def prediction_of(denoiser):
    """Raw network output F that preconditioning turns into this denoiser."""

    def prediction(noised, level):
        skip, out = 1 / (1 + level**2), level / jnp.sqrt(1 + level**2)
        return (denoiser(noised, level) - skip[:, None] * noised) / out[:, None]

    return prediction


def test_gaussian_draws_have_its_moments():
    draws = solved(adams, gaussian_denoiser, (20_000, 2), EDM().grid(19))
    # five standard errors of a mean and of a variance
    assert jnp.allclose(draws.mean(0), MEAN, atol=5 * np.sqrt(0.5 / 20_000))
    assert jnp.allclose(jnp.cov(draws.T), COVARIANCE, atol=5 * 0.5 * np.sqrt(2 / 20_000))


def test_draws_far_from_zero_are_not_pulled_towards_it():
    def denoiser(noised, level):  # N(3, 0.05)
        return 3.0 + 0.05**2 / (0.05**2 + level[:, None] ** 2) * (noised - 3.0)

    draws = solved(adams, denoiser, (20_000, 1), EDM().grid(19))
    assert abs(float(draws.mean()) - 3.0) < 0.05 * 5 / np.sqrt(20_000)


@pytest.mark.parametrize("width", [1.0, 0.3, 0.1, 0.03])
def test_twenty_evaluations_neither_widen_nor_narrow_a_gaussian(width):
    def denoiser(noised, level):
        return width**2 / (width**2 + level[:, None] ** 2) * noised

    # a linear denoiser makes a linear sampler: one number tells the sd of all draws
    scale = adams(jax.random.key(0), denoiser, jnp.ones((1, 1)), EDM().grid(19)) / width
    assert abs(float(scale[0, 0]) - 1) < 0.015


def test_mixture_draws_have_its_weights_and_widths():
    draws = np.asarray(solved(adams, mixture_denoiser, (20_000, 1), EDM().grid(19)))[:, 0]
    right = draws[draws > 0]
    assert abs(len(right) / 20_000 - 0.7) < 5 * np.sqrt(0.21 / 20_000)
    assert abs(right.std() - 0.1) < 0.01


@pytest.mark.parametrize("steps", [8, 16])
def test_more_steps_come_closer_to_the_converged_draws(steps):
    def draw(count):
        return solved(adams, mixture_denoiser, (500, 1), EDM().grid(count))

    converged = draw(400)
    assert jnp.abs(draw(2 * steps) - converged).mean() < jnp.abs(draw(steps) - converged).mean()


def test_loss_is_lowest_at_the_true_denoiser():
    target = jax.random.multivariate_normal(jax.random.key(0), MEAN, COVARIANCE, (4_000,))
    none = jnp.zeros((4_000, 2), bool)
    condition = Condition(target, none, none, jnp.ones((1, 2, 2), bool))

    def loss(shift):
        def network(inputs, conditioned, label, mask, coordinates, said):
            level = jnp.exp(4 * label)
            exact = prediction_of(gaussian_denoiser)(inputs * jnp.sqrt(1 + level**2)[:, None], level)
            return Output(exact + shift, jnp.zeros_like(exact), jnp.zeros_like(exact))

        return denoising_loss(jax.random.key(1), EDM(), network, condition, target)[0]

    assert loss(0.0) < loss(0.1) and loss(0.0) < loss(-0.1)


def test_given_channels_are_neither_moved_nor_counted():
    values = jnp.array([[1.5, -7.0]])
    given = jnp.array([[True, False]])
    condition = Condition(values, given, given, jnp.ones((1, 2, 2), bool))

    def network(inputs, conditioned, label, mask, coordinates, said):
        return Output(jnp.ones_like(inputs) * inputs[:, :1], jnp.zeros_like(inputs), jnp.zeros_like(inputs))

    denoise = denoiser(EDM(), network, condition)
    draws = solved(dpm_solver, denoise, (1, 2), EDM().grid(8))
    assert draws[0, 0] == 1.5


@pytest.mark.parametrize("solve", [dpm_solver, heun, euler, euler_maruyama])
def test_every_sampler_converges_to_the_gaussian(solve):
    draws = solved(solve, gaussian_denoiser, (20_000, 2), EDM().grid(500))
    # five standard errors, and what 500 steps of first order leave
    assert jnp.allclose(draws.mean(0), MEAN, atol=5 * np.sqrt(0.5 / 20_000))
    assert jnp.allclose(jnp.cov(draws.T), COVARIANCE, atol=5 * 0.5 * np.sqrt(2 / 20_000) + 0.01)


@pytest.mark.parametrize("name", ["ve", "vp"])
def test_published_processes_denoise_by_the_noise_they_predict(name):
    process = PROCESSES[name]
    level = process.training_levels(jax.random.key(0), 64)
    target, noise = jax.random.normal(jax.random.key(1), (2, 64, 3))
    noised = target + level[:, None] * noise
    nothing = jnp.zeros((64, 3), bool)
    condition = Condition(target, nothing, nothing, jnp.ones((1, 3, 3), bool))

    def network(inputs, tokens, label, mask, coordinates, said):
        return Output(-noise, jnp.zeros_like(noise), jnp.zeros_like(noise))

    # single precision leaves an error in proportion to what is subtracted
    assert jnp.allclose(denoiser(process, network, condition)(noised, level), target, atol=1e-5, rtol=1e-5 * 100)
    # the loss is that of the noise: of unit variance for a network that says nothing, at every level
    silent = lambda *_: Output(jnp.zeros_like(noise), jnp.zeros_like(noise), jnp.zeros_like(noise))  # noqa: E731
    clean = denoiser(process, silent, condition)(noised, level)
    weighted = process.weight(level)[:, None] * (clean - target) ** 2
    assert jnp.allclose(weighted, noise**2, rtol=0.05, atol=0.01)


def test_the_noise_of_the_published_processes_ends_where_the_paper_has_it():
    assert np.allclose(PROCESSES["ve"].grid(3)[[0, -1]], [15.0, 1e-4], rtol=1e-3)
    # beta is linear from .01 to 10: the signal is left with exp(-half its integral) of its size
    variance = 1 / (1 + PROCESSES["vp"].grid(2)[0] ** 2)
    assert variance == pytest.approx(np.exp(-(0.01 + 10) / 2), rel=1e-4)
