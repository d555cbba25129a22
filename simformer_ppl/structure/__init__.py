"""A NumPyro model, read: its sites, its tokens, and which token's law reads which."""

from simformer_ppl.structure.model_structure import ModelStructure
from simformer_ppl.structure.read_model import trace_structure
from simformer_ppl.structure.sites import Deterministic, Site

__all__ = ["Deterministic", "ModelStructure", "Site", "trace_structure"]
