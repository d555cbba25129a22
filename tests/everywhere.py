"""Fixtures of the examples in docstrings too, which lie outside this folder."""

import os
from pathlib import Path

import jax
import pytest


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """One folder for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def compiled_once(shared_folder):
    """Many tests train the same small network: what is compiled for one serves the others, of all processes."""
    jax.config.update("jax_compilation_cache_dir", str(shared_folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    yield
    jax.config.update("jax_compilation_cache_dir", None)


def memory_maps() -> float:
    """Those of this process, of which Linux allows 65,530; infinitely many where nobody counts them."""
    counted = Path("/proc/self/maps")
    return len(counted.read_bytes().splitlines()) if counted.exists() else float("inf")


@pytest.fixture(scope="module", autouse=True)
def forget_compiled():
    """Thousands of compiled programs in one process would exhaust its memory maps."""
    yield
    if memory_maps() > 30_000:
        jax.clear_caches()
