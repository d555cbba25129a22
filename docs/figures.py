"""Draw the pictures of *How it works* and *Plots*: ``uv run python docs/figures.py`` (ten minutes on one core)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from matplotlib.patches import Patch

from simformer_ppl import Simformer
from simformer_ppl.plots import plot_function, plot_mask, plot_pair, plot_prior_posterior
from simformer_ppl.structure.plots import GIVEN, LATENT

IMAGES = Path(__file__).parent / "images"
COLOURS = {"latent": LATENT, "given": GIVEN, "left out": "#e6e6e6"}


def schools(y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", 4):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, 10.0), obs=y)


def questions_and_masks():
    simformer = Simformer(schools).fit(jax.random.key(0), 500, num_steps=2, progress_bar=False)
    y = np.array([28.0, 8.0, -3.0, 7.0])
    asked = {
        "condition()": simformer.condition(),
        "condition(y=y)": simformer.condition(y=y),
        "condition(y=[28, nan, nan, 7])": simformer.condition(y=[28.0, np.nan, np.nan, 7.0]),
        "condition(mu=8, tau=2)": simformer.condition(mu=8.0, tau=2.0),
        "condition(y=y), sites=['mu']": simformer.condition(y=y),
    }
    tokens = simformer.structure.tokens
    figure, ax = plt.subplots(figsize=(8.5, 2.9), layout="constrained")
    for row, (text, question) in enumerate(asked.items()):
        known = {
            f"{name}[{i}]" if np.ndim(value) else name
            for name, value in question.given.values.items()
            for i, each in enumerate(np.ravel(value))
            if not np.isnan(each)
        }
        for column, token in enumerate(tokens):
            state = "given" if token in known else "left out" if "sites" in text and token != "mu" else "latent"
            ax.add_patch(plt.Rectangle((column, -row), 0.92, 0.86, color=COLOURS[state], lw=0))
    ax.set(xlim=(0, len(tokens)), ylim=(1 - len(asked), 1), xticks=np.arange(len(tokens)) + 0.46)
    ax.set_xticklabels(tokens, fontsize=9)
    ax.set_yticks(0.43 - np.arange(len(asked)), asked, family="monospace", fontsize=9)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    handles = [Patch(color=colour, label=state) for state, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(IMAGES / "how_tokens.png", dpi=120)

    figure, axes = plt.subplots(1, 3, figsize=(13, 4.8), layout="constrained")
    for ax, text in zip(
        axes, ["condition(y=y)", "condition(y=[28, nan, nan, 7])", "condition(mu=8, tau=2)"], strict=True
    ):
        plot_mask(asked[text], ax=ax)
    figure.savefig(IMAGES / "how_masks.png", dpi=110)


def two_moons():
    first = numpyro.sample("first", dist.Uniform(-1, 1))
    second = numpyro.sample("second", dist.Uniform(-1, 1))
    angle = numpyro.sample("angle", dist.Uniform(-jnp.pi / 2, jnp.pi / 2))
    radius = numpyro.sample("radius", dist.Normal(0.1, 0.01))
    across = radius * jnp.cos(angle) + 0.25 - jnp.abs(first + second) / jnp.sqrt(2.0)
    along = radius * jnp.sin(angle) + (second - first) / jnp.sqrt(2.0)
    numpyro.deterministic("x", jnp.stack([across, along]))


def sampling():
    simformer = Simformer(two_moons, sites=["first", "second", "x"], data_sites=["x"])
    simformer.fit(jax.random.key(0), num_simulations=10_000, num_steps=15_000)
    figure, axes = plt.subplots(1, 5, figsize=(14, 3.1), sharex=True, sharey=True, layout="constrained")
    for ax, evaluations in zip(axes, (4, 8, 12, 16, 20), strict=True):
        draws = simformer.condition(x=[0.0, 0.0]).sample(jax.random.key(1), 2_000, num_steps=evaluations).posterior
        ax.plot(draws["first"].values.ravel(), draws["second"].values.ravel(), ".", ms=2, alpha=0.7)
        ax.set(title=f"{evaluations} evaluations", xlim=(-0.6, 0.6), ylim=(-0.6, 0.6), aspect="equal", xlabel="first")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set(ylabel="second")
    figure.savefig(IMAGES / "how_sampling.png", dpi=110)


def oscillation():
    time = np.linspace(0.0, 6.0, 61)

    def model(x=None):
        start = numpyro.sample("start", dist.Normal(2.0, 0.5))
        frequency = numpyro.sample("frequency", dist.LogNormal(0.5, 0.2))
        damping = numpyro.sample("damping", dist.LogNormal(-1.2, 0.4))
        with numpyro.plate("time", len(time)):
            numpyro.sample("x", dist.Normal(start * jnp.exp(-damping * time) * jnp.cos(frequency * time), 0.1), obs=x)

    simformer = Simformer(model, coords={"time": time}, continuous_dims=["time"])
    simformer.fit(jax.random.key(0), num_simulations=10_000, num_steps=8_000)
    simformer.plot_history().figure.savefig(IMAGES / "plot_history.png", dpi=100)
    truth = simformer.simulate(jax.random.key(5), 1, progress_bar=False).isel(simulation=0)
    seen = truth["x"].sel(time=[0.0, 0.7, 1.5, 2.0], method="nearest")
    grid = np.linspace(0.0, 6.0, 61)
    tree = simformer.condition(x=seen).sample(jax.random.key(1), 2_000, at={"time": grid})
    parameters = ["start", "frequency", "damping"]
    start, frequency, damping = (float(truth[name]) for name in parameters)
    path = start * np.exp(-damping * time) * np.cos(frequency * time)
    curve = xr.DataArray(path, {"time": time}, ("time",))
    plot_function(tree, "x", truth=curve).figure.savefig(IMAGES / "plot_function.png", dpi=100)
    prior = simformer.condition().sample(jax.random.key(2), 2_000, sites=parameters)
    both = plot_prior_posterior(prior, tree, var_names=parameters)
    both.savefig(IMAGES / "plot_prior_posterior.png", dpi=80)
    pairs = plot_pair(tree, {name: float(truth[name]) for name in parameters}, var_names=parameters, marginal=True)
    pairs.savefig(IMAGES / "plot_pair.png", dpi=60)


if __name__ == "__main__":
    questions_and_masks()
    oscillation()
    sampling()
