"""Sequences of tokens: all of a model's, or, where sites are functions, those of some points."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from simformer_ppl.compilation import COMPILED_QUICKLY
from simformer_ppl.diffusion.process import Process
from simformer_ppl.joint import LearnedJoint
from simformer_ppl.network import Embedding, NetworkConfig, Simformer, StaticArray, TokenIndex
from simformer_ppl.structure import ModelStructure
from simformer_ppl.structure.attention_masks import token_relations
from simformer_ppl.structure.collapse import KindGraph, joined_by_points
from simformer_ppl.tokens.attention import Attention, AttentionFunction, attention_function
from simformer_ppl.tokens.functions import Functions
from simformer_ppl.tokens.layout import TokenLayout
from simformer_ppl.tokens.sharing import same_element
from simformer_ppl.tokens.standardisation import Standardisation, fit_standardisation


@dataclass(frozen=True, eq=False)
class Sequence:
    """A sequence of tokens, and the network for it.

    Attributes
    ----------
    layout
        Where sites live.
    index
        Which channels, tokens and groups belong together.
    config
        Size of the network.
    relations
        Kinds of pairs of tokens, if the network is to know of them.
    attention
        Mask of every example.
    first_channels
        Of every channel, its place among the channels of all tokens; of a point, the first place along its function.
    strides
        Channels from one place of the function to the next; 0 elsewhere.
    slots
        Which of its function's points a channel belongs to; 0 elsewhere.
    points
        Number of points of every function.
    embeddings
        Networks that read sites as a whole.
    elements
        Of plates that vary in size: which one each token lies in, -1 elsewhere.
    """

    layout: TokenLayout
    index: TokenIndex
    config: NetworkConfig
    relations: Bool[np.ndarray, "kinds tokens tokens"] | None
    attention: AttentionFunction
    first_channels: Int[np.ndarray, " channels"]
    strides: Int[np.ndarray, " channels"]
    slots: Int[np.ndarray, " channels"]
    points: Mapping[str, int]
    embeddings: Mapping[str, Embedding]
    elements: Int[np.ndarray, "plates tokens"]

    def network(self, rng_key: PRNGKeyArray) -> Simformer:
        """A network of random weights."""
        slices = {name: self.layout.sites[name].token_slice for name in self.embeddings}
        read = {name: (embedding, slices[name]) for name, embedding in self.embeddings.items()}
        rngs = nnx.Rngs(rng_key)
        return Simformer(self.index, self.config, relations=self.relations, embeddings=read, rngs=rngs)

    @cached_property
    def graph(self) -> nnx.GraphDef:
        """Static part of the network."""
        return nnx.graphdef(nnx.eval_shape(self.network, jax.random.key(0)))

    @cached_property
    def is_point(self) -> Bool[np.ndarray, " tokens"]:
        """Tokens that are points of functions."""
        return np.isin(np.arange(len(self.layout.group_of_token)), self.index.functions)

    def channels_at(
        self, places: Mapping[str, Int[Array | np.ndarray, "*batch points"]]
    ) -> Int[Array, "*batch channels"]:
        """Channels, among those of all tokens, at places along the functions."""
        return self.first_channels + self.strides * self.along(places).astype(int)

    def along(self, values: Mapping[str, Shaped[Array | np.ndarray, "*batch points"]]) -> Array:
        """What is said of the points of functions, at every channel; 0 elsewhere."""
        leading = next((value.shape[:-1] for value in values.values()), ())
        kind = next((jnp.asarray(value).dtype for value in values.values()), np.dtype(np.float32))
        parts = []
        for name, part in self.layout.channel_slices.items():
            here = values.get(name)
            empty = jnp.zeros((*leading, part.stop - part.start), kind)
            parts.append(empty if here is None else jnp.asarray(here)[..., self.slots[part]])
        return jnp.concatenate(parts, -1)

    def along_tokens(self, values: Mapping[str, Shaped[Array | np.ndarray, "*batch points"]]) -> Array:
        """What is said of the points of functions, at every token; 0 elsewhere."""
        first = np.searchsorted(self.layout.token_of_channel, np.arange(len(self.layout.group_of_token)))
        return self.along(values)[..., first]


@dataclass(frozen=True, eq=False)
class Sequences:
    """What the sequences of a model are made from.

    Attributes
    ----------
    structure
        The model.
    layout
        Of all its tokens.
    attention
        Kind of mask.
    share_exchangeable
        Whether elements of a plate share weights.
    config
        Size of the network.
    functions
        Sites along continuous dims, if there are some.
    embeddings
        Networks that read sites as a whole.
    elements
        Of plates that vary in size: which one each token lies in, -1 elsewhere.
    alike
        Plates whose elements are alike; those of the structure by default.
    """

    structure: ModelStructure
    layout: TokenLayout
    attention: Attention
    share_exchangeable: bool
    config: NetworkConfig
    functions: Functions | None = None
    embeddings: Mapping[str, Embedding] = field(default_factory=dict)
    elements: Int[np.ndarray, "plates tokens"] | None = None
    alike: tuple[str, ...] | None = None
    _made: dict[tuple[int, ...], Sequence] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = isinstance(self.attention, str) and self.attention in ("moral", "dense", "directed")
        if self.functions is not None and not known:
            raise ValueError("attention: expected 'moral', 'dense' or 'directed' for a model with continuous dims.")

    @cached_property
    def training(self) -> Sequence:
        """The longest sequence that the network is trained on: of all tokens, or of as many points as training has."""
        return self.of({} if self.functions is None else self.functions.most_points)

    @property
    def trained_on(self) -> tuple[Sequence, ...]:
        """Sequences that training takes in turn: with few points of functions, which cost little, and with many."""
        if self.functions is None:
            return (self.training,)
        few = self.of(self.functions.few_points)
        return few, few, self.training

    def of(self, points: Mapping[str, int]) -> Sequence:
        """The sequence with so many points of every function."""
        names = () if self.functions is None else self.functions.axes
        key = tuple(points.get(name, 0) for name in names)
        if key not in self._made:
            self._made[key] = self._make(points)
        return self._made[key]

    def initial_joint(
        self, rng_key: PRNGKeyArray, channels: Float[np.ndarray, "simulations channels"], process: Process
    ) -> LearnedJoint:
        """The joint of all tokens before training: random weights that know the structure, standardised channels.

        Parameters
        ----------
        rng_key
            Of the weights.
        channels
            Simulations whose scale the standardisation takes.
        process
            Noise levels and preconditioning; where the model has functions, as it is for these.
        """
        network, layout = self.training.network, self.layout
        parameters = jax.jit(lambda key: nnx.state(network(key)), compiler_options=COMPILED_QUICKLY)(rng_key)
        may_warp, alike = ~(layout.is_one_hot | layout.is_bounded), layout.standardised_alike(channels)
        coarse = alike
        if self.functions is not None:
            process = process.for_functions()
            # points of a function are scaled place by place, and in between as their neighbours are
            points = self.functions.are_points(layout.sites)[layout.token_of_channel]
            coarse = _numbered(np.where(points, layout.group_of_channel + len(points), alike))
            place = self.functions.place_of_token(layout.sites)[layout.token_of_channel]
            _, own = np.unique(np.stack([layout.group_of_channel, place]), axis=1, return_inverse=True)
            alike = _numbered(np.where(points, own.ravel() + len(points), alike))
        standardisation = fit_standardisation(channels, may_warp, alike, coarse)
        return LearnedJoint(parameters, standardisation, self.training.graph, layout, self.training.attention, process)

    def resized_joint(self, joint: LearnedJoint, tokens: Int[np.ndarray, " tokens"]) -> LearnedJoint:
        """The joint of a model with plates of other sizes.

        Parameters
        ----------
        joint
            Of the old model.
        tokens
            For each token, one of the old model that shares its weights.
        """
        sequence, layout = self.training, self.layout
        first = np.searchsorted(layout.token_of_channel, layout.token_of_channel)
        within = np.arange(layout.num_channels) - first
        channels = np.searchsorted(joint.layout.token_of_channel, tokens)[layout.token_of_channel] + within
        standardisation = Standardisation(*(part[:, channels] for part in joint.standardisation))
        return LearnedJoint(
            joint.parameters, standardisation, sequence.graph, layout, sequence.attention, joint.process
        )

    def joint_at(self, joint: LearnedJoint, coordinates: Mapping[str, Float[np.ndarray, " points"]]) -> LearnedJoint:
        """The joint of a sequence with points at these coordinates.

        Parameters
        ----------
        joint
            Of all tokens, standardised where functions are simulated.
        coordinates
            Of the points of every function that is to have some.
        """
        functions = self.functions
        assert functions is not None
        sequence = self.of({name: len(own) for name, own in coordinates.items()})
        between = {name: functions.between(name, own) for name, own in coordinates.items()}
        lower = sequence.channels_at({name: place for name, (place, _) in between.items()})
        upper = sequence.channels_at({name: place + 1 for name, (place, _) in between.items()})
        share = sequence.along({name: part for name, (_, part) in between.items()})
        location, scale, warp = joint.standardisation
        mixed = lambda part: (1 - share) * part[:, lower] + share * part[:, upper]  # noqa: E731
        scaled = {name: functions.scale(name, own).astype(np.float32) for name, own in coordinates.items()}
        return replace(
            joint,
            standardisation=Standardisation(mixed(location), mixed(scale), warp[:, lower]),
            graph=sequence.graph,
            layout=sequence.layout,
            attention=sequence.attention,
            coordinates=sequence.along_tokens(scaled)[None],
        )

    def layout_of(self, points: Mapping[str, int]) -> TokenLayout:
        """Where the sites of a sequence live."""
        if self.functions is None:
            return self.layout
        sites = self.layout.sites
        return self.layout.at(self.functions.resize(sites, points), self.functions.places(sites, points)[0])

    @cached_property
    def _graphs(self) -> tuple[KindGraph, KindGraph, KindGraph]:
        """Edges of the model, its moral graph, and which tokens are of one element: whatever points are there."""
        structure, functions = self.structure, self.functions
        kinds, moral = np.arange(structure.num_tokens), structure.moral()
        if functions is not None:
            kinds = functions.places(self.layout.sites, functions.grid_sizes)[0]
            moral = joined_by_points(moral, functions.are_points(self.layout.sites))
        alike = structure.exchangeable + structure.constant_plates if self.alike is None else self.alike
        together = same_element(structure, set(alike) - set(() if functions is None else functions.grids))
        adjacency, neighbours, same = (KindGraph.of(g, kinds) for g in (structure.adjacency, moral, together))
        return adjacency, neighbours, same

    def _make(self, points: Mapping[str, int]) -> Sequence:
        layout, functions = self.layout_of(points), self.functions
        first = np.arange(self.structure.num_tokens)
        strides = slots = np.zeros(self.structure.num_tokens, int)
        is_point = np.zeros(len(first), bool)
        if functions is not None:
            is_point = functions.are_points(self.layout.sites)
            first, strides, slots = functions.places(self.layout.sites, points)
        of_channel = layout.token_of_channel
        within_token = np.arange(len(of_channel)) - np.searchsorted(of_channel, of_channel)
        first_channels = np.searchsorted(self.layout.token_of_channel, first)[of_channel] + within_token
        adjacency, neighbours, together = self._graphs
        kinds_of_points = np.isin(neighbours.kinds, np.flatnonzero(is_point))
        own = layout.network_channels
        index = TokenIndex(
            token_of_channel=tuple(of_channel[own].tolist()),
            group_of_token=tuple(layout.group_of_token.tolist()),
            group_of_channel=tuple(self.layout.group_of_channel[first_channels[own]].tolist()),
            own_vector_of_token=tuple(layout.own_vector_of_token.tolist()),
            constants=StaticArray.of(layout.constants.astype(np.float32)),
            functions=tuple(np.flatnonzero(is_point[first]).tolist()),
            has_functions=functions is not None,
            points_are_linked=bool(neighbours.edges[np.ix_(kinds_of_points, kinds_of_points)].any()),
        )
        moral, kind = neighbours.among(first), self.attention
        known = token_relations(adjacency.among(first), moral)
        relations = None
        if self.share_exchangeable:
            relations = np.concatenate([known, together.among(first)[None]])
        elif isinstance(kind, str) and kind in ("moral", "contextual"):
            relations = known
        contexts = self.structure.contexts if isinstance(kind, str) and kind == "contextual" else None
        attend = attention_function(kind, moral, layout, contexts)
        numbers = first_channels, strides[of_channel], slots[of_channel]
        elements = np.zeros((0, len(first)), int) if self.elements is None else self.elements[:, first]
        return Sequence(layout, index, self.config, relations, attend, *numbers, points, self.embeddings, elements)


def _numbered(groups: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    return np.unique(groups, return_inverse=True)[1].ravel()
