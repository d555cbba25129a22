"""Graphs of models that can be worked out by hand, and a numerical probe of every one of them."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax
from numpyro.contrib.control_flow import scan

from simformer_ppl.structure import trace_structure
from tests.structure.probing import probe

sample, plate, deterministic = numpyro.sample, numpyro.plate, numpyro.deterministic
Edge = tuple[str, str] | tuple[str, str, Callable[[int, int], bool]]


@dataclass
class Case:
    """A model, and its edges as (child, parent[, which tokens]); without a condition, all with all."""

    model: Callable
    edges: list[Edge]
    sites: list[str] | None = None
    exact: bool = True
    probe: bool = True
    kwargs: dict = field(default_factory=dict)

    def truth(self, structure) -> np.ndarray:
        matrix = np.zeros((structure.num_tokens,) * 2, bool)
        for child, parent, *when in self.edges:
            rows, columns = structure.sites[child].token_slice, structure.sites[parent].token_slice
            for i, row in enumerate(range(rows.start, rows.stop)):
                for j, column in enumerate(range(columns.start, columns.stop)):
                    matrix[row, column] |= row != column and (not when or when[0](i, j))
        return matrix


CASES: dict[str, Case] = {}


def case(*edges: Edge, **options):
    def register(model):
        CASES[model.__name__] = Case(model, list(edges), **options)
        return model

    return register


def same(i, j):
    return i == j


def earlier(i, j):
    return j < i


def previous(i, j):
    return j == i - 1


@case(("theta", "mu"), ("theta", "tau"), ("y", "theta", same))
def eight_schools(y=None):
    mu, tau = sample("mu", dist.Normal(0, 5)), sample("tau", dist.HalfCauchy(5))
    with plate("school", 8):
        theta = sample("theta", dist.Normal(mu, tau))
        sample("y", dist.Normal(theta, jnp.linspace(9, 18, 8)), obs=y)


@case(("y", "mu"), ("y", "tau"), ("y", "offset", same))
def non_centred_schools():
    mu, tau = sample("mu", dist.Normal(0, 5)), sample("tau", dist.HalfCauchy(5))
    with plate("school", 8):
        theta = deterministic("theta", mu + tau * sample("offset", dist.Normal(0, 1)))
        sample("y", dist.Normal(theta, 1.0))


@case(
    ("x", "theta", lambda i, j: i % 2 == 1 or j in (0, 2)),
    ("x", "x", lambda i, j: i % 2 == 1 and j == i - 1),
)
def slcp():
    theta = sample("theta", dist.Uniform(-3, 3).expand([5]).to_event(1))
    s1, s2, rho = theta[2] ** 2, theta[3] ** 2, jnp.tanh(theta[4])
    cov = jnp.array([[s1**2, rho * s1 * s2], [rho * s1 * s2, s2**2]]) + 1e-3 * jnp.eye(2)
    with plate("n", 4):
        sample("x", dist.MultivariateNormal(theta[:2], cov))


@case(("t1", "t0"), ("t2", "t0"), ("t3", "t1"))
def tree():
    t0 = sample("t0", dist.Normal(0, 1))
    t1 = sample("t1", dist.Normal(jnp.sin(t0) ** 2, 0.1))
    sample("t2", dist.Normal(0.1 * t0**2, 0.6))
    sample("t3", dist.Normal(jnp.cos(t1), 0.5))


@case(*((f"y{t}", f"x{t}") for t in range(5)), *((f"x{t}", f"x{t - 1}") for t in range(1, 5)))
def loop_chain():
    x = 0.0
    for t in range(5):
        x = sample(f"x{t}", dist.Normal(x, 1))
        sample(f"y{t}", dist.Normal(x**2, 1))


@case(("x", "x", previous), ("y", "x", same))
def scan_chain(y=None):
    def step(x, observed):
        x = sample("x", dist.Normal(x, 1))
        sample("y", dist.Normal(x**2, 1), obs=observed)
        return x, None

    scan(step, 0.0, y, length=6)


@case(("x", "x", previous), ("y", "x", same), ("x", "y", previous))
def scan_feedback():
    def step(carry, _):
        x = sample("x", dist.Normal(carry[0] + carry[1], 1))
        y = sample("y", dist.Normal(x, 1))
        return (x, y), None

    scan(step, (0.0, 0.0), None, length=6)


GROUPS = np.array([0, 2, 1, 1, 0, 2, 2])


@case(("y", "g", lambda i, j: GROUPS[i] == j))
def groups():
    with plate("group", 3):
        g = sample("g", dist.Normal(0, 1))
    with plate("n", 7):
        sample("y", dist.Normal(g[GROUPS], 1))


DESIGN = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
DESIGN[0, 1] = DESIGN[4, 0] = DESIGN[4, 1] = 0


@case(("y", "beta", lambda i, j: DESIGN[i, j] != 0), ("y", "sigma"))
def regression():
    beta = sample("beta", dist.Normal(0, 1).expand([3]).to_event(1))
    sigma = sample("sigma", dist.HalfNormal(1))
    with plate("n", 6):
        sample("y", dist.Normal(jnp.asarray(DESIGN) @ beta, sigma))


@case(
    *((f"x{t}", f"x{t - 1}") for t in range(1, 6)),
    *((f"x{t}", f"x{t - 2}") for t in range(2, 6)),
    *((f"x{t}", "phi", lambda i, j: j == 0) for t in range(1, 6)),
    *((f"x{t}", "phi", lambda i, j: j == 1) for t in range(2, 6)),
)
def autoregression():
    phi, xs = sample("phi", dist.Normal(0, 1).expand([2])), []
    for t in range(6):
        mean = sum(phi[lag] * xs[-1 - lag] for lag in range(min(t, 2)))
        xs.append(sample(f"x{t}", dist.Normal(mean, 1)))


@case(("x", "scale"), ("x", "x", previous))
def random_walk():
    sample("x", dist.GaussianRandomWalk(sample("scale", dist.HalfNormal(1)), 8))


@case(("y", "rates"))
def lotka_volterra():
    rates = sample("rates", dist.LogNormal(0, 0.1).expand([4]).to_event(1))

    def step(u, _):
        growth = jnp.stack([rates[0] * u[0] - rates[1] * u[0] * u[1], rates[3] * u[0] * u[1] - rates[2] * u[1]])
        return u + 0.1 * growth, u + 0.1 * growth

    _, path = lax.scan(step, jnp.ones(2), None, length=20)
    sample("y", dist.LogNormal(jnp.log(path[9::10]), 0.1).to_event(2))


@case(("p", "p", earlier), ("c", "p"), ("c", "c", earlier))
def dirichlet_multinomial():
    sample("c", dist.Multinomial(10, sample("p", dist.Dirichlet(jnp.ones(4)))))


@case(("w", "w", earlier), ("y", "w"), ("y", "mu"))
def mixture():
    w, mu = sample("w", dist.Dirichlet(jnp.ones(3))), sample("mu", dist.Normal(0, 1).expand([3]))
    with plate("n", 5):
        sample("y", dist.MixtureSameFamily(dist.Categorical(w), dist.Normal(mu, 1.0)))


@case(("y", "mu"), ("y", "z", same))
def discrete_latent():
    mu = sample("mu", dist.Normal(0, 1).expand([3]))
    with plate("n", 4):
        z = sample("z", dist.Categorical(jnp.ones(3) / 3))
        sample("y", dist.Normal(mu[z], 1.0))


@case(("y", "theta"), probe=False)
def callback():
    theta = sample("theta", dist.Normal(0, 1).expand([2]))
    shape = jax.ShapeDtypeStruct((3,), jnp.float32)
    mean = jax.pure_callback(lambda t: np.array([t[0], t[1], t[0] * t[1]], np.float32), shape, theta)
    sample("y", dist.Normal(mean, 1.0))


@case(("mean", "x"), ("sorted", "x"), ("sign", "x", same), ("z", "mean"), sites=["x", "mean", "sorted", "sign", "z"])
def summaries():
    with plate("n", 5):
        x = sample("x", dist.Normal(0, 1))
    mean = deterministic("mean", x.mean())
    deterministic("sorted", jnp.sort(x))
    deterministic("sign", jnp.sign(x))
    sample("z", dist.Normal(mean, 1))


@case(("y", "a"), ("y", "b", lambda i, j: i == 0), ("y", "c", lambda i, j: i == 0))
def branches():
    a, b, c = (sample(name, dist.Normal(0, 1)) for name in "abc")
    chosen = lax.cond(a > 0, lambda: b, lambda: c)
    sample("y", dist.Normal(jnp.stack([chosen, jnp.where(a > 0, 1.0, 2.0)]), 1.0).to_event(1))


@case(("y", "k"), probe=False)
def ode():
    diffrax = pytest.importorskip("diffrax")
    k = sample("k", dist.LogNormal(0, 0.1).expand([2]))
    term = diffrax.ODETerm(lambda t, y, k: -k[0] * y + k[1])
    saveat = diffrax.SaveAt(ts=jnp.linspace(0.1, 1, 4))
    path = diffrax.diffeqsolve(term, diffrax.Euler(), 0.0, 1.0, 0.1, jnp.array(1.0), args=k, saveat=saveat).ys
    sample("y", dist.Normal(path, 0.1))


@case(("u", "s"), ("x", "u", same), ("x", "s"), ("w", "u", lambda i, j: j <= i))
def diagonal_events():
    s = sample("s", dist.HalfNormal(1))
    u = sample("u", dist.Normal(0, s).expand([3]).to_event(1))
    sample("x", dist.MultivariateNormal(u, s**2 * jnp.eye(3)))
    running = dist.Normal(jnp.cumsum(u), 1.0)
    sample("w", dist.TransformedDistribution(running, dist.transforms.ExpTransform()).to_event(1))


@case(("x", "theta"), ("x", "x", earlier), probe=False)
def simulator_distribution():
    class Simulator(dist.Distribution):
        support = dist.constraints.real_vector
        pytree_data_fields = ("theta",)

        def __init__(self, theta):
            self.theta = theta
            super().__init__((), (3,), validate_args=False)

        def sample(self, key, sample_shape=()):
            return jnp.concatenate([self.theta, self.theta[:1] * self.theta[1:]]) * jax.random.normal(key, (3,))

    sample("x", Simulator(sample("theta", dist.Normal(0, 1).expand([2]))))


@case(("x", "theta"), ("x", "x", earlier), sites=["theta", "x"], probe=False)
def two_moons():
    theta = sample("theta", dist.Uniform(-1, 1).expand([2]).to_event(1))
    key_angle, key_radius = jax.random.split(numpyro.prng_key())
    angle = jax.random.uniform(key_angle, minval=-jnp.pi / 2, maxval=jnp.pi / 2)
    radius = 0.1 + 0.01 * jax.random.normal(key_radius)
    moon = jnp.stack([radius * jnp.cos(angle) + 0.25, radius * jnp.sin(angle)])
    deterministic("x", moon + jnp.stack([-jnp.abs(theta.sum()), theta[1] - theta[0]]) / jnp.sqrt(2.0))


@case(("x1", "mu"), ("x2", "mu"), sites=["mu", "x1", "x2"], probe=False)
def separate_noise():
    mu = sample("mu", dist.Normal(0, 1))
    for name in ("x1", "x2"):
        deterministic(name, mu + jax.random.normal(numpyro.prng_key()))


@case(("a", "mu"), ("b", "mu"), ("b", "a"), sites=["mu", "a", "b"])
def nuisance():
    mu = sample("mu", dist.Normal(0, 1))
    theta = sample("theta", dist.Normal(mu, 1))
    sample("a", dist.Normal(theta, 1))
    sample("b", dist.Normal(theta, 1))
    sample("unread", dist.Normal(mu + theta, 1))


@case(("scale", "scale", earlier), ("y", "scale"), ("y", "y", earlier), ("y", "mu", lambda i, j: j <= i))
def correlation():
    mu = sample("mu", dist.Normal(0, 1).expand([3]).to_event(1))
    scale = sample("scale", dist.LKJCholesky(3, 1.0))
    sample("y", dist.MultivariateNormal(mu, scale_tril=scale))


OBSERVED = np.array([True, False, True, True])


@case(("y", "mu"), ("z", "y", same))
def partly_observed(y=np.zeros(4)):  # noqa: B008
    mu = sample("mu", dist.Normal(0, 1))
    with plate("n", 4):
        y = sample("y", dist.Normal(mu, 1), obs=y, obs_mask=OBSERVED)
        sample("z", dist.Normal(y, 1))


@case(("u", "low"), ("t", "low"), ("y", "u", same), ("y", "t"))
def moving_supports():
    low = sample("low", dist.HalfNormal(1))
    u = sample("u", dist.Uniform(-low, low).expand([3]).to_event(1))
    t = sample("t", dist.TruncatedNormal(0.0, 1.0, low=low))
    sample("y", dist.Uniform(u, u + jnp.exp(t)).to_event(1))


@case(("x", "a"), ("x", "x", lambda i, j: j == i - 1 and i % 3 > 0))
def batched_walks():
    a = sample("a", dist.Normal(0, 1))
    rows = dist.GaussianRandomWalk(1.0, 3).expand([2])
    sample("x", dist.TransformedDistribution(rows, dist.transforms.AffineTransform(a, 1.0)))


# the variance of the first scalar of a stationary kernel does not depend on its length scale
@case(("x", "phi", lambda i, j: i > 0), ("x", "x", earlier), exact=False)
def dense_gaussian():
    length = sample("phi", dist.LogNormal(0, 1))
    times = jnp.arange(4.0)
    kernel = jnp.exp(-((times[:, None] - times) ** 2) / length) + 0.1 * jnp.eye(4)
    sample("x", dist.MultivariateNormal(jnp.zeros(4), kernel))


@case(("y", "w", lambda i, j: j <= i <= j + 2))
def convolution():
    w = sample("w", dist.Normal(0, 1).expand([5]).to_event(1))
    sample("y", dist.Normal(jnp.convolve(w, jnp.array([0.5, 0.3, 0.2])), 1.0).to_event(1))


@case(("counts", "rate", same), ("total", "counts"), ("y", "size"))
def counts():
    with plate("n", 3):
        n = sample("counts", dist.Poisson(sample("rate", dist.Gamma(2.0, 1.0))))
    sample("total", dist.Normal(n.sum(), 1.0))
    size = sample("size", dist.Binomial(10, 0.5))
    sample("y", dist.Binomial(size, 0.5))


@case(("y", "x", lambda i, j: (i, j) in {(0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)}))
def scatter_and_while():
    x = sample("x", dist.Normal(0, 1).expand([4]).to_event(1))

    def shift(state):
        i, total = state
        return i + 1, total.at[i + 1].add(x[i])

    _, shifted = lax.while_loop(lambda state: state[0] < 3, shift, (0, x))
    sample("y", dist.Normal(shifted, 1.0).to_event(1))


@case(("y", "g", lambda i, j: i // 2 == j))
def nested_plates():
    with plate("group", 3, dim=-2):
        g = sample("g", dist.Normal(0, 1))
        with plate("unit", 2, dim=-1):
            sample("y", dist.Normal(g, 1))


@pytest.mark.parametrize("name", CASES)
def test_adjacency_is_what_the_model_says(name):
    this = CASES[name]
    structure = trace_structure(this.model, sites=this.sites)
    truth = this.truth(structure)

    def edges(matrix):
        return sorted((structure.tokens[i], structure.tokens[j]) for i, j in np.argwhere(matrix))

    assert edges(truth & ~structure.adjacency) == []
    if this.exact:
        assert edges(structure.adjacency & ~truth) == []


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].probe])
def test_no_density_moves_without_an_edge(name):
    """Replace one event by that of another draw: every density that moves must belong to a child of it."""
    model = CASES[name].model
    structure = trace_structure(model)
    assert probe(model, structure).unsound == []


def test_every_pair_of_tokens_is_labelled_once():
    structure = trace_structure(nested_plates)
    assert structure.tokens == (
        "g[0, 0]",
        "g[1, 0]",
        "g[2, 0]",
        *(f"y[{i}, {j}]" for i, j in itertools.product(range(3), range(2))),
    )
