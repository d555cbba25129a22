"""Which devices a training run is spread over, and what a user is told of them."""

import logging
import warnings
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from simformer_ppl.exceptions import DeviceWarning

_PACKAGE = str(Path(__file__).parents[1])
_GPUS = Path("/proc/driver/nvidia/gpus")
"""Has an entry for every GPU that NVIDIA's driver sees, on Linux."""

_log = logging.getLogger("simformer_ppl")


def batch_sharding(batch_size: int) -> NamedSharding:
    """Split a batch over all devices that divide it evenly."""
    return NamedSharding(_mesh(batch_size), PartitionSpec("batch"))


def replicated(batch_size: int) -> NamedSharding:
    """A copy on each of the devices of :func:`batch_sharding`."""
    return NamedSharding(_mesh(batch_size), PartitionSpec())


def describe_devices(batch_size: int) -> str:
    """How many devices of which kind a batch is split over, such as ``2 x NVIDIA H100``."""
    used = _mesh(batch_size).devices.ravel()
    return f"{len(used)} x {used[0].device_kind}"


def tell_devices(batch_size: int) -> None:
    """Log the devices that train, and warn of a GPU that JAX does not see.

    Parameters
    ----------
    batch_size
        Of training.

    Warns
    -----
    DeviceWarning
        If the driver sees a GPU and JAX has none, though it was not told to do without.
    """
    _log.info("training on %s", describe_devices(batch_size))
    unseen = jax.default_backend() == "cpu" and _GPUS.is_dir() and any(_GPUS.iterdir())
    if unseen and "cpu" not in (jax.config.jax_platforms or ""):
        warnings.warn(
            "This machine has a GPU, but JAX sees none, and trains on the CPU. Install JAX for CUDA "
            '(pip install "jax[cuda13]"), or set JAX_PLATFORMS=cpu if this is meant.',
            DeviceWarning,
            skip_file_prefixes=(_PACKAGE,),
        )


def _mesh(batch_size: int) -> Mesh:
    devices = jax.devices()
    count = max(k for k in range(1, len(devices) + 1) if batch_size % k == 0)
    return Mesh(np.array(devices[:count]), ("batch",))
