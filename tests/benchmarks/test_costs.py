"""What costs are told of."""

import pytest

from simformer_ppl.benchmarks.costs import _of_tokens
from simformer_ppl.benchmarks.report import report


@pytest.mark.slow
def test_a_cost_has_seconds_and_memory_and_a_line_in_the_report():
    (row,) = _of_tokens(5)
    assert row["step_ms"] > 0 and row["seconds"] > 0
    assert row["peak_mib"] >= row["training_mib"] > 0
    assert f"| 5 tokens |  | {row['step_ms']} |" in report([row])
