"""Simulation-based inference for NumPyro models: one network, every conditional, as ArviZ InferenceData."""

from simformer_ppl.conditioned import ConditionedDistribution
from simformer_ppl.network import NetworkConfig
from simformer_ppl.simformer import Simformer
from simformer_ppl.structure import ModelStructure, Site, trace_structure
from simformer_ppl.tokens.intervals import above, below, between

__all__ = [
    "ConditionedDistribution",
    "ModelStructure",
    "NetworkConfig",
    "Simformer",
    "Site",
    "above",
    "below",
    "between",
    "trace_structure",
]
