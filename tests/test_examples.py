"""Examples run, and tutorials are what they say."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import jupytext
import matplotlib.pyplot as plt
import pytest
from numpyro.infer import MCMC

from simformer_ppl import Simformer

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
TUTORIALS = sorted(path.stem for path in (ROOT / "docs" / "tutorials").glob("*.ipynb"))
LONGEST = 30
"""Steps of training in a reduced setting."""
MOST = 2_000
"""Simulations in a reduced setting."""


@pytest.fixture
def forgotten():
    """Programs of one example serve no other, and those of all would exhaust the memory maps of a process."""
    yield
    jax.clear_caches()


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_has_the_cells_of_its_example(name):
    tutorial = json.loads((ROOT / "docs" / "tutorials" / f"{name}.ipynb").read_text())
    kept = [(cell["cell_type"], "".join(cell["source"])) for cell in tutorial["cells"]]
    assert kept == [(cell.cell_type, cell.source) for cell in jupytext.read(ROOT / "examples" / f"{name}.py").cells]
    run = [cell for cell in tutorial["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in run if cell["source"])
    assert not [output for cell in run for output in cell["outputs"] if output["output_type"] == "error"]


def test_an_example_becomes_a_notebook(tmp_path):
    target = tmp_path / "example.ipynb"
    source = ROOT / "examples" / "eight_schools.py"
    subprocess.run([sys.executable, "-m", "jupytext", "--to", "ipynb", source, "-o", target], check=True)
    assert [c["cell_type"] for c in json.loads(target.read_text())["cells"]][:2] == ["markdown", "code"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_in_a_reduced_setting(name, tmp_path, monkeypatch):
    fit, simulate = Simformer.fit, Simformer.simulate

    def fit_briefly(self, rng_key, num_simulations=MOST, *, num_steps=LONGEST, **options):
        return fit(self, rng_key, min(num_simulations, MOST), num_steps=min(num_steps, LONGEST), **options)

    def simulate_few(self, rng_key, num_simulations, **options):
        return simulate(self, rng_key, min(num_simulations, MOST), **options)

    def start_briefly(self, *arguments, **options):
        start(self, *arguments, **options | {"num_warmup": LONGEST, "num_samples": LONGEST})

    def calibrate_roughly(self, rng_key, *given, **options):
        return calibrate(self, rng_key, *given, **options | {"num_simulations": LONGEST})

    start, calibrate = MCMC.__init__, Simformer.calibrate
    monkeypatch.setattr(MCMC, "__init__", start_briefly)
    monkeypatch.setattr(Simformer, "calibrate", calibrate_roughly)
    monkeypatch.setattr(Simformer, "fit", fit_briefly)
    monkeypatch.setattr(Simformer, "simulate", simulate_few)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    plt.close("all")
    kept = ".nc" if name == "save_and_share" else ".png"
    # devices draws nothing
    assert name == "devices" or any(path.suffix == kept for path in (tmp_path / name).iterdir())
