# %% [markdown]
# # A long series, and no likelihood
#
# Ricker's model of a population (Ricker 1954; the summaries are Wood's, 2010, Nature 466): numbers boom and crash,
# noise drives them, and what is counted is Poisson. The noise of 400 seasons is never seen, so there is no likelihood
# to hand to MCMC; the counts are 400 scalars that are only ever given. A convolutional network reads them into four
# tokens and is trained along with the rest, and its posterior is compared with that of a Simformer which is told
# summaries.
#
# Takes about ten minutes on one core. Pictures go to `long_series/` below the working directory.

# %%
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from flax import nnx

from simformer_ppl import Simformer

folder = Path("long_series")
folder.mkdir(exist_ok=True)
SEASONS = 400

# %% [markdown]
# ## The simulator


# %%
def model(counts=None):
    log_growth = numpyro.sample("log_growth", dist.Uniform(2.0, 5.0))
    noise = numpyro.sample("noise", dist.Uniform(0.05, 0.8))
    scale = numpyro.sample("scale", dist.Uniform(4.0, 20.0))
    shocks = numpyro.sample("shocks", dist.Normal(jnp.zeros(SEASONS), 1.0).to_event(1))

    def season(log_size, shock):
        log_size = log_growth + log_size - jnp.exp(log_size) + noise * shock
        return log_size, log_size

    _, log_sizes = jax.lax.scan(season, jnp.zeros(()), shocks)
    with numpyro.plate("season", SEASONS):
        counts = numpyro.sample("counts", dist.Poisson(scale * jnp.exp(log_sizes)), obs=counts)
    numpyro.deterministic("summaries", summarise(counts))


def summarise(counts):
    """Mean, share of zeros, quantiles of the logarithm, and how it follows from the season before."""
    logs = jnp.log1p(counts.astype(float))
    centred = logs - logs.mean()
    lags = jnp.stack([(centred[lag:] * centred[:-lag]).mean() for lag in (1, 2, 3)]) / ((centred**2).mean() + 1e-6)
    basic = jnp.stack([logs.mean(), logs.std(), (counts == 0).mean(), jnp.log1p(counts.mean())])
    return jnp.concatenate([basic, jnp.quantile(logs, jnp.array([0.25, 0.5, 0.75, 0.9, 1.0])), lags])


class Reader(nnx.Module):
    """Four tokens from a series: what short windows of it show, averaged."""

    def __init__(self, rngs):
        self.windows = nnx.Conv(1, 32, (4,), padding="VALID", rngs=rngs)
        self.inner = nnx.Linear(32, 32, rngs=rngs)
        self.outer = nnx.Linear(32, 4 * 16, rngs=rngs)

    def __call__(self, counts):
        seen = nnx.gelu(self.inner(nnx.gelu(self.windows(counts[:, None]))))
        return self.outer(seen.mean(0)).reshape(4, 16)


parameters = ["log_growth", "noise", "scale"]
learned = Simformer(model, sites=[*parameters, "counts"], embeddings={"counts": Reader(nnx.Rngs(0))})
by_hand = Simformer(model, sites=[*parameters, "summaries"], data_sites=["summaries"])
print(learned, by_hand, sep="\n\n")

# %%
for name, simformer in {"counts": learned, "summaries": by_hand}.items():
    started = time.perf_counter()
    simformer.fit(jax.random.key(0), num_simulations=10_000, num_steps=6_000)
    print(f"{name}: trained in {time.perf_counter() - started:.0f} s")

# %% [markdown]
# ## A hundred fresh series
# Whose means are nearer to the truth, and do the answers cover it as often as they say?

# %%
fresh = learned.simulate(jax.random.key(1), 100)
summaries = jax.vmap(summarise)(fresh["counts"].values)
draws = {
    "counts": learned.condition(counts=fresh["counts"].values).sample(jax.random.key(2), 400).posterior,
    "summaries": by_hand.condition(summaries=np.asarray(summaries)).sample(jax.random.key(2), 400).posterior,
}
figure, axes = plt.subplots(2, 3, figsize=(10, 6), layout="constrained")
for row, (name, tree) in enumerate(draws.items()):
    for ax, parameter in zip(axes[row], parameters, strict=True):
        values, truth = tree[parameter].values.reshape(400, -1), fresh[parameter].values
        error = np.sqrt(((values.mean(0) - truth) ** 2).mean()) / truth.std()
        low, high = np.quantile(values, [0.05, 0.95], 0)
        covered = np.mean((truth > low) & (truth < high))
        print(f"{name}, {parameter}: error {error:.3f} prior sds; {covered:.0%} of the 90 % intervals hold the truth")
        ax.vlines(truth, low, high, color="C0", alpha=0.3, lw=1)
        ax.plot(truth, values.mean(0), ".", color="C0", ms=3)
        ax.plot(truth, truth, color="black", lw=0.5)
        ax.set(title=f"{parameter}, from {name}", xlabel="truth", ylabel="posterior")
figure.savefig(folder / "posteriors.png", dpi=110)
