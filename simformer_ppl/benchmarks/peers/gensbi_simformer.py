"""The Simformer of GenSBI (flow matching, dense), with its defaults but for the length of training.

    python gensbi_simformer.py SIMULATIONS.npz DRAWS.npz SECONDS

The file is that of ``sbi_npe.py``. The number of steps is what the time allows, by the speed of a short trial; the
schedule of the learning rate is scaled to it, and nothing stops it early.
"""

import importlib.metadata
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx
from gensbi.recipes import SimformerFlowPipeline

BATCH, TRIAL = 256, 20


def batches(joint: np.ndarray, seed: int) -> Iterator[jax.Array]:
    """Random batches without end."""
    rng = np.random.default_rng(seed)
    while True:
        yield jax.numpy.asarray(joint[rng.integers(len(joint), size=BATCH)])


def train(joint: np.ndarray, num_theta: int, steps: int, seed: int, folder: str) -> tuple[Any, float]:
    """A pipeline trained for some steps, and the seconds that took."""
    config = SimformerFlowPipeline.get_default_training_config() | {
        "nsteps": steps, "warmup_steps": min(500, steps // 10), "early_stopping": False, "checkpoint_dir": folder,
    }  # fmt: skip
    held_out = max(1, len(joint) // 20)
    pipeline = SimformerFlowPipeline(
        batches(joint[held_out:], seed), batches(joint[:held_out], seed + 1), num_theta, joint.shape[1] - num_theta,
        training_config=config,
    )  # fmt: skip
    start = time.perf_counter()
    pipeline.train(nnx.Rngs(seed), nsteps=steps, save_model=False)
    return pipeline, time.perf_counter() - start


def main() -> None:
    """Train, draw for every observation, and print what it took."""
    data = np.load(sys.argv[1])
    seed, count, num_theta = int(data["seed"]), int(data["draws"]), data["theta"].shape[1]
    joint = np.concatenate([data["theta"], data["x"]], 1).astype(np.float32)
    mean, deviation = joint.mean(0), joint.std(0)
    standardised = ((joint - mean) / deviation)[..., None]
    with tempfile.TemporaryDirectory() as folder:
        _, first = train(standardised, num_theta, TRIAL, seed, folder)
        _, second = train(standardised, num_theta, 6 * TRIAL, seed, folder)
        if second <= first:
            raise RuntimeError(f"A longer trial should take longer, got {first:.2f} and {second:.2f} s.")
        steps = max(100, int((float(sys.argv[3]) - first) / ((second - first) / (5 * TRIAL))))
        pipeline, train_seconds = train(standardised, num_theta, steps, seed, folder)
    draws, seconds = [], []
    for number, observation in enumerate(data["observations"]):
        given = ((observation - mean[num_theta:]) / deviation[num_theta:])[None, :, None]
        start = time.perf_counter()
        drawn = np.asarray(pipeline.sample(jax.random.key(number), jax.numpy.asarray(given, np.float32), 10_000))
        seconds.append(time.perf_counter() - start)
        draws.append(drawn[:count, :, 0] * deviation[:num_theta] + mean[:num_theta])
    np.savez(sys.argv[2], draws=np.stack(draws))
    print()  # progress may have left a line open
    print(
        json.dumps(
            {
                "train_seconds": round(train_seconds, 1),
                "train_steps": steps,
                "train_steps_by_default": 50_000,
                "device": str(jax.devices()[0].device_kind),
                "sample_seconds_warm": round(float(np.median(seconds[1:])), 2),
                "versions": {name: importlib.metadata.version(name) for name in ("gensbi", "jax", "flax")},
            }
        )
    )


if __name__ == "__main__":
    main()
