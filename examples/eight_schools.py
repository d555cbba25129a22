# %% [markdown]
# # Eight schools: one network, every question
#
# Eight schools ran a coaching programme for a test; each reported an estimated effect and its standard error (Rubin
# 1981). You are about to see
#
# 1. a hierarchical NumPyro model read into tokens and an attention mask,
# 2. one network trained on simulations from it (about three minutes on two CPU cores),
# 3. the posterior given the real data, beside NUTS,
# 4. three more questions that the same network answers without training: two schools' data missing, the likelihood at
#    given parameters, and a new dataset.
#
# Pictures go to `eight_schools/` below the working directory.

# %%
import time
from pathlib import Path

import arviz as az
import jax
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from numpyro.infer import MCMC, NUTS
from numpyro.infer.reparam import LocScaleReparam

from simformer_ppl import Simformer

schools = ["Choate", "Deerfield", "Phillips Andover", "Phillips Exeter"]
schools += ["Hotchkiss", "Lawrenceville", "St. Paul's", "Mt. Hermon"]
effect = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
standard_error = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
folder = Path("eight_schools")
folder.mkdir(exist_ok=True)


# %% [markdown]
# ## The model
# Plain NumPyro: the true effects vary between schools around `mu` with spread `tau`.


# %%
def model(standard_error, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(standard_error)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, standard_error), obs=y)


# %% [markdown]
# ## What the model says about itself
# Every scalar is a token. Which token reads which is derived from the model's code, never written by hand.

# %%
simformer = Simformer(model, (standard_error,), coords={"school": schools}, dims={"standard_error": ["school"]})
simformer  # noqa: B018  (a notebook shows it as a table)

# %%
print(simformer)

figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
simformer.structure.plot("graph", ax=axes[0])
simformer.structure.plot("matrix", ax=axes[1], conditioned=["y"])
figure.savefig(folder / "structure.png", dpi=120)

# %% [markdown]
# ## Train once

# %%
started = time.perf_counter()
simformer.fit(jax.random.key(0), num_simulations=20_000, num_steps=10_000)
print(f"trained in {time.perf_counter() - started:.0f} s")
simformer.plot_history().figure.savefig(folder / "training.png", dpi=120)

# %% [markdown]
# ## The posterior given the real data

# %%
posterior = simformer.condition(y=effect)
print(posterior)
idata = posterior.sample(jax.random.key(1), 4_000, predictive=True)
print(az.summary(idata, kind="stats"))

az.plot_forest(idata, var_names=["mu", "tau", "theta"], combined=True).savefig(folder / "forest.png")
az.plot_pair(idata, var_names=["mu", "tau"], marginal=True).savefig(folder / "pair.png")
az.plot_ppc_dist(idata, var_names=["y"]).savefig(folder / "posterior_predictive.png")

# %% [markdown]
# ## Beside NUTS

# %%
nuts = MCMC(
    NUTS(numpyro.handlers.reparam(model, config={"theta": LocScaleReparam(0)}), target_accept_prob=0.95),
    num_warmup=1_000, num_samples=2_500, num_chains=4, chain_method="vectorized", progress_bar=False,
)  # fmt: skip
nuts.run(jax.random.key(2), standard_error, y=effect)
reference = nuts.get_samples()

rows = {}
for name in ["mu", "tau", "theta"]:
    ours = idata.posterior[name].stack(sample=("chain", "draw")).values
    exact = np.moveaxis(np.asarray(reference[name]), 0, -1)
    for index in np.ndindex(exact.shape[:-1]):
        label = f"{name}[{schools[index[0]]}]" if index else name
        mean, sd = exact[index].mean(), exact[index].std()
        rows[label] = {
            "mean": ours[index].mean(),
            "NUTS mean": mean,
            "sd": ours[index].std(),
            "NUTS sd": sd,
            "difference / sd": (ours[index].mean() - mean) / sd,
            "sd ratio": ours[index].std() / sd,
        }
comparison = pd.DataFrame(rows).T
print(comparison.round(2).to_string())

# %% [markdown]
# ## Three more questions, the same network
# **Two schools did not report.** NaN marks what is missing; it is imputed along with everything else.

# %%
missing = effect.copy()
missing[[0, 6]] = np.nan
partial = simformer.condition(y=missing)
print(partial)
print(az.summary(partial.sample(jax.random.key(3), 2_000), var_names=["mu", "tau", "y"], kind="stats"))

# %% [markdown]
# **The likelihood**: what would be reported if the programme had an effect of 8 points everywhere, give or take 2?

# %%
likelihood = simformer.condition(mu=8.0, tau=2.0)
print(likelihood)
print(az.summary(likelihood.sample(jax.random.key(4), 2_000), group="posterior_predictive", kind="stats"))

# %% [markdown]
# **A new dataset**: no retraining, about a second.

# %%
repeated = simformer.condition(y=np.array([12.0, 9.0, 4.0, 7.0, 10.0, 5.0, 11.0, 8.0]))
print(az.summary(repeated.sample(jax.random.key(5), 2_000), var_names=["mu", "tau"], kind="stats"))
print(f"pictures are in {folder}/")
