# %% [markdown]
# # Read a model
#
# What does my model say depends on what? Here a small study is read: readings over time from several wards, a label for
# each ward that says which of two protocols it followed, and a summary that somebody computed afterwards. Nothing is
# trained. Pictures go to `read_a_model/` below the working directory.

# %%
from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan

from simformer_ppl import trace_structure

folder = Path("read_a_model")
folder.mkdir(exist_ok=True)
num_wards, num_weeks = 3, 4


# %% [markdown]
# ## The model
# Each ward has a level that drifts from week to week; the protocol shifts its readings.


# %%
def model(reading=None):
    drift = numpyro.sample("drift", dist.HalfNormal(0.5))
    shift = numpyro.sample("shift", dist.Normal(0, 1).expand([2]).to_event(1))
    with numpyro.plate("ward", num_wards):
        protocol = numpyro.sample("protocol", dist.Bernoulli(0.5))

    def week(level, observed):
        with numpyro.plate("ward", num_wards):
            level = numpyro.sample("level", dist.Normal(level, drift))
            reading = numpyro.sample("reading", dist.Normal(level + shift[protocol], 0.2), obs=observed)
        return level, reading

    _, all_readings = scan(week, jnp.zeros(num_wards), reading, length=num_weeks)
    numpyro.deterministic("worst", all_readings.max(0))


structure = trace_structure(model)
print(structure)

# %% [markdown]
# ## Why is there an edge?

# %%
for child, parent in [("reading[2, 1]", "shift[0]"), ("level[3, 0]", "level[2, 0]"), ("level[3, 0]", "level[2, 1]")]:
    print(f"{child} <- {parent}: {structure.explain(child, parent)}")

# %% [markdown]
# ## Summaries as tokens, and sites left out
# The summary reads the readings of its ward; without the levels, the readings of a ward depend on each other.

# %%
summary = trace_structure(model, sites=["drift", "reading", "worst"])
print(summary)
print(summary.explain("worst[1]", "reading[2, 1]"))
print(summary.explain("reading[2, 1]", "reading[0, 1]"))

# %% [markdown]
# ## What known values rule out
# With the protocols known, a reading no longer reads both shifts, and wards of different protocols part.

# %%
given = np.zeros(structure.num_tokens, bool)
for name in ("protocol", "reading", "drift"):
    given[structure.sites[name].token_slice] = True
anyhow = structure.attention_mask(given)
known = structure.attention_mask(given, {"protocol": np.array([0, 1, 1])})
print(f"attended pairs: {anyhow.sum()} whatever the protocols are, {known.sum()} for wards of protocols 0, 1, 1")

# %% [markdown]
# ## Look at it

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 6), layout="constrained")
structure.plot("graph", ax=left)
structure.plot("matrix", ax=right, conditioned=["reading"])
figure.savefig(folder / "structure.png", dpi=150)
