# %% [markdown]
# # An image as data
#
# A spot of light in noise: where is it, and how wide? The image has 256 pixels, which are only ever *given*. In place
# of a token for every pixel, a small convolutional network of ours reads it into three tokens, and is trained along
# with the rest: `embeddings={"image": Reader(...)}`.
#
# Its posterior is compared with two others:
#
# 1. that of a Simformer which is told summaries that a person would think of,
# 2. the exact one, which this model allows: its density on a grid of the three parameters.
#
# Takes about eight minutes on one core. Pictures go to `image/` below the working directory.

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

folder = Path("image")
folder.mkdir(exist_ok=True)
SIDE, NOISE = 16, 0.5
place = jnp.linspace(-1.0, 1.0, SIDE)

# %% [markdown]
# ## The simulator
# What a person would compute of an image, its centre of brightness, its spread and its total, is a deterministic site
# of the model.


# %%
def model(image=None):
    x = numpyro.sample("x", dist.Uniform(-1, 1))
    y = numpyro.sample("y", dist.Uniform(-1, 1))
    width = numpyro.sample("width", dist.LogNormal(-1.2, 0.3))
    light = jnp.exp(-0.5 * ((place - x) ** 2 + (place[:, None] - y) ** 2) / width**2)
    with numpyro.plate("row", SIDE, dim=-2), numpyro.plate("column", SIDE, dim=-1):
        image = numpyro.sample("image", dist.Normal(light, NOISE), obs=image)
    bright = jnp.maximum(image - NOISE, 0.0)
    weight = bright / (bright.sum() + 1e-6)
    centre = jnp.stack([(weight.sum(0) * place).sum(), (weight.sum(1) * place).sum()])
    spread = (weight * ((place - centre[0]) ** 2 + (place[:, None] - centre[1]) ** 2)).sum()
    numpyro.deterministic("summaries", jnp.concatenate([centre, jnp.stack([spread, bright.mean(), image.mean()])]))


class Reader(nnx.Module):
    """Three tokens from an image."""

    def __init__(self, rngs):
        self.patches = nnx.Conv(1, 16, (4, 4), strides=2, rngs=rngs)
        self.inner = nnx.Linear(8 * 8 * 16, 64, rngs=rngs)
        self.outer = nnx.Linear(64, 3 * 16, rngs=rngs)

    def __call__(self, image):
        seen = nnx.gelu(self.patches(image[..., None])).reshape(-1)
        return self.outer(nnx.gelu(self.inner(seen))).reshape(3, 16)


parameters = ["x", "y", "width"]
learned = Simformer(model, sites=[*parameters, "image"], embeddings={"image": Reader(nnx.Rngs(0))})
by_hand = Simformer(model, sites=[*parameters, "summaries"], data_sites=["summaries"])
print(learned, by_hand, sep="\n\n")

# %%
for name, simformer in {"image": learned, "summaries": by_hand}.items():
    started = time.perf_counter()
    simformer.fit(jax.random.key(0), num_simulations=20_000, num_steps=6_000)
    print(f"{name}: trained in {time.perf_counter() - started:.0f} s")

# %% [markdown]
# ## Five images, three posteriors each

# %%
images = learned.simulate(jax.random.key(1), 5)
summaries = by_hand.simulate(jax.random.key(1), 5)["summaries"].values
draws = {
    "image": learned.condition(image=images["image"].values).sample(jax.random.key(2), 4_000).posterior,
    "summaries": by_hand.condition(summaries=summaries).sample(jax.random.key(2), 4_000).posterior,
}


@jax.jit
def log_densities(image):
    def log_density(point):
        x, y, width = point
        light = jnp.exp(-0.5 * ((place - x) ** 2 + (place[:, None] - y) ** 2) / width**2)
        return dist.LogNormal(-1.2, 0.3).log_prob(width) - 0.5 * (((image - light) / NOISE) ** 2).sum()

    return jax.lax.map(log_density, jnp.asarray(points), batch_size=1_000)


sides = np.linspace(-0.99, 0.99, 100), np.linspace(-0.99, 0.99, 100), np.linspace(0.1, 0.8, 71)
points = np.stack(np.meshgrid(*sides)).reshape(3, -1).T
cell = np.array([side[1] - side[0] for side in sides])
exact = []
for image in images["image"].values:
    log_density = np.asarray(log_densities(image), float)
    density = np.exp(log_density - log_density.max())
    rng = np.random.default_rng(0)
    chosen = points[rng.choice(len(points), 4_000, p=density / density.sum())]
    exact.append(dict(zip(parameters, (chosen + cell * rng.uniform(-0.5, 0.5, chosen.shape)).T, strict=True)))


def flat(name, parameter, number):
    if name == "exact":
        return exact[number][parameter]
    return draws[name][parameter].values[..., number].ravel()


figure, axes = plt.subplots(5, 4, figsize=(9, 10), layout="constrained")
for row, image in zip(range(5), images["image"].values, strict=True):
    axes[row, 0].imshow(image, extent=(-1, 1, -1, 1), origin="lower", cmap="gray")
    axes[row, 0].plot(images["x"][row], images["y"][row], "+", color="C3")
    for ax, parameter in zip(axes[row, 1:], parameters, strict=True):
        low, high = np.quantile(flat("summaries", parameter, row), [0.005, 0.995])
        for name, color in {"summaries": "0.7", "image": "C0", "exact": "black"}.items():
            style = {"histtype": "step", "lw": 1.2} if name == "exact" else {"alpha": 0.6}
            values = flat(name, parameter, row)
            ax.hist(values, np.linspace(low, high, 50), density=True, color=color, label=name, **style)
        ax.axvline(float(images[parameter][row]), color="C3", lw=1)
        ax.set(xlabel=parameter if row == 4 else "", yticks=[])
axes[0, 1].legend(frameon=False, fontsize=7)
figure.savefig(folder / "posteriors.png", dpi=110)

# %% [markdown]
# In standard deviations of the exact posterior: how far the means are off, and how wide the answers are.

# %%
for name in ("image", "summaries"):
    means, widths = [], []
    for number in range(5):
        for parameter in parameters:
            reference, answer = flat("exact", parameter, number), flat(name, parameter, number)
            means.append((answer.mean() - reference.mean()) / reference.std())
            widths.append(np.log(answer.std() / reference.std()))
    print(f"{name}: means off by {np.sqrt(np.mean(np.square(means))):.2f}, widths {np.exp(np.mean(widths)):.2f}")
