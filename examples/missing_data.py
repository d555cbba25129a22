# %% [markdown]
# # Missing data
#
# Six children are measured at five visits, and hardly any child came to all of them. NaN says what is missing; it is
# drawn along with the parameters. One network answers for any pattern of missing visits, and for many datasets at once.
#
# 1. a panel with a third of the visits missing, beside NUTS on what is there,
# 2. three datasets of three patterns in one call,
# 3. a child who came once, and what its other visits would have shown.
#
# About five minutes on one CPU core. Pictures go to `missing_data/` below the working directory.

# %%
import time
from pathlib import Path

import arviz as az
import jax
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

from simformer_ppl import Simformer

folder = Path("missing_data")
folder.mkdir(exist_ok=True)
age = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])  # about the third birthday, in years
CHILDREN = 6


# %% [markdown]
# ## The model
# Every child has a height (in cm, less what is usual) and a growth of its own.


# %%
def model(height=None):
    level = numpyro.sample("level", dist.Normal(0.0, 3.0))
    growth = numpyro.sample("growth", dist.Normal(7.0, 2.0))
    with numpyro.plate("child", CHILDREN, dim=-2):
        own_level = numpyro.sample("own_level", dist.Normal(level, 4.0))
        own_growth = numpyro.sample("own_growth", dist.Normal(growth, 1.5))
        with numpyro.plate("visit", len(age), dim=-1):
            numpyro.sample("height", dist.Normal(own_level + own_growth * age, 1.0), obs=height)


simformer = Simformer(model, coords={"visit": age})
print(simformer)
started = time.perf_counter()
simformer.fit(jax.random.key(0), num_simulations=10_000, num_steps=5_000)
print(f"trained in {time.perf_counter() - started:.0f} s")

# %% [markdown]
# ## A third of the visits missing

# %%
complete = simformer.simulate(jax.random.key(1), 3)["height"].values
rng = np.random.default_rng(0)
seen = np.where(rng.uniform(size=complete[0].shape) < 1 / 3, np.nan, complete[0])
print(seen.round(1))
posterior = simformer.condition(height=seen)
print(posterior)
idata = posterior.sample(jax.random.key(2), 4_000)
print(az.summary(idata, var_names=["level", "growth", "own_growth"], kind="stats"))

# %% [markdown]
# ## Beside NUTS
# NumPyro's `mask` leaves the missing visits out of the density.


# %%
def masked():
    with numpyro.handlers.condition(data={"height": np.nan_to_num(seen)}):
        level = numpyro.sample("level", dist.Normal(0.0, 3.0))
        growth = numpyro.sample("growth", dist.Normal(7.0, 2.0))
        with numpyro.plate("child", CHILDREN, dim=-2):
            own_level = numpyro.sample("own_level", dist.Normal(level, 4.0))
            own_growth = numpyro.sample("own_growth", dist.Normal(growth, 1.5))
            with numpyro.plate("visit", len(age), dim=-1):
                law = dist.Normal(own_level + own_growth * age, 1.0).mask(~np.isnan(seen))
                numpyro.sample("height", law, obs=np.nan_to_num(seen))


nuts = MCMC(NUTS(masked), num_warmup=500, num_samples=4_000, progress_bar=False)
nuts.run(jax.random.key(3))
for name in ("level", "growth", "own_level", "own_growth"):
    ours, exact = idata.posterior[name].values, np.asarray(nuts.get_samples()[name])
    ours, exact = ours.reshape(4_000, -1), exact.reshape(len(exact), -1)
    off = (ours.mean(0) - exact.mean(0)) / exact.std(0)
    print(f"{name}: means off by {np.abs(off).max():.2f} sd at most, sd ratios {(ours.std(0) / exact.std(0)).round(2)}")

# %% [markdown]
# ## The visits that were missed
# Imputed in `posterior`, where what was seen is repeated.

# %%
figure, axes = plt.subplots(1, CHILDREN, figsize=(12, 2.6), sharey=True, layout="constrained")
imputed = idata.posterior["height"].stack(sample=("chain", "draw")).values.reshape(CHILDREN, len(age), -1)
for ax, draws, values in zip(axes, imputed, seen, strict=True):
    for level in (0.5, 0.9):
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], 1)
        ax.vlines(age, low, high, color="C0", alpha=0.4, lw=5)
    ax.plot(age, values, "o", color="black", ms=4)
    ax.set(xlabel="age")
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set(ylabel="height")
figure.savefig(folder / "imputed.png", dpi=110)

# %% [markdown]
# ## Three patterns in one call
# Leading axes are batch axes; each dataset may miss what it likes.

# %%
patterns = complete.copy()
patterns[1, :, 2:] = np.nan  # nobody came after the second visit
patterns[2, 3:] = np.nan  # three children never came
batch = simformer.condition(height=patterns).sample(jax.random.key(4), 1_000)
print(batch.posterior["growth"].std(("chain", "draw")).values.round(2), "sd of the growth, pattern by pattern")

# %% [markdown]
# ## A child who came once

# %%
once = patterns[0].copy()
once[0, 1:] = np.nan
lonely = simformer.condition(height=once).sample(jax.random.key(5), 1_000).posterior
rows = lonely["height"].sel(child=0)
print("child 0:", rows.mean(("chain", "draw")).values.round(1), "+-", rows.std(("chain", "draw")).values.round(1))
