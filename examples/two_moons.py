# %% [markdown]
# # Two moons: intervals, constraints, and a simulator without density
#
# Two parameters place a half circle of noisy points, of which one is seen. The posterior is two thin crescents. One
# network answers
#
# 1. the posterior of one observation,
# 2. the posterior inside a box that cuts a crescent,
# 3. one parameter in an interval, the other given, nothing observed,
# 4. the posterior on a line, up to some softness,
#
# beside exact draws: the simulator can be solved for its parameters. Training takes less than ten minutes on one core.
# Pictures go to `two_moons/` below the working directory.

# %%
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist

from simformer_ppl import Simformer, between

folder = Path("two_moons")
folder.mkdir(exist_ok=True)


# %% [markdown]
# ## The simulator
# The data are a deterministic function of the parameters and of noise. With `sites` the noise is simulated and left
# out: what is learned is the law of the parameters and the data alone.


# %%
def model():
    first = numpyro.sample("first", dist.Uniform(-1, 1))
    second = numpyro.sample("second", dist.Uniform(-1, 1))
    angle = numpyro.sample("angle", dist.Uniform(-jnp.pi / 2, jnp.pi / 2))
    radius = numpyro.sample("radius", dist.Normal(0.1, 0.01))
    across = radius * jnp.cos(angle) + 0.25 - jnp.abs(first + second) / jnp.sqrt(2.0)
    along = radius * jnp.sin(angle) + (second - first) / jnp.sqrt(2.0)
    numpyro.deterministic("x", jnp.stack([across, along]))


simformer = Simformer(model, sites=["first", "second", "x"], data_sites=["x"])
print(simformer)
started = time.perf_counter()
simformer.fit(jax.random.key(0), num_simulations=10_000, num_steps=20_000)
print(f"trained in {time.perf_counter() - started:.0f} s")

# %% [markdown]
# ## Four questions

# %%
x = np.zeros(2, np.float32)


def near_the_line(values):
    """A log weight: how well `first = 2 second` holds, give or take .05."""
    return -0.5 * ((values["first"] - 2 * values["second"]) / 0.05) ** 2


questions = {
    "posterior": simformer.condition(x=x),
    "inside a box": simformer.condition(x=x, first=between(-0.25, 0.25), second=between(-0.25, 0.25)),
    "first given, second in an interval": simformer.condition(first=0.3, second=between(-0.2, 0.6)),
    "near the line first = 2 second": simformer.condition(x=x, constraint=near_the_line),
}
answers = {}
for number, (name, asked) in enumerate(questions.items()):
    started = time.perf_counter()
    answers[name] = asked.sample(jax.random.key(number + 1), 2_000)
    route = answers[name].sample_stats.attrs["route"] if "sample_stats" in answers[name] else "plain draws"
    print(f"{asked}: {time.perf_counter() - started:.1f} s, {route}")


# %% [markdown]
# ## Exact draws
# Draw the noise from its prior; the data then tell the sum of the parameters but for its sign, and their difference.


# %%
def exact_posterior(rng, count):
    angle, radius = rng.uniform(-np.pi / 2, np.pi / 2, count), rng.normal(0.1, 0.01, count)
    total = rng.choice([-1, 1], count) * np.sqrt(2) * (radius * np.cos(angle) + 0.25 - x[0])
    difference = np.sqrt(2) * (x[1] - radius * np.sin(angle))
    return (total - difference) / 2, (total + difference) / 2


first, second = exact_posterior(np.random.default_rng(0), 400_000)
in_box = (np.abs(first) < 0.25) & (np.abs(second) < 0.25)
weight = np.exp(near_the_line({"first": first, "second": second}))
on_line = np.random.default_rng(1).choice(len(first), 4_000, p=weight / weight.sum())
exact = {
    "posterior": (first[:4_000], second[:4_000]),
    "inside a box": (first[in_box][:4_000], second[in_box][:4_000]),
    "near the line first = 2 second": (first[on_line], second[on_line]),
}

figure, axes = plt.subplots(1, 4, figsize=(16, 4.4), layout="constrained")
for axis, (name, idata) in zip(axes, answers.items(), strict=True):
    if name in exact:
        axis.plot(*exact[name], ".", ms=3, color="0.75", label="exact")
        axis.plot(*(idata.posterior[p].values.ravel() for p in ("first", "second")), ".", ms=2, label="network")
        axis.set(xlim=(-0.6, 0.6), ylim=(-0.6, 0.6), xlabel="first", ylabel="second")
    else:
        drawn = idata.posterior_predictive["x"].values.reshape(-1, 2)
        rng = np.random.default_rng(2)
        angle, radius = rng.uniform(-np.pi / 2, np.pi / 2, 2_000), rng.normal(0.1, 0.01, 2_000)
        other = rng.uniform(-0.2, 0.6, 2_000)
        across = radius * np.cos(angle) + 0.25 - np.abs(0.3 + other) / np.sqrt(2)
        along = radius * np.sin(angle) + (other - 0.3) / np.sqrt(2)
        axis.plot(across, along, ".", ms=3, color="0.75", label="exact")
        axis.plot(*drawn.T, ".", ms=2, label="network")
        axis.set(xlabel="x[0]", ylabel="x[1]")
    axis.set_title(name, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
axes[0].legend(markerscale=3, frameon=False)
figure.savefig(folder / "questions.png", dpi=120)

# %% [markdown]
# ## How far off?
# Means and standard deviations, ours and exact.

# %%
for name, draws in exact.items():
    for parameter, values in zip(("first", "second"), draws, strict=True):
        ours = answers[name].posterior[parameter].values.ravel()
        print(
            f"{name}, {parameter}: mean {ours.mean():.3f} (exact {values.mean():.3f}), "
            f"sd {ours.std():.3f} (exact {values.std():.3f})"
        )
box = answers["inside a box"].posterior
print(f"draws inside the box: {float(((abs(box['first']) <= 0.25) & (abs(box['second']) <= 0.25)).mean()):.0%}")

# %% [markdown]
# ## A likelihood that the simulator does not have
# With the parameters given, the network has a density for the data. It can be used in any NumPyro model, or be asked
# directly: the log likelihood of `x` along a line of parameters.

# %%
grid = np.linspace(-0.6, 0.6, 61)
log_likelihood = simformer.condition(first=grid, second=grid).log_prob({"x": np.broadcast_to(x, (61, 2))})
figure, axis = plt.subplots(figsize=(5, 3.5), layout="constrained")
axis.plot(grid, np.exp(log_likelihood))
axis.set(xlabel="first = second", ylabel="likelihood of x = (0, 0)")
axis.spines[["top", "right"]].set_visible(False)
figure.savefig(folder / "likelihood.png", dpi=120)
print(f"pictures are in {folder}/")
