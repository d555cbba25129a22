"""The runner, its tables and its pictures, on runs too short to mean anything."""

import json

import numpy as np
import pytest

from simformer_ppl.benchmarks import __main__ as command_line
from simformer_ppl.benchmarks import asking
from simformer_ppl.benchmarks.figures import plot
from simformer_ppl.benchmarks.report import read, report

PROMISED = (
    "task simulations seed attention c2st_rf c2st_mlp c2st_rf_each c2st_mlp_each train_seconds train_steps "
    "sample_seconds_cold sample_seconds_warm evaluations parameters peak_rss_mib device versions"
)


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking, "DRAWS", 100)
        patch.setattr(asking, "MANY_DRAWS", 200)
        patch.setattr(asking, "TIMED_DRAWS", 200)
        patch.setattr(asking, "QUESTIONS", 3)
        patch.setattr(asking, "QUESTIONS_IN_DEPTH", 1)
        training = ["tree", "--simulations", "200", "--steps", "100", "--width", "16", "--depth", "1"]
        options = ["--corrected", "--save-draws", str(folder / "draws.npz")]
        lines = _printed(["run", *training, *options])
        (folder / "runs.jsonl").write_text(lines[0] + "\n")
        (folder / "corrected.jsonl").write_text(lines[1] + "\n")
        _printed(["train", *training, str(folder / "network")])
        (folder / "asked.jsonl").write_text(_printed(["ask", str(folder / "network")])[0] + "\n")
    return folder


def _printed(arguments):
    with pytest.MonkeyPatch.context() as stdout:
        lines = []
        stdout.setattr("builtins.print", lambda *a, **k: lines.append(a[0]) if "file" not in k else None)
        command_line.main(arguments)
    return lines


def test_training_and_asking_apart_give_what_one_run_gives(short_run):
    whole, halves = (json.loads((short_run / f"{name}.jsonl").read_text()) for name in ("runs", "asked"))
    measured = [name for name in whole if "seconds" in name or name == "peak_rss_mib"]
    assert whole.keys() == halves.keys() and whole["c2st_rf_each"]
    assert {n: v for n, v in whole.items() if n not in measured} == {
        n: v for n, v in halves.items() if n not in measured
    }


def test_a_run_says_all_that_is_promised(short_run):
    row = json.loads((short_run / "runs.jsonl").read_text())
    assert set(PROMISED.split()) <= row.keys()
    assert row["train_steps"] == 100
    assert row["c2st_rf"] == pytest.approx(np.mean(row["c2st_rf_each"]), abs=1e-4)
    assert len(row["c2st_rf_each"]) == 3
    assert len(row["c2st_mlp_each"]) == 1


def test_the_first_questions_are_scored_once_more_with_corrected_draws(short_run):
    row, corrected = (json.loads((short_run / f"{name}.jsonl").read_text()) for name in ("runs", "corrected"))
    assert corrected["overrides"] == row["overrides"] | {"draws": "corrected", "questions": 1}
    assert len(corrected["c2st_rf_each"]) == 1 and corrected["c2st_rf_each"] != row["c2st_rf_each"][:1]


def test_saved_draws_keep_what_is_given(short_run):
    saved = np.load(short_run / "draws.npz")
    assert saved["draws"].shape == saved["reference"].shape == (3, 100, 7)
    given = saved["given"]
    assert not given.all(1).any()
    for kind in ("draws", "reference"):
        assert (saved[kind].transpose(0, 2, 1)[given] == saved["observation"][given][:, None]).all()


def test_reports_and_pictures_hold_our_figures_and_the_published(short_run):
    rows = read([short_run / "runs.jsonl", short_run / "corrected.jsonl"])
    table = report(rows)
    assert f"{rows[0]['c2st_rf']:.3f}".removeprefix("0") in table
    assert f"draws corrected, questions 1 | {rows[1]['c2st_rf']:.3f}".replace("0.", ".") in table
    assert "| Simformer, moral mask, VE | .590 / .541 / .527 |" in table
    panels = [ax for ax in plot(rows).axes if ax.lines]
    assert [ax.get_title() for ax in panels] == ["tree"]
