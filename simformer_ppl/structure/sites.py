"""Sites of a model: what a token is a scalar of."""

from dataclasses import dataclass

import numpy as np
from numpyro.distributions import constraints


@dataclass(frozen=True)
class Site:
    """A sample or deterministic site whose scalars are tokens.

    Attributes
    ----------
    name
        As in the model.
    shape
        NumPyro shape of a value: batch, then event.
    support
        Constraint with concrete parameters that encloses every value. The exact one where it depends on nothing drawn.
    support_is_static
        False if the exact support depends on other sites: draws inside ``support`` may then still lie outside it.
    support_reads
        The sample sites that the exact support reads; ``"hidden noise"`` among them, if it reads noise that is no site.
    plates
        Enclosing plates, outermost first.
    dims
        A name per axis of `shape`: the plate on plate axes, ``{name}_dim_{i}`` on the others.
    is_data
        Whether the site is data rather than a parameter.
    is_discrete
        Whether the support is discrete.
    is_deterministic
        Whether it is a ``numpyro.deterministic`` site.
    num_categories
        Number of unordered categories of a categorical site, else 0.
    event_dim
        Number of event axes.
    dtype
        Of a value.
    distribution
        Name of the distribution, such as ``"Normal"``.
    token_shape
        Shape of the tokens: `shape` where the support acts per scalar, else that of the unconstrained value.
    token_slice
        Where the tokens stand among all tokens.
    is_elementwise
        Whether the support acts on each scalar by itself.
    is_covariate
        Whether it is an argument of the model that is drawn for training, and given in every question.
    is_embedded
        Whether a network reads its value as a whole into the tokens, so that it is given or left out, never asked for.
    """

    name: str
    shape: tuple[int, ...]
    support: constraints.Constraint
    support_is_static: bool
    support_reads: frozenset[str]
    plates: tuple[str, ...]
    dims: tuple[str, ...]
    is_data: bool
    is_discrete: bool
    is_deterministic: bool
    num_categories: int
    event_dim: int
    dtype: np.dtype
    distribution: str
    token_shape: tuple[int, ...]
    token_slice: slice
    is_elementwise: bool
    is_covariate: bool = False
    is_embedded: bool = False

    @property
    def num_tokens(self) -> int:
        """Number of tokens."""
        return self.token_slice.stop - self.token_slice.start

    @property
    def size(self) -> int:
        """Number of scalars of a value."""
        return int(np.prod(self.shape, dtype=int))

    @property
    def num_units(self) -> int:
        """Number of scalars, or of events where the scalars of one can only be given together."""
        return (
            self.size
            if self.is_elementwise
            else int(np.prod(self.shape[: len(self.shape) - self.event_dim], dtype=int))
        )

    @property
    def scalars_per_unit(self) -> int:
        """1, or the size of an event whose scalars can only be given together."""
        return self.size // max(self.num_units, 1)

    @property
    def tokens_per_unit(self) -> int:
        """Number of tokens that stand for such a unit."""
        return self.num_tokens // max(self.num_units, 1)

    def labels(self) -> list[str]:
        """A label per token, such as ``theta[3]``."""
        if not self.token_shape:
            return [self.name]
        return [f"{self.name}[{', '.join(map(str, index))}]" for index in np.ndindex(*self.token_shape)]


@dataclass(frozen=True)
class Deterministic:
    """A ``numpyro.deterministic`` site, token or not.

    Attributes
    ----------
    name, shape, dims
        As for a `Site`.
    reads
        Names of the sample sites that its value depends on, nuisances included.
    is_random
        Whether it depends on noise that is no site, such as ``numpyro.prng_key``.
    has_density
        Whether it is real and reads noise that is no token: of as many scalars, where they are sites, as it and the
        deterministic tokens that share this noise have together. The result of a simulator does.
    """

    name: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    reads: frozenset[str]
    is_random: bool
    has_density: bool
