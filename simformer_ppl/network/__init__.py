"""The Simformer as Flax NNX modules."""

from simformer_ppl.network.site_embedding import Embedding, read_embedding
from simformer_ppl.network.static_array import StaticArray
from simformer_ppl.network.token_vectors import TokenIndex
from simformer_ppl.network.transformer import NetworkConfig, Simformer

__all__ = ["Embedding", "NetworkConfig", "Simformer", "StaticArray", "TokenIndex", "read_embedding"]
