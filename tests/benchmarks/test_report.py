"""Tables are made of what was measured, and of nothing else."""

from pathlib import Path

from simformer_ppl.benchmarks.report import read, report

RESULTS = Path(__file__).parents[2] / "docs" / "benchmarks"


def test_the_tables_of_the_documentation_are_those_of_the_results():
    written = (RESULTS / "report.md").read_text()
    assert written == report(read(sorted(RESULTS.glob("*.jsonl"))))


def test_samplers_are_set_side_by_side_and_devices_listed():
    sampled = {"task": "two_moons", "simulations": 10_000, "seed": 0}
    rows = [sampled | {"sampler": s, "evaluations": n, "c2st_rf_5000": 0.5 + 1 / n} for s in "ab" for n in (8, 32)]
    table = report([*rows, {"measured": "ceiling", "gflops": 50.0, "device": "cpu, 1 core(s)"}])
    assert "| a | .625 | .531 |\n| b | .625 | .531 |" in table
    assert "| ceiling |" in table


def test_costs_by_points_and_by_tokens_are_in_one_table():
    cost = {"step_ms": 33.2, "training_mib": 1_219, "draws": 100, "seconds": 0.5, "peak_mib": 1_221, "device": "cpu"}
    table = report([{"cost": "grid of 25", "points": 1_600, **cost}, {"cost": "100 tokens", **cost}])
    assert "| grid of 25 | 1,600 | 33.2 | 1,219 | 0.5 | 1,221 | cpu |" in table
    assert "| 100 tokens |  | 33.2 | 1,219 | 0.5 | 1,221 | cpu |" in table
