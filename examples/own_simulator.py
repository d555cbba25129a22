# %% [markdown]
# # Your own simulator
#
# An outbreak in a small town, simulated person by person in NumPy: JAX cannot look into it, and nobody can write down
# its likelihood. Wrapped by `jax.pure_callback` it is a site of a NumPyro model like any other. You are about to see
#
# 1. the wrapper, and what is read of a model with a black box in it,
# 2. simulations run side by side, kept on disk, and outbreaks that never happened left out,
# 3. the posterior given twelve weeks of reported cases, and what the next outbreak would look like,
# 4. whether to believe it.
#
# About five minutes on one CPU core. Pictures go to `own_simulator/` below the working directory.

# %%
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist

from simformer_ppl import Simformer
from simformer_ppl.plots import plot_pair, plot_prior_posterior

folder = Path("own_simulator")
folder.mkdir(exist_ok=True)
WEEKS, PEOPLE = 12, 2_000


# %% [markdown]
# ## The simulator
# Any Python. Where there is nothing to be learned from, it returns NaN: here, an outbreak that dies out at once is
# not one that anybody would report.


# %%
def outbreak(reproduction, days, seed):
    """New infections in each week, from ten infected people."""
    rng = np.random.default_rng(int(seed))
    susceptible, infected, weeks = PEOPLE - 10, 10, np.zeros(WEEKS, np.float32)
    for day in range(7 * WEEKS):
        risk = 1 - np.exp(-float(reproduction) / float(days) * infected / PEOPLE)
        new, recovered = rng.binomial(susceptible, risk), rng.binomial(infected, 1 - np.exp(-1 / float(days)))
        susceptible, infected = susceptible - new, infected + new - recovered
        weeks[day // 7] += new
    return weeks if weeks.sum() >= 20 else np.full(WEEKS, np.nan, np.float32)


# %% [markdown]
# ## The model around it
# Priors, the black box, and what is reported of it. Its seed comes from `numpyro.prng_key`, so that every simulation
# has one of its own.


# %%
def model(cases=None):
    reproduction = numpyro.sample("reproduction", dist.LogNormal(0.7, 0.4))
    days = numpyro.sample("days", dist.LogNormal(1.6, 0.3))
    reported = numpyro.sample("reported", dist.Beta(4, 4))
    seed = jax.random.randint(numpyro.prng_key(), (), 0, 2**31 - 1)
    shape = jax.ShapeDtypeStruct((WEEKS,), jnp.float32)
    infections = jax.pure_callback(outbreak, shape, reproduction, days, seed, vmap_method="sequential")
    with numpyro.plate("week", WEEKS):
        numpyro.sample("cases", dist.Poisson(reported * infections + 0.1), obs=cases)


simformer = Simformer(model)
print(simformer)

# %% [markdown]
# ## Simulate, then train
# `checkpoint_dir` keeps what is finished, and the same call goes on from there. Any executor of `concurrent.futures`
# will do; for slow simulators take processes (the guide says how).

# %%
with ThreadPoolExecutor(2) as pool:
    simulations = simformer.simulate(jax.random.key(0), 10_000, executor=pool, checkpoint_dir=folder / "simulations")
started = time.perf_counter()
simformer.fit(jax.random.key(1), simulations=simulations, num_steps=5_000)
print(f"trained in {time.perf_counter() - started:.0f} s")

# %% [markdown]
# ## Twelve weeks of reports

# %%
truth = {"reproduction": 1.8, "days": 4.0, "reported": 0.4}
rng = np.random.default_rng(3)
cases = rng.poisson(truth["reported"] * outbreak(truth["reproduction"], truth["days"], 5))
print("reported:", cases)
posterior = simformer.condition(cases=cases)
idata = posterior.sample(jax.random.key(2), 2_000, predictive=True)
print(az.summary(idata, kind="stats"))

plot_pair(idata, truth, marginal=True).savefig(folder / "pair.png")
prior = simformer.condition().sample(jax.random.key(3), 2_000)
plot_prior_posterior(prior, idata, var_names=list(truth)).savefig(folder / "prior_posterior.png")

# %% [markdown]
# ## Another outbreak of the same disease
# `predictive=True` ran the simulator on the draws.

# %%
replicates = idata.posterior_predictive["cases"].stack(sample=("chain", "draw")).values
figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
for level in (0.5, 0.9):
    low, high = np.nanquantile(replicates, [(1 - level) / 2, (1 + level) / 2], 1)
    ax.fill_between(np.arange(WEEKS) + 1, low, high, color="C0", alpha=0.25, lw=0)
ax.plot(np.arange(WEEKS) + 1, cases, "o", color="black", ms=4)
ax.set(xlabel="week", ylabel="reported cases")
ax.spines[["top", "right"]].set_visible(False)
figure.savefig(folder / "replicates.png", dpi=110)

# %% [markdown]
# ## Is it to be believed?
# Fresh simulations, whose parameters are known: the true values should fall anywhere among the draws.

# %%
print(simformer.calibrate(jax.random.key(4), num_simulations=300))
