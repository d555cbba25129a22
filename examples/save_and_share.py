# %% [markdown]
# # Saving and sharing
#
# A trained network is a few hundred kilobytes, and answers on any machine. Here it is
#
# 1. saved, without pickle and without the simulations,
# 2. loaded by another process, which draws the same to the bit,
# 3. kept from the wrong model,
# 4. and its draws are written as NetCDF, for whoever uses ArviZ.
#
# About two minutes on one CPU core. Files go to `save_and_share/` below the working directory.

# %%
import shutil
import subprocess
import sys
from pathlib import Path

import arviz as az
import jax
import numpy as np

from simformer_ppl import Simformer

folder = Path("save_and_share")
folder.mkdir(exist_ok=True)

# %% [markdown]
# ## The model, in a module
# Models travel as Python code, as they always have; weights travel in the folder.

# %%
module = folder / "decay.py"
module.write_text('''
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

times = jnp.arange(8.0)


def model(counts=None):
    """Counts of a decaying sample over eight hours."""
    amount = numpyro.sample("amount", dist.LogNormal(4.0, 0.5))
    half_life = numpyro.sample("half_life", dist.LogNormal(1.0, 0.4))
    with numpyro.plate("hour", len(times)):
        numpyro.sample("counts", dist.Poisson(amount * 0.5 ** (times / half_life)), obs=counts)
''')
sys.path.insert(0, str(folder))
from decay import model  # noqa: E402

# %% [markdown]
# ## Train and save

# %%
simformer = Simformer(model).fit(jax.random.key(0), num_simulations=10_000, num_steps=3_000)
shutil.rmtree(folder / "network", ignore_errors=True)
simformer.save(folder / "network")
for path in sorted((folder / "network").rglob("*")):
    if path.is_file() and path.parent == folder / "network":
        print(path.name)
size = sum(path.stat().st_size for path in (folder / "network").rglob("*") if path.is_file())
print(f"{size / 1024:.0f} KiB in all")

# %% [markdown]
# ## Load it elsewhere
# Another process, which has never seen a simulation.

# %%
counts = np.array([61, 50, 33, 31, 20, 13, 12, 9])
idata = simformer.condition(counts=counts).sample(jax.random.key(1), 1_000)
script = f"""
import sys, jax, numpy as np
sys.path.insert(0, {str(folder)!r})
from decay import model
from simformer_ppl import Simformer
simformer = Simformer.load({str(folder / "network")!r}, model)
idata = simformer.condition(counts=np.array({counts.tolist()})).sample(jax.random.key(1), 1_000)
idata.to_netcdf({str(folder / "draws.nc")!r})
"""
_ = subprocess.run([sys.executable, "-c", script], check=True)

# %% [markdown]
# ## Draws as NetCDF

# %%
received = az.from_netcdf(folder / "draws.nc")
same = all(np.array_equal(received.posterior[name], idata.posterior[name]) for name in idata.posterior.data_vars)
print("the same to the bit" if same else "not the same")
print(az.summary(received, kind="stats"))

# %% [markdown]
# ## The wrong model
# What was saved knows what it was trained for.


# %%
def renamed(counts=None):
    import numpyro

    with numpyro.handlers.scope(prefix="sample"):
        model(counts)


try:
    Simformer.load(folder / "network", renamed)
except ValueError as error:
    print(error)

# %% [markdown]
# ## Training on
# A loaded network can be asked, and fitted again with simulations of its own.

# %%
again = Simformer.load(folder / "network", model)
again.fit(jax.random.key(2), num_simulations=2_000, num_steps=500)
print(again.history["step"].values[-1], "steps in all")
