"""Probe many random programs and models: ``python -m tests.structure.fuzz --programs 2000 --models 300``."""

from __future__ import annotations

import argparse
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field

import jax
import numpy as np

from tests.structure.random_models import check_model, random_model, with_some_sites
from tests.structure.random_programs import check, random_program

# compiled programs are kept: thousands in one process would exhaust its memory maps
BETWEEN_CLEARINGS = 50


@dataclass
class Tally:
    """Counts over all programs and models."""

    programs: int = 0
    models: int = 0
    unsound: int = 0
    crashes: int = 0
    read: Counter[str] = field(default_factory=Counter)
    loose: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    probes: Counter[str] = field(default_factory=Counter)

    def line(self, seconds: float) -> str:
        shares = ", ".join(
            f"{name} {self.loose[name] / max(self.read[name], 1):.1%}" for name in ("programs", "models")
        )
        return (
            f"programs {self.programs}, models {self.models}, unsound {self.unsound}, crashes {self.crashes}, "
            f"loose share {shares}, {seconds:.0f} s"
        )


def try_program(seed: int, tally: Tally, largest: int = 8) -> None:
    """Probe the program of a seed; every fourth is also read with some of its inputs known."""
    rng = np.random.default_rng(seed)
    size, some = int(rng.integers(1, largest + 1)), rng.uniform() < 0.25
    program = random_program(seed, size)
    verdict = check(program, known=None)
    tally.read["programs"] += verdict.num_read
    tally.loose["programs"] += verdict.num_loose
    tally.kinds += verdict.loose
    tally.reasons += verdict.fallbacks
    verdicts = [(verdict, None)]
    if some:
        known = rng.uniform(size=program.num_inputs) < 0.5
        verdicts.append((check(program, known=known), known))
    for found, known in verdicts:
        if found.unsound:
            tally.unsound += 1
            element, moved_with = found.first or (0, 0)
            print(f"\nUNSOUND program({seed}, {size}) known={known}: element {element} moves with x[{moved_with}]")
            print(program.upto(found.unsound[0]), flush=True)
            return


def try_model(seed: int, tally: Tally, largest: int = 5) -> None:
    """Probe the model of a seed; every fourth with only some of its sites as tokens."""
    rng = np.random.default_rng(seed)
    size, some = int(rng.integers(1, largest + 1)), rng.uniform() < 0.25
    model = random_model(seed, size)
    findings = check_model(with_some_sites(model, seed) if some else model)
    tally.read["models"] += findings.num_edges
    tally.loose["models"] += findings.num_loose
    tally.kinds += Counter(f"{child} given {parent}" for child, parent in findings.loose)
    tally.reasons += Counter(reason.split(" (")[0] for reason in findings.info)
    tally.probes[findings.joint] += 1
    if findings.unsound:
        tally.unsound += 1
        print(f"\nUNSOUND model({seed}, {size}):", *findings.unsound[:6], sep="\n  ")
        print(model, flush=True)


def run(programs: int, models: int, first: int = 0) -> Tally:
    """Probe that many; failures are printed as they are found."""
    tally, start = Tally(), time.perf_counter()
    jobs = [(try_program, first + i) for i in range(programs)] + [(try_model, first + i) for i in range(models)]
    for number, (attempt, seed) in enumerate(jobs):
        try:
            attempt(seed, tally)
        except Exception:
            tally.crashes += 1
            print(f"\nCRASH {attempt.__name__}({seed})\n{traceback.format_exc(limit=-4)}", flush=True)
        tally.programs += attempt is try_program
        tally.models += attempt is try_model
        if number % BETWEEN_CLEARINGS == 0:
            jax.clear_caches()
            print(f"  {tally.line(time.perf_counter() - start)}", flush=True)
    print("\ncommonest loose:", tally.kinds.most_common(30))
    print("dense for want of a rule:", tally.reasons.most_common(20))
    print("probes in double precision:", tally.probes.most_common(8))
    print(tally.line(time.perf_counter() - start))
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    arguments = parser.parse_args()
    run(arguments.programs, arguments.models, arguments.first)


if __name__ == "__main__":
    main()
