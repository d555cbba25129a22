"""Every model of the gallery is read, and nothing moves without an edge."""

import warnings

import pytest

from simformer_ppl.structure import trace_structure
from tests.structure.gallery import GALLERY, NOT_PROBED
from tests.structure.probing import probe


def read(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return trace_structure(GALLERY[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(GALLERY) - NOT_PROBED))
def test_nothing_moves_without_an_edge(name):
    assert probe(GALLERY[name], read(name)).unsound == []


def test_only_what_cannot_be_traced_is_dense():
    dense = {name for name in GALLERY if "before it" in " ".join(read(name).info)}
    assert dense == {"branch_in_python"}
