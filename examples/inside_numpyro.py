# %% [markdown]
# # Inside NumPyro: a prior, a likelihood and a guide
#
# `as_numpyro()` makes any conditioned distribution a NumPyro distribution. Here it is
#
# 1. the likelihood of a simulator that has none, sampled by NUTS with twenty data of a network that was trained on one,
# 2. a posterior that is the prior of a second model,
# 3. a guide that SVI moves to other data.
#
# NUTS with learned densities is the long part: see the seconds that are printed. A picture goes to
# `inside_numpyro/` below the working directory.

# %%
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from scipy.stats import skewnorm

from simformer_ppl import Simformer

folder = Path("inside_numpyro")
folder.mkdir(exist_ok=True)


def run_nuts(model, num_draws, *arguments):
    started = time.perf_counter()
    # with few parameters, derivatives forwards are the cheaper ones
    kernel = NUTS(model, forward_mode_differentiation=True)
    mcmc = MCMC(kernel, num_warmup=150, num_samples=num_draws, progress_bar=False)
    mcmc.run(jax.random.key(0), *arguments)
    print(f"NUTS: {num_draws} draws in {time.perf_counter() - started:.0f} s")
    return mcmc.get_samples()


# %% [markdown]
# ## A simulator without density
# Noise that leans to one side. As written, NumPyro has no density for `x`: it is a function of noise. (It is a skew
# normal, so that there is an exact answer to compare with.)

# %%
slant = 3.0
share = slant / np.sqrt(1 + slant**2)


def simulator():
    location = numpyro.sample("location", dist.Normal(0.0, 1.0))
    scale = numpyro.sample("scale", dist.LogNormal(-0.5, 0.4))
    lean = numpyro.sample("lean", dist.HalfNormal(1.0))
    rest = numpyro.sample("rest", dist.Normal(0.0, 1.0))
    numpyro.deterministic("x", location + scale * (share * lean + np.sqrt(1 - share**2) * rest))


simformer = Simformer(simulator, sites=["location", "scale", "x"], data_sites=["x"])
simformer.fit(jax.random.key(0), 10_000, num_steps=8_000)

# %% [markdown]
# ## 1. Its likelihood, in another model
# A batch of twenty conditions is a distribution of `batch_shape` 20.

# %%
data = jnp.asarray(skewnorm.rvs(slant, 0.5, 0.7, size=20, random_state=1), jnp.float32)


def priors():
    return numpyro.sample("location", dist.Normal(0.0, 1.0)), numpyro.sample("scale", dist.LogNormal(-0.5, 0.4))


def learned(x):
    location, scale = priors()
    law = simformer.condition(location=location * jnp.ones(len(x)), scale=scale * jnp.ones(len(x))).as_numpyro()
    with numpyro.plate("n", len(x)):
        numpyro.sample("x", law, obs=x)


def exact(x):
    location, scale = priors()
    z = (x - location) / scale
    numpyro.factor("x", (dist.Normal().log_prob(z) - jnp.log(scale) + jax.scipy.stats.norm.logcdf(slant * z)).sum())


ours, reference = run_nuts(learned, 300, data), run_nuts(exact, 4_000, data)
for name in ("location", "scale"):
    print(
        f"{name}: mean {ours[name].mean():.3f} (exact {reference[name].mean():.3f}), "
        f"sd {ours[name].std():.3f} (exact {reference[name].std():.3f})"
    )

# %% [markdown]
# ## 2. A posterior as the prior of the next model
# One datum has been seen; of the parameters' posterior only the network knows. The next model takes it from there.

# %%
seen = simformer.condition(x=float(data[0])).as_numpyro()


def next_model(x):
    parameters = seen.unpack(numpyro.sample("parameters", seen))
    law = simformer.condition(
        location=parameters["location"] * jnp.ones(len(x)), scale=parameters["scale"] * jnp.ones(len(x))
    ).as_numpyro()
    with numpyro.plate("n", len(x)):
        numpyro.sample("x", law, obs=x)


chained = seen.unpack(run_nuts(next_model, 300, data[1:])["parameters"])
for name in ("location", "scale"):
    print(f"{name}, one datum by the prior and 19 by the likelihood: {chained[name].mean():.3f}")

figure, axis = plt.subplots(figsize=(5, 4), layout="constrained")
for label, draws in {"exact": reference, "learned likelihood": ours, "learned prior and likelihood": chained}.items():
    axis.plot(draws["location"], draws["scale"], ".", ms=3, alpha=0.6, label=label)
axis.set(xlabel="location", ylabel="scale")
axis.legend(frameon=False, markerscale=3)
axis.spines[["top", "right"]].set_visible(False)
figure.savefig(folder / "posterior.png", dpi=120)

# %% [markdown]
# ## 3. A guide
# SVI moves the answer for one datum to that for all of them: its shape is kept, place and width are learned.


# %%
def guide(x):
    location_and_scale = seen.unpack(numpyro.sample("auxiliary", seen, infer={"is_auxiliary": True}))
    for name, value in location_and_scale.items():
        # on the log scale for what is positive
        shift, log_width = numpyro.param(f"{name}_shift", 0.0), numpyro.param(f"{name}_log_width", 0.0)
        free = value if name == "location" else jnp.log(value)
        moved = shift + jnp.exp(log_width) * free
        log_slope = log_width if name == "location" else log_width - free + moved
        numpyro.sample(name, dist.Delta(moved if name == "location" else jnp.exp(moved), log_density=-log_slope))


svi = SVI(exact, guide, optax.adam(0.03), Trace_ELBO(num_particles=4))
started = time.perf_counter()
result = svi.run(jax.random.key(1), 300, data, progress_bar=False)
print(f"SVI: 300 steps in {time.perf_counter() - started:.0f} s, ELBO {-np.mean(np.asarray(result.losses[-50:])):.2f}")
guided = Predictive(guide, params=result.params, num_samples=1_000)(jax.random.key(2), data)
for name in ("location", "scale"):
    print(f"{name}, guide: mean {guided[name].mean():.3f}, sd {guided[name].std():.3f}")
print(f"pictures are in {folder}/")
