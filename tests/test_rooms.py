"""Every room imports only from rooms before it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "simformer_ppl"
ROOMS = ["structure", "tokens", "network", "diffusion", "training", "diagnostics"]


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [node.module] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for module in modules:
            parts = (module or "").split(".")
            if parts[0] == "simformer_ppl" and parts[1:] and parts[1] in ROOMS:
                yield parts[1]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_knows_nothing_of_later_ones(room):
    files = list((PACKAGE / room).rglob("*.py"))
    assert files
    later = {*ROOMS[ROOMS.index(room) + 1 :]}
    assert not {f"{path.name} imports {other}" for path in files for other in imported_rooms(path) if other in later}


def test_structure_and_diffusion_know_little():
    assert {other for path in (PACKAGE / "structure").rglob("*.py") for other in imported_rooms(path)} == {"structure"}
    diffusion = {other for path in (PACKAGE / "diffusion").rglob("*.py") for other in imported_rooms(path)}
    assert "structure" not in diffusion
