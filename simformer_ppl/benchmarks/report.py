"""Tables of what was measured, beside what was published."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
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
    """Markdown tables of all that was measured.

    Parameters
    ----------
    rows
        What ``run``, ``samplers``, ``compare``, ``questions``, ``functions``, ``device`` and ``costs`` print, in any
        order.

    Returns
    -------
    C2ST beside the published figures, and the costs and finer scores of every run; C2ST by evaluations; the methods
    compared; the errors of other questions; the speed of devices; costs by size: each where there are rows of it.
    """
    runs = [row for row in rows if "attention" in row and row.get("c2st_rf") is not None]
    parts = []
    if runs:
        cells = _by_variant(runs)
        scores = [_scores(cells, tasks) for tasks in (POSTERIORS, CONDITIONALS) if {r["task"] for r in runs} & {*tasks}]
        parts += ["### C2ST", *scores, f"Published: {SOURCE}, from simulations alone."]
        parts += ["### Every run", _table(_RUN, runs)]
    sampled = [row for row in rows if "sampler" in row]
    parts += ["### Evaluations", _samplers(sampled)] if sampled else []
    for title, columns, key in _TABLES:
        chosen = [row for row in rows if key in row]
        parts += [f"### {title}", _table(columns, chosen)] if chosen else []
    return "\n\n".join(parts) + "\n"


def variant(row: Row) -> str:
    """What a run changed of the defaults, in words."""
    parts = [] if row["attention"] == "moral" else [row["attention"]]
    parts += [] if row["process"] == "edm" else [row["process"].upper()]
    parts += ["model's gradient"] if row["model_gradient"] else ["simulations only"]
    overrides = {name: value for name, value in row["overrides"].items() if name != "use_density"}
    parts += [f"{name} {value}" for name, value in overrides.items()]
    parts += [] if row["budget"] is None else [f"{row['budget']:.0f} s"]
    parts += [] if row["question_seed"] is None else [f"observations of seed {row['question_seed']}"]
    default = PROCESSES[row["process"]].default_steps
    parts += [] if row["evaluations"] == default else [f"{row['evaluations']} evaluations"]
    return ", ".join(["simformer_ppl", *parts])


def _by_variant(rows: Sequence[Row]) -> dict[str, dict[tuple[str, int], list[float]]]:
    cells: dict[str, dict[tuple[str, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    latest = {(variant(row), row["task"], row["simulations"], row["seed"]): row["c2st_rf"] for row in rows}
    for (name, task, simulations, _), score in latest.items():
        cells[name][task, simulations].append(score)
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


def _samplers(rows: Sequence[Row]) -> str:
    """C2ST by sampler and evaluations, a table for each training run."""
    tables = []
    for task, simulations, seed in dict.fromkeys((r["task"], r["simulations"], r["seed"]) for r in rows):
        chosen = [r for r in rows if (r["task"], r["simulations"], r["seed"]) == (task, simulations, seed)]
        counts = sorted({row["evaluations"] for row in chosen})
        head = f"{task}, {simulations:,} simulations, seed {seed}: C2ST at 5,000 a side by evaluations"
        lines = [f"| {head} | {' | '.join(map(str, counts))} |", "|---" * (len(counts) + 1) + "|"]
        for sampler in dict.fromkeys(row["sampler"] for row in chosen):
            scores = {row["evaluations"]: row["c2st_rf_5000"] for row in chosen if row["sampler"] == sampler}
            cells = [_figure(scores[count]) if count in scores else "–" for count in counts]
            lines.append(f"| {sampler} | {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _optional(name: str, form: Callable[[Any], str] = str) -> Callable[[Row], str]:
    return lambda row: form(row[name]) if name in row else ""


_RUN: dict[str, Callable[[Row], str]] = {
    "task": lambda r: r["task"],
    "simulations": lambda r: f"{r['simulations']:,}",
    "seed": lambda r: str(r["seed"]),
    "variant": lambda r: variant(r).removeprefix("simformer_ppl").removeprefix(", ") or "default",
    "RF": lambda r: _figure(r["c2st_rf"]),
    "MLP (10 questions)": lambda r: _figure(r["c2st_mlp"]),
    "RF, 5,000 a side": _optional("c2st_rf_5000", _figure),
    "RF, posteriors": _optional("c2st_rf_posterior", _figure),
    "radius sd": _optional("radius_sd", lambda sd: f"{sd:.4f}"),
    "train s": _optional("train_seconds", lambda seconds: f"{seconds:.0f}"),
    "steps": lambda r: f"{r['train_steps']:,}",
    "10,000 draws s, cold": _optional("sample_seconds_cold", lambda seconds: f"{seconds:.1f}"),
    "warm": _optional("sample_seconds_warm", lambda seconds: f"{seconds:.1f}"),
    "evaluations": lambda r: str(r["evaluations"]),
    "parameters": lambda r: f"{r['parameters']:,}",
    "peak MiB": lambda r: f"{r['peak_rss_mib']:,}",
    "device": lambda r: r["device"] + (f"; asked on {r['asked_on']}" if "asked_on" in r else ""),
}
_COMPARED: dict[str, Callable[[Row], str]] = {
    "task": lambda r: r["task"],
    "simulations": lambda r: f"{r['simulations']:,}",
    "method": lambda r: r["method"],
    "RF": lambda r: _figure(r["c2st_rf"]),
    "MLP": lambda r: _figure(r["c2st_mlp"]),
    "train s": lambda r: f"{r['train_seconds']:.0f}",
    "steps": lambda r: (
        f"{r['train_steps']:,}" + (f" of {r['train_steps_by_default']:,}" if "train_steps_by_default" in r else "")
    ),
    "10,000 draws s": lambda r: f"{r['sample_seconds_warm']:.2f}",
    "versions": _optional("versions", lambda versions: ", ".join(f"{n} {v}" for n, v in versions.items())),
    "device": lambda r: r["device"],
}
_ASKED: dict[str, Callable[[Row], str]] = {
    "asked": lambda r: r["asked"],
    "of": lambda r: r["model"],
    "case": lambda r: r["case"],
    "route": _optional("route"),
    "mean error": _optional("mean_error"),
    "worst": _optional("worst_mean_error"),
    "sd error": _optional("sd_error"),
    "RF": _optional("c2st_rf", _figure),
    "inside": _optional("inside", "{:.2%}".format),
    "k-hat": _optional("pareto_k", "{:.2f}".format),
    "p-values": _optional("p_values", lambda values: ", ".join(f"{n} {p:.3f}" for n, p in values.items())),
    "s": _optional("seconds"),
    "device": lambda r: r["device"],
}
_SPEED: dict[str, Callable[[Row], str]] = {
    "measured": lambda r: r["measured"],
    "network": _optional("network"),
    "task": _optional("task"),
    "sequences": _optional("sequences", "{:,}".format),
    "parameters": _optional("parameters", "{:,}".format),
    "ms a step": _optional("step_ms"),
    "GFLOP of products": _optional("products_gflop"),
    "share of the ceiling": _optional("share_of_ceiling", "{:.0%}".format),
    "GFLOP/s": _optional("gflops"),
    "seconds": _optional("seconds"),
    "device": lambda r: r["device"],
}
_COSTS: dict[str, Callable[[Row], str]] = {
    "model": lambda r: r["cost"],
    "points asked": _optional("points", "{:,}".format),
    "ms a step": _optional("step_ms"),
    "MiB after training": _optional("training_mib", "{:,}".format),
    "seconds for a hundred draws": _optional("seconds"),
    "MiB after draws": _optional("peak_mib", "{:,}".format),
    "device": lambda r: r["device"],
}

_TABLES = (
    ("Methods compared", _COMPARED, "method"),
    ("Questions", _ASKED, "asked"),
    ("Devices", _SPEED, "measured"),
    ("Costs", _COSTS, "cost"),
)
"""Title, columns, and the key that rows of it have."""


def _table(columns: dict[str, Callable[[Row], str]], rows: Sequence[Row]) -> str:
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(column(row) for column in columns.values())} |" for row in rows]
    return "\n".join(lines)
