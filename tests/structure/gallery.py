"""Models of every kind that NumPyro users write; ``python -m tests.structure.gallery`` lists what is read of them.

The list shows tokens, edges, edges that a numerical probe needed, edges it missed (there must be none), and seconds.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from flax import nnx
from jax import lax
from jax.experimental.ode import odeint
from numpyro import handlers
from numpyro.contrib.control_flow import cond, scan
from numpyro.contrib.module import eqx_module, nnx_module, random_nnx_module
from numpyro.distributions import transforms
from numpyro.infer.reparam import LocScaleReparam, TransformReparam

from simformer_ppl.structure import trace_structure
from tests.structure.probing import probe

sample, plate, deterministic = numpyro.sample, numpyro.plate, numpyro.deterministic
GALLERY: dict[str, Callable[[], None]] = {}
X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
TIMES = jnp.linspace(0.0, 1.0, 5)


def show(model: Callable[[], None]) -> Callable[[], None]:
    """Put a model into the gallery."""
    GALLERY[model.__name__] = model
    return model


def normal(name: str, *shape: int):
    """Standard normal values, as one event."""
    return sample(name, dist.Normal(0, 1).expand(shape).to_event(len(shape)) if shape else dist.Normal(0, 1))


# ------------------------------------------------------------------ regressions, hierarchies, plates


@show
def varying_slopes():
    groups = np.array([0, 0, 1, 1, 2, 2])
    scale = sample("scale", dist.HalfCauchy(1).expand([2]).to_event(1))
    correlation = sample("correlation", dist.LKJCholesky(2, 2.0))
    with plate("group", 3):
        effects = sample("effects", dist.MultivariateNormal(0.0, scale_tril=scale[:, None] * correlation))
    mean = effects[groups, 0] + effects[groups, 1] * X[:, 0]
    with plate("n", 6):
        sample("y", dist.Normal(mean, sample("sigma", dist.Exponential(1.0))))


@show
def horseshoe():
    shrinkage = sample("shrinkage", dist.HalfCauchy(1))
    local = sample("local", dist.HalfCauchy(1).expand([3]).to_event(1))
    beta = sample("beta", dist.Normal(0, shrinkage * local).to_event(1))
    with plate("n", 6):
        sample("y", dist.Bernoulli(logits=X @ beta))


@show
def item_response():
    with plate("person", 4, dim=-2):
        ability = normal("ability")
    with plate("item", 3, dim=-1):
        difficulty, slope = normal("difficulty"), sample("slope", dist.LogNormal(0, 0.3))
    with plate("person", 4, dim=-2), plate("item", 3, dim=-1):
        sample("correct", dist.Bernoulli(logits=slope * (ability - difficulty)))


@show
def ordered_answers():
    cuts = sample(
        "cuts", dist.TransformedDistribution(dist.Normal(0, 1).expand([3]).to_event(1), transforms.OrderedTransform())
    )
    with plate("n", 4):
        sample("answer", dist.OrderedLogistic(normal("latent"), cuts))


@show
def counts_with_zeros():
    gate, rate = sample("gate", dist.Beta(1, 1)), sample("rate", dist.Gamma(2, 1))
    with plate("n", 3):
        sample("zip", dist.ZeroInflatedPoisson(gate, rate))
        sample("nb", dist.NegativeBinomial2(rate, 2.0))
        sample("bb", dist.BetaBinomial(rate, 2.0, total_count=5))


@show
def topics():
    with plate("topic", 2):
        words = sample("words", dist.Dirichlet(jnp.ones(3)))
    with plate("document", 2):
        weights = sample("weights", dist.Dirichlet(jnp.ones(2)))
        sample("counts", dist.Multinomial(6, probs=weights @ words))


@show
def mixture_of_vectors():
    weights = sample("weights", dist.Dirichlet(jnp.ones(2)))
    means = normal("means", 2, 2)
    components = dist.MultivariateNormal(means, jnp.eye(2))
    with plate("n", 3):
        sample("x", dist.MixtureSameFamily(dist.Categorical(weights), components))


@show
def robust_and_truncated():
    df, mu = sample("df", dist.Gamma(2, 0.1)), normal("mu")
    with plate("n", 3):
        sample("t", dist.StudentT(df, mu, 1.0))
        sample("cut", dist.TruncatedNormal(mu, 1.0, low=0.0))
        sample("folded", dist.FoldedDistribution(dist.Normal(mu, 1.0)))
        sample("censored", dist.RightCensoredDistribution(dist.Weibull(jnp.exp(mu), 2.0), jnp.array([0, 1, 0])))


@show
def angles():
    direction = sample("direction", dist.VonMises(0.0, 1.0))
    with plate("n", 3):
        sample("angle", dist.VonMises(direction, sample("concentration", dist.Gamma(2, 1))))


@show
def sums_to_zero():
    effect = sample("effect", dist.ZeroSumNormal(1.0, (4,)))
    with plate("n", 4):
        sample("y", dist.Normal(effect, 1.0))


# ------------------------------------------------------------------ Gaussian events in every form


@show
def gaussians():
    mu, scale = normal("mu", 3), sample("scale", dist.HalfNormal(1).expand([3]).to_event(1))
    lower = jnp.eye(3) + jnp.tril(jnp.ones((3, 3)), -1) * 0.3
    sample("covariance", dist.MultivariateNormal(mu, jnp.diag(scale**2) + 0.1 * jnp.eye(3)))
    sample("precision", dist.MultivariateNormal(mu, precision_matrix=lower @ lower.T))
    sample("triangular", dist.MultivariateNormal(mu, scale_tril=lower * scale))
    sample("low_rank", dist.LowRankMultivariateNormal(mu, jnp.ones((3, 1)), scale))
    sample("student", dist.MultivariateStudentT(4.0, mu, lower))


@show
def walks():
    scale = sample("scale", dist.HalfNormal(1))
    walk = sample("walk", dist.GaussianRandomWalk(scale, 5))
    sample("y", dist.Normal(walk, 0.1).to_event(1))
    drift = lambda x, t: (-x, scale)  # noqa: E731
    sample("diffusion", dist.EulerMaruyama(TIMES, drift, dist.Normal(0, 1)))


@show
def state_space():
    phi = sample("phi", dist.Uniform(-1, 1))
    transition = jnp.array([[1.0, 0.0], [0.3, 0.5]]) * phi
    sample("x", dist.GaussianStateSpace(4, transition, jnp.eye(2)))


@show
def on_a_map():
    neighbours = np.eye(4, k=1, dtype=int) + np.eye(4, k=-1, dtype=int)
    tau = sample("tau", dist.Gamma(2, 1))
    sample("areal", dist.CAR(0.0, 0.9, tau, neighbours))


@show
def process():
    length, noise = sample("length", dist.LogNormal(0, 0.5)), sample("noise", dist.HalfNormal(1))
    kernel = jnp.exp(-(((TIMES[:, None] - TIMES) / length) ** 2)) + (noise + 0.01) * jnp.eye(5)
    sample("y", dist.MultivariateNormal(jnp.zeros(5), kernel))


@show
def matrices():
    sample("matrix", dist.MatrixNormal(jnp.zeros((2, 3)), jnp.eye(2), jnp.eye(3)))
    correlation = sample("correlation", dist.LKJ(3, 1.0))
    sample("y", dist.MultivariateNormal(jnp.zeros(3), correlation + 0.1 * jnp.eye(3)))


@show
def transformed():
    a, lower = normal("a", 3), jnp.array([[1.0, 0, 0], [0.5, 1, 0], [0, 0, 1]])
    base = dist.Normal(0, 1).expand([3]).to_event(1)
    sample("affine", dist.TransformedDistribution(base, transforms.LowerCholeskyAffine(a, lower)))
    sample("log", dist.TransformedDistribution(dist.Normal(a, 1).to_event(1), transforms.ExpTransform()))
    sample(
        "permuted",
        dist.TransformedDistribution(dist.Normal(a, 1).to_event(1), transforms.PermuteTransform(jnp.array([2, 0, 1]))),
    )
    sample(
        "recursive",
        dist.TransformedDistribution(
            dist.Normal(0, 1).expand([4, 1]).to_event(2), transforms.RecursiveLinearTransform(jnp.eye(1))
        ),
    )


# ------------------------------------------------------------------ loops and branches


@show
def hidden_markov():
    transition = sample("transition", dist.Dirichlet(jnp.ones((2, 2))).to_event(1))
    means = normal("means", 2)

    def step(state, _):
        state = sample("state", dist.Categorical(transition[state]), infer={"enumerate": "parallel"})
        sample("y", dist.Normal(means[state], 1.0))
        return state, None

    scan(step, 0, None, length=4)


@show
def backwards():
    scan(lambda c, t: (sample("x", dist.Normal(c + t, 1)), None), 0.0, TIMES, reverse=True)


@show
def loop_in_a_loop():
    def year(level, _):
        def month(level, _):
            level = sample("month", dist.Normal(level, 1))
            return level, None

        level, _ = scan(month, level, None, length=3)
        sample("year", dist.Normal(level, 1))
        return level, None

    with handlers.scope(prefix="sales"):
        scan(year, 0.0, None, length=2)


@show
def plates_in_a_loop():
    rho = sample("rho", dist.Uniform(0, 1))

    def step(level, _):
        with plate("shop", 3):
            level = sample("level", dist.Normal(rho * level, 1))
        return level, None

    scan(step, jnp.zeros(3), None, length=3)


@show
def branches_with_sites():
    a, b = normal("a"), normal("b")
    cond(a > 0, lambda _: sample("x", dist.Normal(b, 1)), lambda _: sample("x", dist.Normal(-b, 2)), None)
    deterministic("chosen", lax.cond(b > 0, jnp.sin, jnp.cos, a))


@show
def autoregression_by_hand():
    phi, values = normal("phi", 2), [0.0, 0.0]
    for t in range(4):
        values.append(sample(f"x{t}", dist.Normal(phi[0] * values[-1] + phi[1] * values[-2], 1)))


# ------------------------------------------------------------------ simulators


@show
def predator_and_prey():
    rates = sample("rates", dist.LogNormal(-1, 0.2).expand([4]).to_event(1))
    slope = lambda u, t, a, b, c, d: jnp.stack([(a - b * u[1]) * u[0], (d * u[0] - c) * u[1]])  # noqa: E731
    path = odeint(slope, jnp.array([2.0, 1.0]), TIMES, *rates, rtol=1e-3, atol=1e-3, mxstep=20)
    sample("y", dist.LogNormal(jnp.log(jnp.abs(path) + 1e-3), 0.1).to_event(2))


@show
def decay():
    import diffrax

    rate = sample("rate", dist.LogNormal(0, 0.3))
    term, saveat = diffrax.ODETerm(lambda t, y, k: -k * y), diffrax.SaveAt(ts=TIMES)
    steps = diffrax.PIDController(rtol=1e-3, atol=1e-3)
    path = diffrax.diffeqsolve(
        term, diffrax.Tsit5(), 0.0, 1.0, 0.1, 1.0, args=rate, saveat=saveat, stepsize_controller=steps
    )
    sample("y", dist.Normal(path.ys, 0.1))


@show
def black_box():
    theta = normal("theta", 2)
    mean = jax.pure_callback(lambda t: np.asarray(t)[::-1] * 2, jax.ShapeDtypeStruct((2,), jnp.float32), theta)
    sample("y", dist.Normal(mean, 1.0).to_event(1))


@show
def summaries():
    theta = normal("theta")
    with plate("n", 8):
        x = sample("x", dist.Normal(theta, 1))
    deterministic("quantiles", jnp.quantile(x, jnp.array([0.25, 0.5, 0.75])))
    deterministic("moments", jnp.stack([x.mean(), x.std()]))


@show
def linear_algebra():
    theta, banded = normal("theta", 4), np.eye(4) + 0.5 * np.eye(4, k=1)
    sample("banded", dist.Normal(jnp.asarray(banded) @ theta, 1).to_event(1))
    sample("smoothed", dist.Normal(jnp.convolve(theta, jnp.ones(2)), 1).to_event(1))
    sample("solved", dist.Normal(jnp.linalg.solve(jnp.diag(jnp.exp(theta)), jnp.ones(4)), 1).to_event(1))
    sample("looked_up", dist.Normal(jnp.interp(theta, jnp.array([-1.0, 0, 1]), jnp.array([0.0, 2, 1])), 1).to_event(1))
    sample("running", dist.Normal(jnp.cumsum(theta), 1).to_event(1))


# ------------------------------------------------------------------ modules and handlers


@show
def network_with_a_prior():
    module = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    network = random_nnx_module("net", module, prior=dist.Normal(0, 1))
    with plate("n", 3):
        sample("y", dist.Normal(network(X[:3, :2]).sum(-1), 1))


@show
def networks_that_are_not_learned():
    import equinox

    theta = normal("theta", 2)
    first = nnx_module("first", nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    second = eqx_module("second", equinox.nn.Linear(2, 2, key=jax.random.key(0)))
    weight = numpyro.param("weight", lambda key: jax.random.normal(key, (2,)))
    sample("y", dist.Normal(first(theta) + second(theta) * weight, 1).to_event(1))


@show
def reparametrised():
    config = {"theta": LocScaleReparam(0), "positive": TransformReparam()}
    mu, tau = normal("mu"), sample("tau", dist.HalfNormal(1))
    with handlers.reparam(config=config), plate("n", 3):
        theta = sample("theta", dist.Normal(mu, tau))
        positive = sample("positive", dist.TransformedDistribution(dist.Normal(0, 1), transforms.ExpTransform()))
        sample("y", dist.Normal(theta, positive))


@show
def handled():
    def inner():
        a = sample("a", dist.Normal(numpyro.param("loc", 0.5), 1))
        with handlers.mask(mask=np.array([True, False, True])), handlers.scale(scale=2.0), plate("n", 3):
            sample("y", dist.Normal(a, 1))

    with handlers.scope(prefix="left"):
        inner()
    with handlers.scope(prefix="right"), handlers.lift(prior={"loc": dist.Normal(0, 1)}):
        inner()


@show
def intervened():
    def inner():
        a = normal("a")
        b = sample("b", dist.Normal(a, 1))
        sample("y", dist.Normal(a + b, 1))

    handlers.do(inner, data={"b": 1.0})()
    with handlers.scope(prefix="seen"):
        handlers.condition(inner, data={"y": 1.0})()


@show
def own_noise():
    theta = normal("theta")
    shock = jax.random.normal(numpyro.prng_key(), (2,))
    sample("y", dist.Normal(theta + shock, 0.1).to_event(1))


@show
def with_covariates():
    def inner(design, groups, y=None):
        count = int(groups.max()) + 1
        with plate("group", count):
            level = normal("level")
        mean = level[groups] + design @ normal("beta", 3)
        with plate("n", len(design)):
            sample("y", dist.Normal(mean, 1), obs=y)

    partial(inner, jnp.asarray(X), groups=jnp.array([0, 1, 1, 0, 2, 2]))()


@show
def branch_in_python():
    a = normal("a")
    sample("y", dist.Normal(a if a > 0 else 0.0, 1))


# their hidden noise or Python branch makes what is read more than one run shows
NOT_PROBED = {"black_box", "own_noise", "branch_in_python"}


def main() -> None:
    """Print the list."""
    print("| model | tokens | edges | probed | missing | seconds | dense |\n|---|---|---|---|---|---|---|")
    for name, model in GALLERY.items():
        print(f"| {name} | {' | '.join(row(name, model))} |", flush=True)
        jax.clear_caches()


def row(name: str, model: Callable[[], None]) -> list[str]:
    """Tokens, edges, probed edges, missing ones, seconds to read, and what is dense."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = trace_structure(model)
    seconds, probed = time.perf_counter() - start, ["", ""]
    if name not in NOT_PROBED:
        found = probe(model, structure)
        probed = [str((found.needed & structure.adjacency).sum()), str(len(found.unsound))]
    return [str(structure.num_tokens), str(structure.num_edges), *probed, f"{seconds:.2f}", "; ".join(structure.info)]


if __name__ == "__main__":
    main()
