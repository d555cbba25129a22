"""What a measurement ran on: the device, and the packages."""

import importlib.metadata
import os

import jax

PACKAGES = ("simformer_ppl", "jax", "flax", "optax", "numpyro", "arviz", "scikit-learn")


def device() -> str:
    """What ran it, in words."""
    kind = jax.devices()[0].device_kind
    if kind != "cpu":
        return f"{len(jax.devices())} x {kind}"
    return f"cpu, {len(os.sched_getaffinity(0))} core(s)"


def versions() -> dict[str, str]:
    """Of the packages that matter."""
    return {package: importlib.metadata.version(package) for package in PACKAGES}
