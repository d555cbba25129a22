# %% [markdown]
# # Lotka-Volterra: a few observations at any times
#
# Predators and their prey, seen with noise at a handful of times that no two datasets share. With `continuous_dims` the
# two populations are *functions* of time: the network is trained on random points of them, and afterwards takes values
# at any times and says what it expects at any others.
#
# 1. the rates and both populations from four observations of the prey,
# 2. the same with ten observations of the predators added,
# 3. the model itself, run on the rates that were drawn, beside what the network expects,
# 4. the rates corrected by the model's own density.
#
# Training is the long part: see the seconds that are printed. More steps, such as the default (leave out `num_steps`),
# give more exact draws. Pictures go to `lotka_volterra/` below the working directory.

# %%
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from numpyro.distributions import transforms

from simformer_ppl import Simformer

folder = Path("lotka_volterra")
folder.mkdir(exist_ok=True)
times = np.linspace(0.0, 15.0, 150)
NOISE = 0.1

# %% [markdown]
# ## The simulator
# Rates between 1 and 3; the equations solved by the fourth-order Runge-Kutta method on 150 times.


# %%
def rate(name):
    unit = dist.constraints.unit_interval
    squash = [transforms.SigmoidTransform(), transforms.AffineTransform(1.0, 2.0, domain=unit)]
    return numpyro.sample(name, dist.TransformedDistribution(dist.Normal(), squash))


def solve(alpha, beta, gamma, delta):
    def slope(state):
        prey, predator = state
        return jnp.stack([prey * (alpha - beta * predator), predator * (delta * prey - gamma)])

    def step(state, _):
        width = times[1] - times[0]
        first = slope(state)
        second = slope(state + width / 2 * first)
        third = slope(state + width / 2 * second)
        fourth = slope(state + width * third)
        return state + width / 6 * (first + 2 * second + 2 * third + fourth), state

    return jax.lax.scan(step, jnp.array([1.0, 0.5]), None, length=len(times))[1]


def model():
    path = solve(*[rate(name) for name in ("alpha", "beta", "gamma", "delta")])
    with numpyro.plate("time", len(times)):
        numpyro.sample("prey", dist.Normal(path[:, 0], NOISE))
        numpyro.sample("predator", dist.Normal(path[:, 1], NOISE))


simformer = Simformer(model, coords={"time": times}, continuous_dims=["time"], data_sites=["prey", "predator"])
print(simformer)
started = time.perf_counter()
simformer.fit(jax.random.key(0), num_simulations=10_000, num_steps=10_000)
print(f"trained in {time.perf_counter() - started:.0f} s")

# %% [markdown]
# ## A dataset, simulated, of which little is seen

# %%
truth = {"alpha": 1.6, "beta": 1.9, "gamma": 1.5, "delta": 2.2}
path = np.asarray(solve(*truth.values()))
rng = np.random.default_rng(0)


def observe(column, places):
    seen = path[places, column] + NOISE * rng.normal(size=len(places))
    return xr.DataArray(seen, {"time": times[places]}, ("time",))


prey = observe(0, [14, 42, 79, 128])
predator = observe(1, np.sort(rng.choice(len(times), 10, replace=False)))

few = simformer.condition(prey=prey)
more = few.condition(predator=predator)
print(few, more, sep="\n")

# %% [markdown]
# ## Rates, and what is expected at any time
# `at` says where the functions are asked for, here 60 times.

# %%
grid = np.linspace(0.0, 15.0, 60)
draws = {}
for title, asked in {"four of the prey": few, "and ten predators": more}.items():
    started = time.perf_counter()
    draws[title] = asked.sample(jax.random.key(1), 1_000, at={"time": grid})
    print(f"{title}: {time.perf_counter() - started:.0f} s")
    rates = draws[title].posterior
    print(
        {name: f"{float(rates[name].mean()):.2f} +- {float(rates[name].std()):.2f}" for name in truth}, "truth", truth
    )


def function(tree, name):
    group = "posterior" if name in tree.posterior else "posterior_predictive"
    return tree[group][name].stack(sample=("chain", "draw")).transpose("sample", "time").values


# %%
figure, axes = plt.subplots(2, 2, figsize=(11, 6), sharex=True, sharey=True, layout="constrained")
for column, (title, tree) in enumerate(draws.items()):
    rates = {name: tree.posterior[name].values.ravel()[:30] for name in truth}
    runs = np.asarray(jax.vmap(solve)(*rates.values()))
    for row, (name, seen) in enumerate({"prey": prey, "predator": predator if column else None}.items()):
        ax, values = axes[row, column], function(tree, name)
        for level in (0.5, 0.9):
            low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], 0)
            ax.fill_between(grid, low, high, color=f"C{row}", alpha=0.25, lw=0)
        ax.plot(times, runs[:, :, row].T, color="0.3", lw=0.4, alpha=0.5)
        ax.plot(times, path[:, row], color="black", lw=1, ls="--")
        if seen is not None:
            ax.plot(seen["time"], seen, "o", color="black", ms=4)
        ax.set(ylabel=name if not column else "", title=title if not row else "", xlabel="time" if row else "")
        ax.spines[["top", "right"]].set_visible(False)
figure.savefig(folder / "functions.png", dpi=110)

# %%
figure, axes = plt.subplots(1, 4, figsize=(11, 2.6), layout="constrained")
for ax, name in zip(axes, truth, strict=True):
    for title, tree in draws.items():
        ax.hist(tree.posterior[name].values.ravel(), np.linspace(1, 3, 50), density=True, alpha=0.6, label=title)
    ax.axvline(truth[name], color="black", ls="--", lw=1)
    ax.set(xlabel=name, yticks=[])
    ax.spines[["top", "right", "left"]].set_visible(False)
axes[0].legend(frameon=False, fontsize=8)
figure.savefig(folder / "rates.png", dpi=110)

# %% [markdown]
# ## How far to trust it
# More data leave less doubt, and runs of the model with drawn rates lie where the network expects them. Where that
# fails, the network has not been trained for long enough.

# %%
for name in truth:
    spreads = [float(tree.posterior[name].std()) for tree in draws.values()]
    print(f"{name}: sd {spreads[0]:.2f} from four of the prey, {spreads[1]:.2f} with ten predators")

# %% [markdown]
# ## Corrected by the model
# The density of the model is known at the points that are given. `importance_resample` weights the rates by it, and
# lets the model draw the other points. The result is as exact as its weights: `pareto_k` below .7 says that these can
# be relied on, and a warning says so otherwise. Points need to lie where the model is simulated, and the density of
# the draws, which the weights need, takes far longer than the draws.

# %%
started = time.perf_counter()
corrected = more.importance_resample(jax.random.key(2), 1_000, at={"time": times[::3]})
print(f"corrected: {time.perf_counter() - started:.0f} s", f"pareto_k {corrected.sample_stats.attrs['pareto_k']:.2f}")
for name in truth:
    rates = corrected.posterior[name]
    print(f"{name}: {float(rates.mean()):.2f} +- {float(rates.std()):.2f}, truth {truth[name]}")
