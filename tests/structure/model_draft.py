"""What a random NumPyro model is written with: distributions whose parameters are random programs of earlier sites."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer.reparam import LocScaleReparam, TransformReparam

from tests.structure.draft import SCOPE, Draft
from tests.structure.random_operations import OPERATIONS

MODEL_SCOPE = {
    **SCOPE,
    "numpyro": numpyro,
    "dist": dist,
    "handlers": handlers,
    "scan": scan,
    "sample": numpyro.sample,
    "plate": numpyro.plate,
    "deterministic": numpyro.deterministic,
    "transforms": dist.transforms,
    "LocScaleReparam": LocScaleReparam,
    "TransformReparam": TransformReparam,
}
# they fix the width of a number, or are no functions of it that a density could be followed through
LEFT_OUT = {"bits", "fold_key", "key_data", "gamma_draw", "choice", "general_reduce", "permuted", "matrix_exponential"}
PARAMETERS = [name for name in OPERATIONS if name not in LEFT_OUT]


class ModelDraft(Draft):
    """A model that is being written, statement by statement."""

    def __init__(self, rng: np.random.Generator):
        super().__init__(rng, 0)
        self.structs: dict[str, Any] = {}
        self.code: list[str] = []
        self.num_sites = 0

    def emit(self, expression: str, kind: str) -> str | None:
        """Append an assignment, as for a program."""
        name = super().emit(expression, kind)
        if name is not None:
            self.code.append(f"{name} = {expression}")
        return name

    def state(self, code: str, *names: str) -> None:
        """Append a statement that samples sites, and take their values up as variables."""
        before = dict(self.structs)

        def run(*values):
            scope = {**MODEL_SCOPE, **dict(zip(before, values, strict=True))}
            with handlers.seed(rng_seed=0):
                exec(code, scope)
            return {name: scope[name] for name in names}

        self.structs |= jax.eval_shape(run, *before.values())
        self.code.append(code)

    def site(self) -> str:
        self.num_sites += 1
        return f"s{self.num_sites}"

    def real(self, shape: tuple[int, ...] = ()) -> str:
        """Real numbers of a shape, between -2 and 2."""
        how = self.rng.uniform()
        if how < 0.1:
            return self.array(shape, 0.2)
        if how < 0.2:
            return f"jnp.full({shape}, jnp.tanh(jnp.sum({self.floats(1)})))"
        source = self.floats()
        if how < 0.7:
            kind = self.choose(PARAMETERS)
            source = self.emit(OPERATIONS[kind](self), kind) or source
        if how < 0.4 and shape == self.shape(source):
            return f"2 * jnp.tanh({source})"
        return f"2 * jnp.tanh(cycled({source} * 1.0, {shape}))"

    def above_zero(self, shape: tuple[int, ...] = ()) -> str:
        return self.choose(["0.8", f"(0.4 + jnp.exp(0.5 * {self.real(shape)}))", f"(0.5 + jnp.abs({self.real()}))"])

    def unit(self, shape: tuple[int, ...] = ()) -> str:
        return self.choose(["0.4", f"jax.nn.sigmoid({self.real(shape)})"])

    def simplex(self, n: int) -> str:
        return f"jax.nn.softmax({self.real((n,))})"


SCALARS: dict[str, Callable[[ModelDraft, tuple[int, ...]], str]] = {
    "Normal": lambda d, s: f"dist.Normal({d.real(s)}, {d.above_zero(s)})",
    "LogNormal": lambda d, s: f"dist.LogNormal(0.3 * {d.real(s)}, 0.5)",
    "Gamma": lambda d, s: f"dist.Gamma({d.above_zero(s)}, {d.above_zero(s)})",
    "InverseGamma": lambda d, s: f"dist.InverseGamma(2 + {d.above_zero(s)}, {d.above_zero(s)})",
    "Beta": lambda d, s: f"dist.Beta({d.above_zero(s)}, {d.above_zero(s)})",
    "HalfNormal": lambda d, s: f"dist.HalfNormal({d.above_zero(s)})",
    "HalfCauchy": lambda d, s: f"dist.HalfCauchy({d.above_zero(s)})",
    "Exponential": lambda d, s: f"dist.Exponential({d.above_zero(s)})",
    "StudentT": lambda d, s: f"dist.StudentT(3 + {d.above_zero(s)}, {d.real(s)}, {d.above_zero(s)})",
    "Laplace": lambda d, s: f"dist.Laplace({d.real(s)}, {d.above_zero(s)})",
    "Gumbel": lambda d, s: f"dist.Gumbel({d.real(s)}, {d.above_zero(s)})",
    "Weibull": lambda d, s: f"dist.Weibull({d.above_zero(s)}, 1 + {d.above_zero(s)})",
    "VonMises": lambda d, s: f"dist.VonMises({d.real(s)}, {d.above_zero(s)})",
    "Uniform": lambda d, s: f"dist.Uniform(-{d.above_zero(s)}, {d.above_zero(s)})",
    "Pareto": lambda d, s: f"dist.Pareto({d.above_zero(s)}, 3.0)",
    "TruncatedNormal": lambda d, s: f"dist.TruncatedNormal({d.real(s)}, {d.above_zero(s)}, low={d.real(s)})",
    "TwoSided": lambda d, s: f"dist.TruncatedNormal({d.real(s)}, 1.0, low=-{d.above_zero(s)}, high={d.above_zero(s)})",
    "TruncatedCauchy": lambda d, s: f"dist.TruncatedCauchy({d.real(s)}, 1.0, high={d.real(s)})",
    "Poisson": lambda d, s: f"dist.Poisson({d.above_zero(s)})",
    "Bernoulli": lambda d, s: f"dist.Bernoulli({d.choose(['probs=' + d.unit(s), 'logits=' + d.real(s)])})",
    "Binomial": lambda d, s: (
        f"dist.Binomial({d.integer(1, 5)}, {d.choose(['probs=' + d.unit(s), 'logits=' + d.real(s)])})"
    ),
    "Geometric": lambda d, s: f"dist.Geometric(0.2 + 0.7 * {d.unit(s)})",
    "NegativeBinomial2": lambda d, s: f"dist.NegativeBinomial2({d.above_zero(s)}, {d.above_zero(s)})",
    "BetaBinomial": lambda d, s: f"dist.BetaBinomial({d.above_zero(s)}, {d.above_zero(s)}, 4)",
    "Categorical": lambda d, s: f"dist.Categorical(logits={d.real((*s, 3))})",
    "CategoricalProbs": lambda d, s: f"dist.Categorical({d.simplex(3)})",
    "OrderedLogistic": lambda d, s: f"dist.OrderedLogistic({d.real(s)}, jnp.array([-1.0, 0.0, 1.5]))",
    "MovingCuts": lambda d, s: f"dist.OrderedLogistic({d.real(s)}, jnp.sort({d.real((3,))}))",
    "ZeroInflated": lambda d, s: f"dist.ZeroInflatedPoisson({d.unit(s)}, {d.above_zero(s)})",
    "Mixture": lambda d, s: (
        f"dist.MixtureSameFamily(dist.Categorical({d.simplex(2)}), dist.Normal({d.real((*s, 2))}, {d.above_zero()}))"
    ),
    "MixtureGeneral": lambda d, s: (
        f"dist.MixtureGeneral(dist.Categorical({d.simplex(2)}), "
        f"[dist.Normal({d.real(s)}, 1.0), dist.Cauchy({d.real(s)}, 1.0)])"
    ),
    "Exp": lambda d, s: (
        f"dist.TransformedDistribution(dist.Normal(0.3 * {d.real(s)}, 0.5), "
        f"[transforms.AffineTransform({d.real(s)} * 0.3, {d.above_zero(s)}), transforms.ExpTransform()])"
    ),
    "Affine": lambda d, s: (
        f"dist.TransformedDistribution(dist.Beta(2.0, {d.above_zero(s)}), "
        f"transforms.AffineTransform({d.real(s)}, {d.above_zero(s)}))"
    ),
    "Delta": lambda d, s: f"dist.Delta({d.real(s)})",
    "Masked": lambda d, s: (
        f"dist.Normal({d.real(s)}, {d.above_zero(s)}).mask({d.choose([d.mask(s), d.real() + ' > 0'])})"
    ),
    "Folded": lambda d, s: f"dist.FoldedDistribution(dist.Normal({d.real(s)}, {d.above_zero(s)}))",
    "Kumaraswamy": lambda d, s: f"dist.Kumaraswamy({d.above_zero(s)}, {d.above_zero(s)})",
}

EVENTS: dict[str, Callable[[ModelDraft, int], str]] = {
    "Dirichlet": lambda d, n: f"dist.Dirichlet(jnp.ones({n}) * {d.above_zero((n,))})",
    "Multinomial": lambda d, n: f"dist.Multinomial(4, {d.simplex(n)})",
    "Covariance": lambda d, n: f"dist.MultivariateNormal({d.real((n,))}, {d.positive(n)})",
    "ScaleTril": lambda d, n: f"dist.MultivariateNormal({d.real((n,))}, scale_tril={d.lower(n)})",
    "Precision": lambda d, n: f"dist.MultivariateNormal({d.real((n,))}, precision_matrix={d.positive(n)})",
    "Batch": lambda d, n: f"dist.MultivariateNormal({d.real((2, n))}, scale_tril={d.lower(n)})",
    "LowRank": lambda d, n: (
        f"dist.LowRankMultivariateNormal({d.real((n,))}, {d.real((n, 1))} * {d.array((n, 1))}, "
        f"jnp.ones({n}) * {d.above_zero((n,))})"
    ),
    "LKJ": lambda d, n: f"dist.LKJCholesky({min(n, 3)}, {d.above_zero()})",
    "Walk": lambda d, n: f"dist.GaussianRandomWalk({d.above_zero()}, {n})",
    "Walks": lambda d, n: f"dist.GaussianRandomWalk({d.above_zero((2,))}, {n})",
    "Independent": lambda d, n: SCALARS[d.choose(SCALARS)](d, (n,)) + f".expand([{n}]).to_event(1)",
    "IndependentRows": lambda d, n: f"dist.Normal({d.real((2, n))}, {d.above_zero((n,))}).to_event({d.integer(1, 2)})",
    "LowerCholesky": lambda d, n: (
        f"dist.TransformedDistribution(dist.Normal(0, {d.above_zero((n,))}).expand([{n}]).to_event(1), "
        f"transforms.LowerCholeskyAffine({d.real((n,))}, {d.lower(n)}))"
    ),
    "LogGaussian": lambda d, n: (
        f"dist.TransformedDistribution(dist.MultivariateNormal({d.real((n,))}, "
        f"{d.positive(n)}), transforms.ExpTransform())"
    ),
    "Permuted": lambda d, n: (
        f"dist.TransformedDistribution(dist.Normal({d.real((n,))}, 1.0).to_event(1), "
        f"transforms.PermuteTransform(jnp.array({d.rng.permutation(n).tolist()})))"
    ),
    "Student": lambda d, n: f"dist.MultivariateStudentT(4 + {d.above_zero()}, {d.real((n,))}, {d.lower(n)})",
    "ZeroSum": lambda d, n: f"dist.ZeroSumNormal({d.above_zero()}, ({n},))",
    "Mixture": lambda d, n: (
        f"dist.MixtureSameFamily(dist.Categorical({d.simplex(2)}), dist.Normal({d.real((2, n))}, 1.0).to_event(1))"
    ),
    "Euler": lambda d, n: (
        f"dist.EulerMaruyama(jnp.linspace(0.0, 1.0, {n}), lambda u, "
        f"t: ({d.real()} - u, {d.above_zero()}), dist.Normal(0, 1))"
    ),
    "Delta": lambda d, n: f"dist.Delta({d.real((n,))}, event_dim=1)",
}

STATEMENTS: dict[str, Callable[[ModelDraft], None]] = {}


def statement(function):
    STATEMENTS[function.__name__] = function
    return function


def _scalar(d, shape):
    return SCALARS[d.choose(SCALARS)](d, shape)


def _with_float(d, name):
    """A discrete value takes part in what follows as a number, and as an index."""
    d.emit(f"{name} * 0.5", "float") if not np.issubdtype(d.structs[name].dtype, np.floating) else None


@statement
def scalar_site(d):
    name = d.site()
    d.state(f'{name} = sample("{name}", {_scalar(d, ())})', name)
    _with_float(d, name)


@statement
def batch_site(d):
    name, n = d.site(), d.integer(2, 4)
    d.state(f'{name} = sample("{name}", {_scalar(d, (n,))}.expand([{n}]))', name)
    _with_float(d, name)


@statement
def event_site(d):
    name, n = d.site(), d.integer(2, 4)
    d.state(f'{name} = sample("{name}", {EVENTS[d.choose(EVENTS)](d, n)})', name)
    _with_float(d, name)


@statement
def deterministic_site(d):
    name = d.site()
    kind = d.choose(PARAMETERS)
    value = d.emit(OPERATIONS[kind](d), kind) or d.floats()
    d.state(f'{name} = deterministic("{name}", {value} * 1.0)', name)


@statement
def single_plate(d):
    name, other, n = d.site(), d.site(), d.integer(2, 4)
    first, second = _scalar(d, (n,)), _scalar(d, (n,))
    second = d.choose([second, f"dist.Normal({name} * 1.0, {d.above_zero((n,))})"])
    d.state(
        f'with plate("p_{name}", {n}):\n    {name} = sample("{name}", '
        f'{first})\n    {other} = sample("{other}", {second})',
        name,
        other,
    )
    _with_float(d, name)
    _with_float(d, other)


@statement
def event_plate(d):
    name, n = d.site(), d.integer(2, 3)
    event = EVENTS[d.choose(["Covariance", "ScaleTril", "Dirichlet", "Walk", "Student", "LowerCholesky"])](d, n)
    d.state(f'with plate("p_{name}", 2):\n    {name} = sample("{name}", {event})', name)


@statement
def nested_plates(d):
    name, other, n, m = d.site(), d.site(), d.integer(2, 3), 2
    inner = d.choose([_scalar(d, (n, m)), f"dist.Normal({name} * 1.0, {d.above_zero((m,))})"])
    d.state(
        f'with plate("p_{name}", {n}, dim=-2):\n    {name} = sample("{name}", {_scalar(d, (n, 1))})\n'
        f'    with plate("q_{name}", {m}, dim=-1):\n        {other} = sample("{other}", {inner})',
        name,
        other,
    )
    _with_float(d, other)


@statement
def crossed_plates(d):
    rows, columns, cells = d.site(), d.site(), d.site()
    d.state(
        f'p, q = plate("p_{rows}", 2, dim=-2), plate("q_{rows}", 3, dim=-1)\n'
        f'with p:\n    {rows} = sample("{rows}", dist.Normal({d.real()}, {d.above_zero((2, 1))}))\n'
        f'with q:\n    {columns} = sample("{columns}", dist.Normal({d.real((3,))}, 1.0))\n'
        f'with p, q:\n    {cells} = sample("{cells}", dist.Normal({rows} '
        f"{d.choose('+*')} {columns}, {d.above_zero((3,))}))",
        rows,
        columns,
        cells,
    )


@statement
def indexed_by_latent(d):
    which, name, n = d.site(), d.site(), d.integer(2, 4)
    table = d.vector(3)
    d.state(
        f'with plate("p_{name}", {n}):\n    {which} = sample("{which}", dist.Categorical({d.simplex(3)}))\n'
        f'    {name} = sample("{name}", dist.Normal({table}[{which}], {d.choose(["1.0", f"0.5 + {which}"])}))',
        which,
        name,
    )


@statement
def scanned(d):
    state, seen, length = d.site(), d.site(), d.integer(2, 4)
    mean = d.choose(["c", "0.5 * c + u", f"c * jnp.tanh({d.floats(1)}[0])", f"c + jnp.tanh({d.vector(length)})[0] * u"])
    inner = d.choose([f"{state} ** 2 * 0.3", f"{state} + c", "u", f"jnp.where({state} > 0, c, 0.0)"])
    after = d.choose([state, f"{state} + 0.3 * {seen}", f"0.5 * c + {state}", "u"])
    scale = d.above_zero()
    d.state(
        f"def step(c, u):\n"
        f'    {state} = sample("{state}", dist.Normal({mean}, {scale}))\n'
        f'    {seen} = sample("{seen}", '
        f"{d.choose([f'dist.Normal({inner}, 1.0)', f'dist.StudentT(4.0, {inner}, {scale})'])})\n"
        f"    return {after} * 1.0, {state}\n"
        f"_, {state} = scan(step, {d.choose(['0.0', d.real()])}, jnp.tanh({d.vector(length)}), length={length})",
        state,
    )


@statement
def masked(d):
    name, n = d.site(), d.integer(2, 4)
    mask = d.choose([d.mask((n,)), f"{d.real((n,))} > 0", "False"])
    d.state(f'with handlers.mask(mask={mask}):\n    {name} = sample("{name}", {_scalar(d, (n,))}.expand([{n}]))', name)
    _with_float(d, name)


@statement
def scaled(d):
    name, n = d.site(), d.integer(2, 4)
    d.state(
        f'with handlers.scale(scale=2.0), plate("p_{name}", {n}):\n    {name} = sample("{name}", {_scalar(d, (n,))})',
        name,
    )
    _with_float(d, name)


@statement
def reparametrised(d):
    name, n = d.site(), d.integer(2, 3)
    how, law = d.choose(
        [
            (f"LocScaleReparam({d.choose(['0.0', '0.5'])})", f"dist.Normal({d.real((n,))}, {d.above_zero((n,))})"),
            (
                "TransformReparam()",
                "dist.TransformedDistribution(dist.Normal(0.0, 1.0), "
                f"transforms.AffineTransform({d.real((n,))}, {d.above_zero((n,))}))",
            ),
        ]
    )
    d.state(
        f'with handlers.reparam(config={{"{name}": {how}}}), '
        f'plate("p_{name}", {n}):\n    {name} = sample("{name}", {law})',
        name,
    )


def written(seed: int, size: int) -> list[str]:
    """The statements of the model of a seed."""
    draft = ModelDraft(np.random.default_rng(seed))
    prior = draft.choose(
        [
            "dist.Normal(0.0, 1.0).expand([{n}]).to_event(1)",
            "dist.LogNormal(0.0, 0.3).expand([{n}])",
            "dist.Uniform(-1.0, 2.0).expand([{n}]).to_event(1)",
        ]
    ).format(n=draft.integer(2, 4))
    draft.state(f'x = sample("x", {prior})', "x")
    for _ in range(size):
        STATEMENTS[draft.choose(STATEMENTS)](draft)
    return used(draft.code)


def used(code: list[str]) -> list[str]:
    """The statements, without assignments of what no later statement mentions."""
    kept: list[str] = []
    for statement in reversed(code):
        name = re.match(r"(v\d+) = ", statement)
        if name is None or any(re.search(rf"\b{name[1]}\b", later) for later in kept):
            kept.append(statement)
    return kept[::-1]
