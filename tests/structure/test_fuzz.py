"""What moves in a random program or model is read: a few of each; many more by ``python -m tests.structure.fuzz``."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.structure.random_models import check_model, models, random_model, with_some_sites
from tests.structure.random_programs import check, programs, random_program

# (seed, size) of what once moved without being read, or could not be read at all; a seed stands for its program as long
# as the operations that it is written with do
REGRESSIONS: dict[str, list[tuple[int, int]]] = {
    "programs": [(33, 8), (1009, 6), (1201, 8), (70772, 6), (71159, 2)],
    "models": [(10247, 5), (10252, 5)],
}
FEW = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}


@settings(max_examples=25, **FEW)
@given(programs(largest=6))
def test_what_moves_in_a_program_is_read(program):
    assert not check(program).unsound, program


@settings(max_examples=8, **FEW)
@given(programs(largest=4))
def test_what_moves_in_a_program_with_known_inputs_is_read(program):
    assert not check(program, known=np.arange(program.num_inputs) % 2 == 0).unsound, program


@settings(max_examples=4, **FEW)
@given(models(largest=3))
def test_what_moves_in_a_model_has_an_edge(model):
    assert not check_model(model).unsound, model


@settings(max_examples=2, **FEW)
@given(models(largest=3))
def test_what_moves_in_a_model_without_some_sites_has_an_edge(model):
    model = with_some_sites(model, 0)
    assert not check_model(model).unsound, model


@pytest.mark.parametrize(("seed", "size"), REGRESSIONS["programs"])
def test_programs_that_once_failed(seed, size):
    program = random_program(seed, size)
    assert not check(program).unsound
    assert not check(program, known=np.ones(program.num_inputs, bool)).unsound


@pytest.mark.parametrize(("seed", "size"), REGRESSIONS["models"])
def test_models_that_once_failed(seed, size):
    findings = check_model(random_model(seed, size))
    assert not findings.unsound
    assert findings.joint == "yes"  # the probes in double precision ran
