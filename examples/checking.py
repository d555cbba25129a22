# %% [markdown]
# # Checking the answer
#
# A network always answers. Which answers are to be believed?
#
# 1. data that the model would never produce are warned of,
# 2. calibration shows a network that has been trained too briefly, and passes one that has not,
# 3. the model's own density, where it is known, corrects the draws, and tells how far it had to.
#
# About five minutes on one CPU core. Pictures go to `checking/` below the working directory.

# %%
import warnings
from pathlib import Path

import arviz as az
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

from simformer_ppl import Simformer

folder = Path("checking")
folder.mkdir(exist_ok=True)
dose = np.linspace(-1.5, 1.5, 8)


# %% [markdown]
# ## The model
# Deaths among twenty animals at each of eight doses.


# %%
def model(deaths=None):
    threshold = numpyro.sample("threshold", dist.Normal(0.0, 1.0))
    slope = numpyro.sample("slope", dist.LogNormal(0.5, 0.5))
    with numpyro.plate("dose", len(dose)):
        numpyro.sample("deaths", dist.Binomial(20, logits=slope * (dose - threshold)), obs=deaths)


simformer = Simformer(model, coords={"dose": dose.round(2)})
print(simformer)

# %% [markdown]
# ## Trained too briefly

# %%
simformer.fit(jax.random.key(0), num_simulations=10_000, num_steps=150)
print(simformer.calibrate(jax.random.key(1)))

# %% [markdown]
# ## Trained for longer
# `fit` goes on from the present weights.

# %%
simformer.fit(jax.random.key(2), num_simulations=10_000, num_steps=5_000)
calibration = simformer.calibrate(jax.random.key(1))
print(calibration)
az.plot_ecdf_pit(calibration.pit).savefig(folder / "ranks.png")

# %% [markdown]
# The three kinds of question that are asked most, at once:

# %%
checked = simformer.check(jax.random.key(3), num_simulations=300)

# %% [markdown]
# ## Data unlike the model's
# All die at low doses, and none at high ones: no positive slope explains that.

# %%
deaths = np.array([0, 1, 2, 7, 12, 16, 19, 20])
print(simformer.condition(deaths=deaths).check_given())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    simformer.condition(deaths=np.repeat([20, 0], 4))
for warning in caught:
    print(f"{warning.category.__name__}: {warning.message}")

# %% [markdown]
# ## Corrected by the model's density
# `pareto_k` below .7 says that the weights are well behaved.

# %%
posterior = simformer.condition(deaths=deaths)
plain = posterior.sample(jax.random.key(4), 2_000)
corrected = posterior.importance_resample(jax.random.key(5), 2_000)
stats = corrected.sample_stats.attrs
print(f"pareto k {stats['pareto_k']:.2f}; worth {stats['effective_sample_size']:.0f} independent draws")
for title, tree in {"network": plain, "corrected": corrected}.items():
    print(title, az.summary(tree, var_names=["threshold", "slope"], kind="stats"), sep="\n")

# %% [markdown]
# With `log_likelihood` in it, the result is ready for model comparison:

# %%
print(az.loo(corrected))

# %% [markdown]
# ## One observation
# Calibration is an average over datasets. The local test asks about the answer to this one.

# %%
print(calibration.local_c2st(posterior, jax.random.key(6)))
