# %% [markdown]
# # Hodgkin-Huxley: parameters that explain a neuron and spend little energy
#
# A neuron under a step of current is told by seven statistics of its voltage. What it spends follows from its
# parameters alone. One network answers
#
# 1. which parameters explain the statistics,
# 2. which of these spend less energy than a bound, an interval on a quantity that the simulator computes,
#
# and the simulator says whether they do. Training is the long part: see the seconds that are printed. Pictures go to
# `hodgkin_huxley/` below the working directory.

# %%
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from simformer_ppl import Simformer, below
from simformer_ppl.benchmarks.tasks.hodgkin_huxley import PARAMETERS, STATISTICS, STEP, hodgkin_huxley, simulate

folder = Path("hodgkin_huxley")
folder.mkdir(exist_ok=True)

# %% [markdown]
# ## The simulator
# Seven parameters drawn from intervals, 8,000 steps of the membrane's equation in a `lax.scan`, noise from
# `numpyro.prng_key`, and statistics as `numpyro.deterministic` sites: `sites` names what becomes a token.

# %%
simformer = Simformer(hodgkin_huxley, sites=[*PARAMETERS, *STATISTICS, "energy"], data_sites=STATISTICS)
print(simformer)
started = time.perf_counter()
simformer.fit(jax.random.key(0), num_simulations=10_000, num_steps=15_000)
print(f"trained in {time.perf_counter() - started:.0f} s")

# %% [markdown]
# ## A neuron that spikes

# %%
simulated = simformer.simulate(jax.random.key(1), 200, progress_bar=False)
neuron = int(np.flatnonzero((simulated["spikes"] >= 4) & (simulated["spikes"] <= 8))[0])
data = {name: float(simulated[name][neuron]) for name in STATISTICS}
print(data)

posterior = simformer.condition(data)
free = posterior.sample(jax.random.key(2), 1_000)
bound = float(np.quantile(free.posterior["energy"], 0.1))
frugal = posterior.condition(energy=below(bound))
print(posterior, frugal, sep="\n")
guided = frugal.sample(jax.random.key(3), 1_000)


# %% [markdown]
# ## What the simulator says of both


# %%
def run(tree):
    parameters = np.stack([tree.posterior[name].values.ravel() for name in PARAMETERS], 1)
    voltage, energy = jax.jit(jax.vmap(simulate))(jnp.asarray(parameters))
    return np.asarray(voltage), np.asarray(energy)


runs = {"explains the data": run(free), f"and spends less than {bound:.0f}": run(guided)}
for title, (_, energy) in runs.items():
    print(f"{title}: {np.mean(energy):.0f} on average, {np.mean(energy <= bound):.1%} below the bound")

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained", width_ratios=[2, 1])
ticks = np.arange(len(next(iter(runs.values()))[0][0])) * 8 * STEP
for number, (title, (voltage, energy)) in enumerate(runs.items()):
    left.plot(ticks, voltage[:5].T, color=f"C{number}", lw=0.7, alpha=0.8)
    right.hist(energy, 40, density=True, alpha=0.6, label=title)
left.set(xlabel="ms", ylabel="mV")
right.axvline(bound, color="black", ls="--", lw=1)
right.set(xlabel="energy", yticks=[])
right.legend(frameon=False, fontsize=8)
for ax in (left, right):
    ax.spines[["top", "right"]].set_visible(False)
figure.savefig(folder / "energy.png", dpi=110)
