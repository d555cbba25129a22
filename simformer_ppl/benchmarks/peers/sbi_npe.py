"""Neural posterior estimation by sbi, with its defaults, on simulations from a file.

    python sbi_npe.py SIMULATIONS.npz DRAWS.npz [SECONDS]

The file holds ``theta``, ``x``, ``observations``, ``low`` and ``high`` (the box of the prior, empty where there is
none), ``draws`` (how many), ``seed`` and ``option`` (the density estimator). Training stops by sbi's own rule, so the
seconds are not used.
"""

import json
import os
import sys
import time

import numpy as np
import sbi
import torch
from sbi.inference import NPE


def main() -> None:
    """Train, draw for every observation, and print what it took."""
    data = np.load(sys.argv[1])
    theta, x = (torch.as_tensor(data[name], dtype=torch.float32) for name in ("theta", "x"))
    torch.manual_seed(int(data["seed"]))
    prior = None
    if data["low"].size:
        low, high = (torch.as_tensor(data[name], dtype=torch.float32) for name in ("low", "high"))
        prior = torch.distributions.Independent(torch.distributions.Uniform(low, high), 1)
    start = time.perf_counter()
    inference = NPE(prior=prior, density_estimator=str(data["option"]))
    inference.append_simulations(theta, x).train()
    posterior = inference.build_posterior()
    train_seconds = time.perf_counter() - start
    count, draws, seconds = int(data["draws"]), [], []
    for observation in torch.as_tensor(data["observations"], dtype=torch.float32):
        start = time.perf_counter()
        drawn = posterior.sample((10_000,), x=observation, show_progress_bars=False)
        seconds.append(time.perf_counter() - start)
        draws.append(drawn[:count].numpy())
    np.savez(sys.argv[2], draws=np.stack(draws))
    print()  # progress may have left a line open
    print(
        json.dumps(
            {
                "train_seconds": round(train_seconds, 1),
                "train_steps": int(inference.summary["epochs_trained"][-1]) * (int(0.9 * len(theta)) // 200),
                "sample_seconds_warm": round(float(np.median(seconds)), 2),
                "device": f"cpu, {len(os.sched_getaffinity(0))} core(s)",
                "versions": {"sbi": sbi.__version__, "torch": torch.__version__},
            }
        )
    )


if __name__ == "__main__":
    main()
