"""Pictures of what was measured: C2ST against simulations, and against network evaluations."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simformer_ppl.benchmarks.published import (
    CONDITIONALS,
    EVALUATIONS,
    EVALUATIONS_SOURCE,
    POSTERIORS,
    PUBLISHED,
    SIMULATIONS,
)
from simformer_ppl.benchmarks.report import Row, variant

_GREYS = ("0.35", "0.5", "0.6", "0.7", "0.8", "0.45")
_MARKERS = ("s", "^", "v", "D", "P", "X")


def plot(rows: Sequence[Row]) -> Figure:
    """Draw C2ST against simulations, a panel for each task, and against evaluations, where they were varied.

    Parameters
    ----------
    rows
        From ``run`` and from ``samplers``; others are left out.

    Raises
    ------
    ValueError
        If there is none of either.
    """
    runs = [row for row in rows if "attention" in row and row.get("c2st_rf") is not None]
    sampled = [row for row in rows if "sampler" in row]
    if not runs and not sampled:
        raise ValueError("Expected rows of `run` or of `samplers`, got none.")
    tasks = [task for task in (*POSTERIORS, *CONDITIONALS) if any(r["task"] == task for r in runs)]
    varied = sorted({row["task"] for row in sampled})
    panels = len(tasks) + len(varied)
    columns = min(4, panels)
    figure, axes = plt.subplots(
        -(-panels // columns), columns, figsize=(4.2 * columns, 3.6 * -(-panels // columns)), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax in axes.flat[panels:]:
        ax.axis("off")
    colours = {name: f"C{number % 10}" for number, name in enumerate(dict.fromkeys(map(variant, runs)))}
    for ax, task in zip(axes.flat, tasks, strict=False):
        _against_simulations(ax, [row for row in runs if row["task"] == task], task, colours)
    for ax, task in zip(axes.flat[len(tasks) :], varied, strict=False):
        _against_evaluations(ax, [row for row in sampled if row["task"] == task], task)
    for ax in axes.flat[:panels]:
        ax.axhline(0.5, color="0.8", lw=1, zorder=0)
        ax.spines[["top", "right"]].set_visible(False)
    handles = {label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _against_simulations(ax: Axes, rows: Sequence[Row], task: str, colours: Mapping[str, str]) -> None:
    for published, grey, marker in zip(PUBLISHED, _GREYS, _MARKERS, strict=True):
        if task in published.c2st:
            ax.plot(SIMULATIONS, published.c2st[task], marker, ls="-", color=grey, ms=4, lw=1, label=published.method)
    scores: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        scores[variant(row)][row["simulations"]].append(row["c2st_rf"])
    for name, by_count in scores.items():
        counts = sorted(by_count)
        ax.plot(
            counts, [np.mean(by_count[count]) for count in counts], "o-", color=colours[name], ms=6, lw=2, label=name
        )
    ax.set(xscale="log", xlabel="simulations", ylabel="C2ST (random forest)", title=task)


def _against_evaluations(ax: Axes, rows: Sequence[Row], task: str) -> None:
    if task == "two_moons":
        ax.plot(
            list(EVALUATIONS), list(EVALUATIONS.values()), "s-", color=_GREYS[0], ms=4, lw=1, label=EVALUATIONS_SOURCE
        )
    curves: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    for row in rows:
        run = f"{row['sampler']}, {row['simulations']:,} simulations, seed {row['seed']}"
        curves[run].append((row["evaluations"], row["c2st_rf"]))
    for name, points in curves.items():
        ax.plot(*zip(*sorted(points), strict=True), "o-", ms=5, lw=1.5, label=name)
    ax.set(xscale="log", xlabel="network evaluations a draw", ylabel="C2ST (random forest)", title=task)
