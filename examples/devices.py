# %% [markdown]
# # GPUs and many devices
#
# Nothing needs to be said: what JAX sees is used. Batches are split over all devices, weights are copied to each, and
# many steps are one compiled call, so that a GPU is not kept waiting for Python. This page
#
# 1. shows what is used,
# 2. trains on two devices, which it makes from one CPU,
# 3. shows that the answers do not depend on how many there were.
#
# About two minutes on two CPU cores.

# %%
import json
import os
import subprocess
import sys

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

from simformer_ppl import Simformer

# %% [markdown]
# ## What there is
# `pip install ".[cuda]"`, in a clone, brings JAX for NVIDIA GPUs. Where the driver sees a GPU and JAX does not, `fit`
# warns; `JAX_PLATFORMS=cpu` says that this is meant. `JAX_PLATFORMS` and `CUDA_VISIBLE_DEVICES` choose among several.

# %%
print(jax.devices())

# %% [markdown]
# ## The same training on one device and on two
# `--xla_force_host_platform_device_count` makes several devices of one CPU, which is how programs for many are tried
# without them. JAX reads it when it starts, hence the processes.

# %%
PROGRAM = """
import json, logging, jax, numpy as np, numpyro, numpyro.distributions as dist
from simformer_ppl import Simformer

logging.basicConfig(format="%(name)s: %(message)s", force=True)
logging.getLogger("simformer_ppl").setLevel(logging.INFO)


def model(y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("n", 5):
        numpyro.sample("y", dist.Normal(mu, 0.5), obs=y)


simformer = Simformer(model).fit(jax.random.key(0), 5_000, num_steps=3_000, progress_bar=False)
y = np.array([0.3, 1.2, 0.7, 1.5, 0.3])
draws = simformer.condition(y=y).sample(jax.random.key(1), 4_000).posterior["mu"]
print(json.dumps({"devices": jax.device_count(), "mean": float(draws.mean()), "sd": float(draws.std())}))
"""

given = os.environ.get("XLA_FLAGS", "")
for count in (1, 2):
    flags = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{given} --xla_force_host_platform_device_count={count}",
    }
    run = subprocess.run([sys.executable, "-c", PROGRAM], env=flags, capture_output=True, text=True, check=True)
    print(*[line for line in run.stderr.splitlines() if line.startswith("simformer_ppl")], sep="\n")
    print(json.loads(run.stdout.splitlines()[-1]))
precision = 1 + 5 / 0.5**2
print(f"exact: mean {5 * 0.8 / 0.5**2 / precision:.3f}, sd {precision**-0.5:.3f}")

# %% [markdown]
# ## What fits a GPU
# A GPU is hardly filled by the default batch of 64 examples. Larger batches cost it little:


# %%
def model(y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("n", 5):
        numpyro.sample("y", dist.Normal(mu, 0.5), obs=y)


on_gpu = jax.default_backend() == "gpu"
simformer = Simformer(model)
simformer.fit(jax.random.key(0), 5_000, num_steps=500, batch_size=1_024 if on_gpu else 64)
print(simformer.condition(y=np.array([0.3, 1.2, 0.7, 1.5, 0.3])))

# %% [markdown]
# `python -m simformer_ppl.benchmarks device` measures steps and draws a second on the device at hand.
