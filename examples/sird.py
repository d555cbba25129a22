# %% [markdown]
# # An epidemic with an unknown contact rate
#
# Infected, recovered and deceased shares of a population follow from two rates, and from a contact rate that changes in
# time as it likes: a function, as a parameter. From five observations of each series the network tells
#
# 1. the contact rate at every time, with its uncertainty,
# 2. the same where the contact rate itself is known at two times.
#
# Training is the long part: see the seconds that are printed. Pictures go to `sird/` below the working directory.

# %%
import time
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from simformer_ppl import Simformer
from simformer_ppl.benchmarks.tasks.sird import TIMES, sird
from simformer_ppl.plots import plot_function

folder = Path("sird")
folder.mkdir(exist_ok=True)

# %% [markdown]
# ## The simulator
# The contact rate is a Gaussian process through a sigmoid, one site whose axis is named `time` by `dims`; the data are
# sites in a plate of that name.

# %%
SERIES = ("infected", "recovered", "deceased")
simformer = Simformer(
    sird, coords={"time": TIMES}, dims={"beta": ["time"]}, continuous_dims=["time"], data_sites=SERIES
)
print(simformer)
started = time.perf_counter()
simformer.fit(jax.random.key(0), num_simulations=10_000, num_steps=10_000)
print(f"trained in {time.perf_counter() - started:.0f} s")

# %% [markdown]
# ## Five observations of each series

# %%
truth = simformer.simulate(jax.random.key(1), 12, progress_bar=False).isel(simulation=4)
seen = {name: truth[name].sel(time=[5.0, 15.0, 25.0, 35.0, 45.0]) for name in SERIES}
epidemic = simformer.condition(seen)
known = epidemic.condition(beta=truth["beta"].sel(time=[10.0, 30.0]))
print(epidemic, known, sep="\n")

grid = np.linspace(0.0, 50.0, 41)
draws = {}
for title, asked in {"from the data": epidemic, "known at two times": known}.items():
    started = time.perf_counter()
    draws[title] = asked.sample(jax.random.key(2), 1_000, at={"time": grid}, sites=["gamma", "delta", "beta"])
    print(f"{title}: {time.perf_counter() - started:.0f} s")

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
for ax, (title, tree) in zip(axes, draws.items(), strict=False):
    plot_function(tree, "beta", truth=truth["beta"], ax=ax)
    ax.set(title=f"contact rate {title}", ylim=(0, 1))
for name in SERIES:
    axes[2].plot(TIMES, truth[name], lw=1, label=name)
    axes[2].plot(seen[name]["time"], seen[name], "o", color="black", ms=3)
axes[2].set(title="the epidemic", xlabel="time")
axes[2].legend(frameon=False, fontsize=8)
for ax in axes:
    ax.spines[["top", "right"]].set_visible(False)
figure.savefig(folder / "contact_rate.png", dpi=110)
for name in ("gamma", "delta"):
    drawn = draws["from the data"].posterior[name]
    print(f"{name}: {float(drawn.mean()):.3f} +- {float(drawn.std()):.3f}, truth {float(truth[name]):.3f}")
