"""Every model of the gallery is read, and nothing moves without an edge."""

import warnings

import pytest

from simformer_ppl.structure import trace_structure
from tests.structure.gallery import GALLERY, NOT_PROBED
from tests.structure.probing import probe


@pytest.mark.parametrize("name", GALLERY)
def test_nothing_moves_without_an_edge(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = trace_structure(GALLERY[name])
    assert structure.num_tokens
    if name not in NOT_PROBED:
        assert probe(GALLERY[name], structure).unsound == []


def test_only_what_cannot_be_traced_is_dense():
    dense = {name for name in GALLERY if "before it" in " ".join(_info(GALLERY[name]))}
    assert dense == {"branch_in_python"}


def _info(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return trace_structure(model).info
