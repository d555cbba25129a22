"""The Simformer as Flax NNX modules."""

from simformer_ppl.network.embedding import TokenIndex
from simformer_ppl.network.transformer import NetworkConfig, Simformer

__all__ = ["NetworkConfig", "Simformer", "TokenIndex"]
