"""Tables of what was measured, beside what was published."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simformer_ppl.benchmarks.published import CONDITIONALS, POSTERIORS, PUBLISHED, SIMULATIONS, SOURCE
from simformer_ppl.diffusion.process import PROCESSES

Row = dict[str, Any]


def read(files: Iterable[Path]) -> list[Row]:
    """Rows of JSON lines files."""
    return [json.loads(line) for file in files for line in file.read_text().splitlines() if line.strip()]


def report(rows: Sequence[Row]) -> str:
    """Markdown: C2ST beside the published figures, then the costs and the finer scores of every run.

    Parameters
    ----------
    rows
        As :func:`simformer_ppl.benchmarks.runner.run` returns them, of any tasks and settings.
    """
    cells = _by_variant(rows)
    parts = [_scores(cells, tasks) for tasks in (POSTERIORS, CONDITIONALS) if any(r["task"] in tasks for r in rows)]
    return "\n\n".join([*parts, f"Published: {SOURCE}.", _costs(rows)]) + "\n"


def variant(row: Row) -> str:
    """What a run changed of the defaults, in words."""
    parts = [] if row["attention"] == "moral" else [row["attention"]]
    parts += [] if row["process"] == "edm" else [row["process"].upper()]
    parts += [] if row["use_density"] else ["simulations only"]
    fixed = {"attention", "process", "use_density"}
    parts += [f"{name}={value}" for name, value in row["overrides"].items() if name not in fixed]
    default = PROCESSES[row["process"]].default_steps
    parts += [] if row["evaluations"] == default else [f"{row['evaluations']} evaluations"]
    return ", ".join(["simformer_ppl", *parts])


def _by_variant(rows: Sequence[Row]) -> dict[str, dict[tuple[str, int], list[float]]]:
    cells: dict[str, dict[tuple[str, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        cells[variant(row)][row["task"], row["simulations"]].append(row["c2st_rf"])
    return cells


def _scores(cells: dict[str, dict[tuple[str, int], list[float]]], tasks: Sequence[str]) -> str:
    kind = "posterior" if tasks == POSTERIORS else "all conditionals"
    thousands = " / ".join(f"{count // 1_000}k" for count in SIMULATIONS)
    lines = [f"| {kind}, {thousands} simulations | {' | '.join(tasks)} |", "|---" * (len(tasks) + 1) + "|"]
    for name, scores in cells.items():
        own = [" / ".join(_cell(scores.get((task, count), [])) for count in SIMULATIONS) for task in tasks]
        if any("." in text for text in own):
            lines.append(f"| **{name}** | {' | '.join(own)} |")
    for published in PUBLISHED:
        if set(tasks) & set(published.c2st):
            figures = [" / ".join(_figure(score) for score in published.c2st[task]) for task in tasks]
            lines.append(f"| {published.method} | {' | '.join(figures)} |")
    return "\n".join(lines)


def _cell(scores: Sequence[float]) -> str:
    if not scores:
        return "–"
    return _figure(float(np.mean(scores))) + (f" ({len(scores)} seeds)" if len(scores) > 1 else "")


def _figure(score: float) -> str:
    return f"{score:.3f}".removeprefix("0")


def _costs(rows: Sequence[Row]) -> str:
    columns = {
        "task": lambda r: r["task"],
        "simulations": lambda r: f"{r['simulations']:,}",
        "seed": lambda r: str(r["seed"]),
        "variant": lambda r: variant(r).removeprefix("simformer_ppl").removeprefix(", ") or "default",
        "RF": lambda r: _figure(r["c2st_rf"]),
        "MLP": lambda r: _figure(r["c2st_mlp"]),
        "RF, 5,000 a side": lambda r: _figure(r["c2st_rf_5000"]),
        "radius sd": lambda r: f"{r['radius_sd']:.4f}" if "radius_sd" in r else "",
        "train s": lambda r: f"{r['train_seconds']:.0f}",
        "steps": lambda r: f"{r['train_steps']:,}",
        "10,000 draws s, cold / warm": lambda r: f"{r['sample_seconds_cold']:.1f} / {r['sample_seconds_warm']:.1f}",
        "evaluations": lambda r: str(r["evaluations"]),
        "parameters": lambda r: f"{r['parameters']:,}",
        "peak MiB": lambda r: f"{r['peak_rss_mib']:,}",
        "device": lambda r: r["device"],
    }
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(column(row) for column in columns.values())} |" for row in rows]
    return "\n".join(lines)
