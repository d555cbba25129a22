"""Programs against a numerical probe: what moves an output must be in the set of inputs it may read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from simformer_ppl.structure import bitsets
from simformer_ppl.structure.abstract_value import Value
from simformer_ppl.structure.dataflow import Dataflow

INDEX = jnp.array([3, 1, 1, 0])
SPARSE = jnp.array([[1.0, 0, 2, 0, 0, 0], [0, 0, 0, 1, 0, 3]])
LOWER = jnp.array([[1.0, 0, 0], [0.5, 1, 0], [0, 0, 1]])
SEGMENTS = jnp.array([0, 1, 0, 2, 2, 1])


def as_index(x):
    return jnp.abs(x).astype(int)


def grid(x):
    return x.reshape(2, 3)


def solve(a, b, **kwargs):
    return jax.scipy.linalg.solve_triangular(a, b, **kwargs)


def as_callback(x):
    return jax.pure_callback(lambda a: np.asarray(a)[::-1].copy(), jax.ShapeDtypeStruct((6,), jnp.float32), x)


def blocks(x):
    return jax.scipy.linalg.block_diag(jnp.array([[2.0, 0.1], [0.1, 2.0]]) * jnp.exp(x[0]), jnp.exp(x[1])[None, None])


# programs of six inputs whose sets are those that a probe finds
SHARP = {
    "roll": lambda x: jnp.roll(x, 2),
    "take": lambda x: jnp.take(x, INDEX),
    "take outside": lambda x: x.at[jnp.array([0, 9])].get(mode="fill", fill_value=0.0),
    "scatter-add": lambda x: x.at[INDEX].add(x[2:]),
    "set slice": lambda x: x.at[1:4].set(0.0),
    "multiply column": lambda x: grid(x).at[:, 1].multiply(2.0),
    "rows at known": lambda x: grid(x)[jnp.array([1, 0, 1])],
    "column at random": lambda x: jnp.stack([grid(x)[0], grid(x)[1]])[jnp.zeros(1, int)],
    "dynamic slice": lambda x: lax.dynamic_slice(x, (jnp.int32(2),), (2,)),
    "update slice": lambda x: lax.dynamic_update_slice(x, x[:2] * 2, (3,)),
    "matrix vector": lambda x: SPARSE @ x,
    "einsum": lambda x: jnp.einsum("ij,kj->ik", grid(x), SPARSE[:, :3]),
    "batched product": lambda x: jnp.einsum("bi,bj->bij", grid(x), grid(x)),
    "pad": lambda x: jnp.pad(x, (1, 2)),
    "reflect": lambda x: jnp.pad(x, 2, mode="reflect"),
    "convolve": lambda x: jnp.convolve(x, jnp.array([1.0, 2.0])),
    "convolve images": lambda x: lax.conv_general_dilated(x.reshape(1, 1, 6), jnp.ones((1, 1, 3)), (1,), "SAME"),
    "sort columns": lambda x: jnp.sort(grid(x), 0),
    "argsort": lambda x: jnp.argsort(x).astype(float),
    "top k": lambda x: lax.top_k(x, 2)[0],
    "quantile": lambda x: jnp.quantile(grid(x), 0.3, axis=1),
    "cumsum": jnp.cumsum,
    "reverse cumprod": lambda x: lax.cumprod(x, reverse=True),
    "logsumexp": lambda x: jax.nn.logsumexp(grid(x), 1),
    "softmax": lambda x: jax.nn.softmax(grid(x), -1),
    "associative scan": lambda x: lax.associative_scan(jnp.add, x),
    "difference": jnp.diff,
    "upper triangle": lambda x: jnp.triu(jnp.outer(x[:3], x[3:])),
    "determinant": lambda x: jnp.linalg.det(x[:4].reshape(2, 2))[None],
    "diagonal cholesky": lambda x: jnp.linalg.cholesky(jnp.diag(jnp.exp(x[:3]))),
    "block cholesky": lambda x: jnp.linalg.cholesky(blocks(x)),
    "triangular solve": lambda x: solve(LOWER, x[:3], lower=True),
    "transposed solve": lambda x: solve(LOWER, x[:3], lower=True, trans=1),
    "upper solve": lambda x: solve(LOWER.T, x[:3], lower=False),
    "right solve": lambda x: lax.linalg.triangular_solve(LOWER, grid(x), left_side=False, lower=True),
    "scan": lambda x: lax.scan(lambda c, a: (c * 0.5 + a, c), 0.0, x)[1],
    "reverse scan": lambda x: lax.scan(lambda c, a: (c + a, c), 0.0, x, reverse=True)[1],
    "fori loop": lambda x: lax.fori_loop(0, 4, lambda i, c: c.at[i + 1].set(c[i] + x[i]), x),
    "known while": lambda x: lax.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.roll(c[1], 1) + x), (0, x * 0.0)
    )[1],
    "random while": lambda x: lax.while_loop(
        lambda c: c[0] < jnp.abs(x[5]) * 3, lambda c: (c[0] + 1, c[1] + x[0]), (0.0, x[1])
    )[1][None],
    "cond": lambda x: lax.cond(x[0] > 0, lambda a: a[1:3], lambda a: a[3:5], x),
    "mapped cond": jax.vmap(lambda a: lax.cond(a > 0, jnp.sin, jnp.cos, a)),
    "gradient": jax.grad(lambda x: jnp.sum(x[1:] * x[:-1] ** 2)),
    "jit": jax.jit(lambda x: x[::2]),
    "checkpoint": jax.checkpoint(lambda x: x**2),
    "custom gradient": jax.nn.relu,
    "segment sum": lambda x: jax.ops.segment_sum(x, SEGMENTS, 3),
    "segment max": lambda x: jax.ops.segment_max(x, SEGMENTS, 3),
    "interpolate": lambda x: jnp.interp(x, jnp.array([-1.0, 0, 1]), jnp.array([0.0, 2, 1])),
    "searchsorted": lambda x: jnp.searchsorted(jnp.array([-1.0, 0, 1]), x).astype(float),
    "sign": jnp.sign,
    "round": jnp.round,
    "where": lambda x: jnp.where(x > 0, 1.0, 2.0),
    "known where": lambda x: jnp.where(jnp.array([1, 0, 1, 0, 1, 0], bool), x, 0.0),
    "fourier": lambda x: jnp.abs(jnp.fft.fft(x)),
    "random key": lambda x: jax.random.normal(jax.random.fold_in(jax.random.key(0), as_index(x[0] * 1e3)), (2,)),
    "gammainc": lambda x: jax.scipy.special.gammainc(jnp.exp(x[:2]), jnp.exp(x[2:4])),
    "histogram": lambda x: jnp.histogram(x, bins=3, range=(-2, 2))[0].astype(float),
    "one hot": lambda x: jax.nn.one_hot(jnp.argmax(x[:3]), 3),
    "covariance": lambda x: jnp.cov(grid(x)),
    "apply": lambda x: x.at[jnp.array([1])].apply(jnp.sin),
    "tile": lambda x: jnp.tile(x, 2),
    "pool": lambda x: lax.reduce_window(grid(x), -jnp.inf, lax.max, (1, 2), (1, 1), "SAME"),
    "general reduce": lambda x: lax.reduce(grid(x), 0.0, jnp.hypot, (0,)),
    "block solve": lambda x: jnp.linalg.solve(blocks(x), x[3:]),
    "known solve": lambda x: jnp.linalg.solve(jnp.eye(3) * 2, x[:3]),
    "diagonal inverse": lambda x: jnp.linalg.inv(jnp.diag(jnp.exp(x[:3]))),
    "block inverse": lambda x: jnp.linalg.inv(blocks(x)),
    "gradient of tanh": jax.grad(lambda x: jnp.tanh(x).sum()),
    "top of columns": lambda x: lax.top_k(x.reshape(3, 2), 3, axis=0)[0],
    "median": lambda x: jnp.median(x)[None],
    "polynomial": lambda x: jnp.polyval(jnp.array([1.0, 2, 3]), x),
    "fourier of rows": lambda x: jnp.abs(jnp.fft.fft(grid(x))),
    "batched solve": lambda x: jnp.linalg.solve(
        jnp.stack([jnp.diag(jnp.exp(x[:2])), jnp.eye(2) + 1.0]), x[2:].reshape(2, 2, 1)
    ),
}
# programs whose sets may be too large
SOUND = {
    "duplicate set": lambda x: x.at[INDEX].set(jnp.exp(x[:4])),
    "slice at random": lambda x: lax.dynamic_slice(x, (as_index(x[0]),), (2,)),
    "update at random": lambda x: lax.dynamic_update_slice(x, x[:2] * 2, (as_index(x[0]),)),
    "row at random": lambda x: grid(x)[as_index(x[0])],
    "switch": lambda x: lax.switch(
        jnp.clip(as_index(x[0] * 3), 0, 2), [lambda a: a[1:2], lambda a: a[2:3], lambda a: a[3:4]], x
    ),
    "mapped while": jax.vmap(lambda a: lax.while_loop(lambda c: c < 3, lambda c: c + 1.1, a)),
    "mapped index": lambda x: jax.vmap(lambda row, i: row[i])(grid(x), as_index(x[:2])),
    "callback": as_callback,
    "one step of a solver": lambda x: lax.custom_linear_solve(
        lambda v: jnp.arange(1.0, 4.0) * v, x[:3], lambda mv, b: (b @ b) / (b @ mv(b)) * b, symmetric=True
    ),
    "conjugate gradients": lambda x: jax.scipy.sparse.linalg.cg(
        lambda v: jnp.diag(1.5 + jnp.tanh(x)) @ v, jnp.ones(6), maxiter=2
    )[0],
    "inverse": lambda x: jnp.linalg.inv(jnp.outer(x[:3], x[3:]) + 9 * jnp.eye(3)),
    "triangular inverse": lambda x: jnp.linalg.inv(jnp.eye(3) + jnp.diag(jnp.tanh(x[:2]), -1) / 2),
    "exponential": lambda x: jax.scipy.linalg.expm(jnp.diag(x[:2])),
}


def interpreted(program):
    flow = Dataflow()
    (out,) = flow.run(jax.make_jaxpr(program)(jnp.ones(6)), [Value((6,), reads=bitsets.singletons((6,), 0))])
    return bitsets.to_matrix([int(s) for s in out.sets().flat], 6), flow.fallbacks


def probed(program):
    compiled, rng, moved = jax.jit(program), np.random.default_rng(0), None
    for _ in range(20):
        base = (2 * rng.normal(size=6)).astype(np.float32)
        before = np.asarray(compiled(base)).ravel()
        moved = np.zeros((before.size, 6), bool) if moved is None else moved
        for j, step in ((j, step) for j in range(6) for step in (0.3, -2.0, 3.0)):
            changed = base.copy()
            changed[j] += step
            after = np.asarray(compiled(changed)).ravel()
            moved[:, j] |= ~((before == after) | (np.isnan(before) & np.isnan(after)))
    return moved


@pytest.mark.parametrize("name", [*SHARP, *SOUND])
def test_what_moves_an_output_is_read(name):
    program = SHARP.get(name) or SOUND[name]
    reads, _ = interpreted(program)
    moved = probed(program)
    assert not (moved & ~reads).any()
    if name in SHARP:
        assert not (reads & ~moved).any()


@pytest.mark.parametrize("name", SHARP)
def test_known_primitives_are_no_fallback(name):
    assert not interpreted(SHARP[name])[1]


def test_an_unknown_primitive_is_dense_and_counted():
    reads, fallbacks = interpreted(as_callback)
    (reason,) = fallbacks
    assert reads.all() and reason.startswith("pure_callback: no rule, at test_dataflow.py:")


def test_a_failing_rule_is_dense_and_counted(monkeypatch):
    from simformer_ppl.structure.rules import RULES

    monkeypatch.setitem(RULES, "sin", lambda flow, eqn, values: 1 / 0)
    reads, fallbacks = interpreted(jnp.sin)
    assert reads.all() and "ZeroDivisionError" in next(iter(fallbacks))


def test_known_values_resolve_indices_and_still_count_as_read():
    jaxpr = jax.make_jaxpr(lambda m, z: m[z])(jnp.ones(4), jnp.zeros(2, int))
    inputs = [
        Value((4,), reads=bitsets.singletons((4,), 0)),
        Value.of_constant(np.array([2, 0], np.int32), bitsets.singletons((2,), 4)),
    ]
    (out,) = Dataflow().run(jaxpr, inputs)
    assert list(out.sets()) == [1 << 2 | 1 << 4, 1 << 0 | 1 << 5]


@pytest.mark.parametrize(
    "program",
    [
        lambda x, z: jax.nn.one_hot(z, 3) @ x,
        lambda x, z: (jnp.arange(3) == z[:, None]) * 1.0 @ x,
        lambda x, z: jnp.where(jnp.arange(3) == z[:, None], x, 0.0).sum(1),
    ],
)
def test_known_zeros_drop_what_they_multiply_and_still_say_why(program):
    jaxpr = jax.make_jaxpr(program)(jnp.ones(3), jnp.zeros(2, int))
    known = Value.of_constant(np.array([2, 0], np.int32), bitsets.singletons((2,), 3))
    (out,) = Dataflow().run(jaxpr, [Value((3,), reads=bitsets.singletons((3,), 0)), known])
    assert list(out.sets()) == [1 << 2 | 1 << 3, 1 << 0 | 1 << 4]


def test_a_known_zero_on_the_right_of_a_system_still_counts_as_read():
    jaxpr = jax.make_jaxpr(lambda x: solve(LOWER, x, lower=True))(jnp.ones(3))
    known = Value.of_constant(np.zeros(3, np.float32), bitsets.singletons((3,), 0))
    (out,) = Dataflow().run(jaxpr, [known])
    assert [int(s) for s in out.sets()] == [0b001, 0b011, 0b100]


def test_more_than_64_scalars():
    jaxpr = jax.make_jaxpr(jnp.cumsum)(jnp.ones(200))
    (out,) = Dataflow().run(jaxpr, [Value((200,), reads=bitsets.singletons((200,), 0))])
    assert int(out.sets()[-1]) == 2**200 - 1
