"""The operations of random programs: each writes an expression over variables of a draft."""

from __future__ import annotations

from collections.abc import Callable

from tests.structure.draft import Draft

OPERATIONS: dict[str, Callable[[Draft], str]] = {}


def operation(function):
    OPERATIONS[function.__name__] = function
    return function


def templates(ndim, **codes):
    """Operations of one float variable ``a`` with so many axes (None: any but a scalar), of size ``n``."""
    for name, code in codes.items():

        def write(d, code=code):
            a = d.floats(ndim)
            return code(d, a) if callable(code) else code.format(a=a)

        OPERATIONS[name] = write


templates(
    None,
    sin=lambda d, a: f"jnp.{d.choose(['sin', 'cos', 'tanh', 'arctan', 'square', 'abs', 'negative'])}({a})",
    sigmoid=lambda d, a: f"jax.nn.{d.choose(['sigmoid', 'softplus', 'relu', 'gelu', 'elu', 'log_sigmoid'])}({a})",
    log1p_exp="jnp.log1p(jnp.exp(-jnp.abs({a})))",
    floor=lambda d, a: f"jnp.{d.choose(['floor', 'ceil', 'sign', 'round', 'trunc'])}({a} * 2)",
    power=lambda d, a: f"jnp.tanh({a}) ** {d.integer(0, 3)}",
    special=lambda d, a: f"jax.scipy.special.{d.choose(['erf', 'gammaln', 'digamma', 'ndtr'])}(1.5 + jnp.tanh({a}))",
    compare=lambda d, a: f"({a} {d.choose(['>', '<', '>='])} {d.choose(['0.0', d.like(a)])}).astype(jnp.float32)",
    logical=lambda d, a: f"(({a} > 0) {d.choose('&|^')} ({d.like(a)} > 0.3)).astype(jnp.float32)",
    masked_logical=lambda d, a: f"(({a} > 0) & {d.mask(d.shape(a))}).astype(jnp.float32)",
    integer_cast="({a} * 3).astype(int).astype(jnp.float32) / 3",
    bits="lax.bitcast_convert_type(lax.bitcast_convert_type({a}, jnp.int32), jnp.float32)",
    modulo="jnp.mod({a}, 0.7)",
    clip=lambda d, a: f"jnp.clip({a}, -0.5, {d.choose(['0.5', 'jnp.abs(' + d.like(a) + ')'])})",
    add=lambda d, a: f"({a} {d.choose('+-*')} {d.like(a)}) * 0.7",
    divide=lambda d, a: f"{a} / (1.5 + {d.like(a)} ** 2)",
    divide_zero=lambda d, a: f"({a} * {d.array(d.shape(a))}) / (1.5 + {d.like(a)} ** 2)",
    times_known=lambda d, a: f"{a} * {d.array(d.shape(a))}",
    plus_known=lambda d, a: f"{a} * {d.array(d.shape(a))} + {d.array(d.shape(a))}",
    times_zero=lambda d, a: f"({a} * {d.array(d.shape(a))}) * ({d.like(a)} * {d.array(d.shape(a))})",
    max_zero=lambda d, a: f"jnp.{d.choose(['maximum', 'minimum', 'hypot', 'logaddexp'])}({a}, {d.like(a)})",
    reduce=lambda d, a: f"jnp.{d.choose(['mean', 'max', 'min', 'sum', 'std', 'var'])}({a}, axis={d.axis(a)})",
    reduce_all=lambda d, a: f"jnp.{d.choose(['mean', 'max', 'min', 'median', 'ptp'])}({a})",
    product=lambda d, a: f"jnp.prod(jnp.tanh({a}), axis={d.axis(a)})",
    count=lambda d, a: f"jnp.{d.choose(['any', 'all', 'count_nonzero'])}({a} > 0.2, axis={d.axis(a)}).astype(float)",
    masked_sum=lambda d, a: f"jnp.sum({a}, axis={d.axis(a)}, where={d.mask(d.shape(a))})",
    keepdims=lambda d, a: f"{a} - jnp.max({a}, axis={d.axis(a)}, keepdims=True)",
    arg=lambda d, a: f"jnp.{d.choose(['argmax', 'argmin'])}({a}, axis={d.axis(a)}).astype(float)",
    cumulative=lambda d, a: f"jnp.{d.choose(['cumsum', 'cumprod'])}(jnp.tanh({a}), axis={d.axis(a)})",
    lax_cumulative=lambda d, a: (
        f"lax.{d.choose(['cumsum', 'cummax', 'cummin', 'cumprod', 'cumlogsumexp'])}(jnp.tanh({a}), axis={d.axis(a)}, "
        f"reverse={d.choose([True, False])})"
    ),
    associative=lambda d, a: f"lax.associative_scan(jnp.maximum, {a}, axis={d.axis(a)})",
    difference=lambda d, a: f"jnp.diff({a}, axis={d.axis(a)}, prepend=0.0)",
    softmax=lambda d, a: f"jax.nn.{d.choose(['softmax', 'log_softmax', 'standardize'])}({a}, axis={d.axis(a)})",
    logsumexp=lambda d, a: f"jax.nn.logsumexp({a}, axis={d.axis(a)})",
    flatten="{a}.ravel()",
    transpose="jnp.transpose({a})",
    expand=lambda d, a: f"jnp.expand_dims({a}, {d.axis(a)})",
    broadcast=lambda d, a: f"jnp.broadcast_to({a}, (2, *{a}.shape))",
    roll=lambda d, a: f"jnp.roll({a}, {d.integer(-3, 3)}, axis={d.axis(a)})",
    flip=lambda d, a: f"jnp.flip({a}, axis={d.axis(a)})",
    stack=lambda d, a: f"jnp.stack([{a}, {a} * {d.array(d.shape(a))}, 0.5 * {a}], axis={d.axis(a)})",
    concatenate=lambda d, a: f"jnp.concatenate([{a}, {d.array(d.shape(a))}], axis={d.axis(a)})",
    split=lambda d, a: f"jnp.array_split({a}, 2, axis={d.axis(a)})[{d.integer(0, 1)}]",
    tile="jnp.tile({a}, 2)",
    repeat=lambda d, a: f"jnp.repeat({a}, {d.integer(1, 2)}, axis={d.axis(a)})",
    pad=lambda d, a: (
        f"jnp.pad({a}, {d.integer(1, 2)}, "
        f"mode={d.choose(['constant', 'edge', 'reflect', 'symmetric', 'wrap', 'mean'])!r})"
    ),
    lax_pad=lambda d, a: (
        f"lax.pad({a}, jnp.sum({d.floats(1)}), [({d.integer(-1, 2)}, 1, {d.integer(0, 1)})] * {a}.ndim)"
    ),
    sort=lambda d, a: f"jnp.sort({a}, axis={d.axis(a)})",
    argsort=lambda d, a: f"jnp.argsort({a}, axis={d.axis(a)}).astype(float)",
    sort_by=lambda d, a: (
        f"lax.sort_key_val({a}, {a} * {d.array(d.shape(a))}, dimension={d.axis(a)})[{d.integer(0, 1)}]"
    ),
    # top_k and arctan2 tell -0.0 from 0.0: the sign of a structural zero is not followed
    top_k=lambda d, a: f"lax.top_k(jnp.where({a} == 0, 0.0, {a}), 1)[{d.integer(0, 1)}].astype(float)",
    quantile=lambda d, a: f"jnp.quantile({a}, {d.choose([0.2, 0.5])}, axis={d.axis(a)})",
    where=lambda d, a: f"jnp.where({d.like(a)} > 0, {a}, {d.choose(['0.0', '1.0', d.like(a)])})",
    where_known=lambda d, a: f"jnp.where({d.mask(d.shape(a))}, {a}, {d.choose(['0.0', d.like(a)])})",
    select=lambda d, a: f"jnp.select([{a} > 1, {d.mask(d.shape(a))}], [{a}, 0.5 * {a}], {d.like(a)})",
    search=lambda d, a: (
        f"jnp.searchsorted({d.choose(['jnp.array([-1.0, 0, 1])', f'jnp.sort({d.floats(1)})'])}, {a}) * 0.5"
    ),
    digitize=lambda d, a: f"jnp.digitize({a}, jnp.array([-0.5, 0.2])).astype(float)",
    interp=lambda d, a: f"jnp.interp({a}, jnp.linspace(-1, 1, 4), {d.choose([d.array((4,)), d.vector(4)])})",
    one_hot=lambda d, a: f"jax.nn.one_hot(jnp.argmax({a}, axis={d.axis(a)}), 3)",
    one_hot_cast="jax.nn.one_hot(jnp.clip({a} + 1, 0, 2).astype(int), 3)",
    take_along=lambda d, a: f"jnp.take_along_axis({a}, jnp.argsort({a}, axis={(k := d.axis(a))}), axis={k})",
    take_along_known=lambda d, a: (
        f"jnp.take_along_axis({a}, jnp.argsort({d.array(d.shape(a))}, axis={(k := d.axis(a))}), axis={k})"
    ),
    take=lambda d, a: f"jnp.take({a}, {d.indices(2, d.shape(a)[k := d.axis(a)], True)}, axis={k}, mode='clip')",
    take_unknown=lambda d, a: (
        f"jnp.take({a}, {d.unknown(2, -1, d.shape(a)[k := d.axis(a)])}, axis={k}, "
        f"mode={d.choose(['clip', 'wrap', 'fill'])!r}, fill_value=0.0)"
    ),
    put_along=lambda d, a: (
        f"jnp.put_along_axis({a}, jnp.argmax({a}, axis={(k := d.axis(a))}, "
        f"keepdims=True), 0.5, axis={k}, inplace=False)"
    ),
    jit=lambda d, a: f"jax.jit(lambda c: {d.choose(['jnp.sin(c) * 0.5', 'c[::2]', 'jnp.flip(c, 0)'])})({a})",
    checkpoint="jax.checkpoint(lambda c: jnp.sin(c) ** 2)({a})",
    custom_jvp="with_custom_jvp({a})",
    custom_vjp="with_custom_vjp({a})",
    gradient_elementwise="jax.grad(lambda c: jnp.sum(with_custom_vjp(c) ** 2))({a})",
    stop_gradient="lax.stop_gradient({a})",
    nan_to_num="jnp.nan_to_num({a})",
    reduce_window=lambda d, a: (
        f"lax.reduce_window({a}, {d.choose(['-jnp.inf, lax.max', '0.0, lax.add'])}, "
        f"(2,) * {a}.ndim, (1,) * {a}.ndim, 'SAME')"
    ),
    general_reduce=lambda d, a: f"lax.reduce({a}, 0.0, lambda p, q: jnp.hypot(p, q), ({d.axis(a)},))",
    fold_key=lambda d, a: (
        f"jax.random.normal(jax.random.fold_in(jax.random.key(0), (jnp.abs({a}).ravel()[0] * 1e3).astype(int)), (2,))"
    ),
    key_data=lambda d, a: (
        f"jax.vmap(lambda s: jax.random.uniform(jax.random.key(s)))((jnp.abs({a}).ravel() * 1e3).astype(int))"
    ),
    complex=lambda d, a: f"jnp.{d.choose(['real', 'imag', 'abs'])}(lax.complex({a}, 0.5 * {d.vector(1)}[0] + 0 * {a}))",
    fourier=lambda d, a: f"jnp.abs(jnp.fft.fft({a}, axis={d.axis(a)}))",
)
templates(
    1,
    slice=lambda d, a: f"{a}[{d.choose(['::2', '1:', ':-1', '::-1', '-1:'])}]",
    index=lambda d, a: f"{a}[{d.indices(3, d.shape(a)[0])}]",
    index_fill=lambda d, a: (
        f"{a}.at[{d.indices(3, d.shape(a)[0], True)}].get(mode={d.choose(['fill', 'clip'])!r}, fill_value=0.0)"
    ),
    index_unknown=lambda d, a: f"{a}[{d.unknown(3, -2, d.shape(a)[0] + 1)}]",
    element_unknown=lambda d, a: f"{a}[{d.unknown_scalar(0, d.shape(a)[0] - 1)}]",
    set_known=lambda d, a: (
        f"{a}.at[{d.indices(2, d.shape(a)[0], True)}].{d.choose(['set', 'add', 'multiply', 'min', 'max', 'divide'])}"
        f"({d.choose(['0.7', d.vector(2) + ' ** 2 + 0.5'])})"
    ),
    set_unknown=lambda d, a: (
        f"{a}.at[{d.unknown(2, -2, d.shape(a)[0])}].{d.choose(['set', 'add', 'multiply', 'min', 'max'])}"
        f"({d.choose(['0.7', d.vector(2)])}, mode={d.choose(['drop', 'clip'])!r})"
    ),
    set_unique=lambda d, a: f"{a}.at[{d.indices(1, d.shape(a)[0])}].set(0.5 * {d.vector(1)}, unique_indices=True)",
    apply=lambda d, a: f"{a}.at[{d.indices(2, d.shape(a)[0])}].apply(lambda c: jnp.sin(c) + 1)",
    at_power=lambda d, a: f"jnp.tanh({a}).at[{d.indices(2, d.shape(a)[0])}].power(2.0)",
    set_slice=lambda d, a: f"{a}.at[1:].{d.choose(['set', 'add', 'multiply'])}({a}[:-1])",
    arctan2=lambda d, a: f"jnp.arctan2({a}, 1.5 + jnp.sin({d.like(a)}))",
    set_mask=lambda d, a: f"{a}.at[{d.mask(d.shape(a))}].set(0.0)",
    dynamic_slice=lambda d, a: f"lax.dynamic_slice({a}, ({d.integer(-1, 3)},), (2,))",
    dynamic_slice_unknown=lambda d, a: f"lax.dynamic_slice({a}, ({d.unknown_scalar(-1, 3)},), (2,))",
    dynamic_update=lambda d, a: f"lax.dynamic_update_slice({a}, {d.vector(2)}, ({d.integer(-1, 5)},))",
    dynamic_update_unknown=lambda d, a: f"lax.dynamic_update_slice({a}, {d.vector(2)}, ({d.unknown_scalar(-1, 3)},))",
    matrix_vector=lambda d, a: f"{d.array((3, d.shape(a)[0]), 0.6)} @ {a}",
    vector_matrix=lambda d, a: f"{a} @ {d.square(d.shape(a)[0])}" if d.shape(a)[0] <= 5 else f"jnp.vdot({a}, {a})",
    outer=lambda d, a: f"jnp.outer({a}, {d.vector(2)})",
    diagonal=lambda d, a: f"jnp.diag({a}[:4]) @ {d.array((len(range(d.shape(a)[0])[:4]), 3))}",
    toeplitz="jax.scipy.linalg.toeplitz({a}[:4])",
    vander="jnp.vander(jnp.tanh({a}[:4]), 3)",
    convolve=lambda d, a: (
        f"jnp.convolve({a}, {d.choose([d.array((3,)), d.vector(2)])}, mode={d.choose(['full', 'same', 'valid'])!r})"
    ),
    segment=lambda d, a: (
        f"jax.ops.segment_{d.choose(['sum', 'prod'])}(jnp.tanh({a}), {d.indices(d.shape(a)[0], 3)}, 3)"
    ),
    segment_max=lambda d, a: f"jnp.nan_to_num(jax.ops.segment_max({a}, {d.indices(d.shape(a)[0], 3)}, 3), neginf=0.0)",
    segment_unknown=lambda d, a: f"jax.ops.segment_sum({a}, {d.unknown(d.shape(a)[0], 0, 2)}, 3)",
    bincount=lambda d, a: f"jnp.bincount({d.unknown(3, 0, 3)}, length=4).astype(float)",
    histogram=lambda d, a: f"jnp.histogram({a}, bins=3, range=(-2, 2), weights={d.array(d.shape(a))})[0]",
    lower_ones="jnp.tri({a}.shape[0]) @ {a}",
    polynomial="jnp.polyval({a}[:3], jnp.linspace(-1, 1, 4))",
    trapezoid="jnp.trapezoid({a})",
    reshape=lambda d, a: f"cycled({a}, ({d.choose(['2, 3', '3, 2', '1, 6', '2, 1, 3'])}))",
    meshgrid="jnp.meshgrid({a}[:3], {a}[-2:])[0]",
    unique_sized="jnp.unique({a}, size=3)",
    nonzero_sized="jnp.nonzero({a} > 0, size=2)[0].astype(float)",
    choice=lambda d, a: f"jax.random.categorical(jax.random.key(1), {a}).astype(float)[None]",
    permuted="jax.random.permutation(jax.random.key(2), {a})",
    shuffled=lambda d, a: f"{a}[jax.random.permutation(jax.random.key(2), {a}.shape[0])]",
    gamma_draw="jax.random.gamma(jax.random.key(3), jnp.exp(jnp.tanh({a})))",
)
templates(
    2,
    rows=lambda d, a: f"{a}[{d.indices(2, d.shape(a)[0])}]",
    columns=lambda d, a: f"{a}[:, {d.indices(2, d.shape(a)[1])}]",
    pairs=lambda d, a: f"{a}[{d.indices(3, d.shape(a)[0])}, {d.indices(3, d.shape(a)[1])}]",
    row_unknown=lambda d, a: f"{a}[{d.unknown_scalar(-1, d.shape(a)[0])}]",
    column_unknown=lambda d, a: f"{a}[:, {d.unknown(2, -1, d.shape(a)[1])}]",
    pairs_unknown=lambda d, a: f"{a}[{d.indices(2, d.shape(a)[0])}, {d.unknown(2, -1, d.shape(a)[1])}]",
    vmap_index=lambda d, a: f"jax.vmap(lambda row, i: row[i])({a}, {d.unknown(d.shape(a)[0], 0, d.shape(a)[1] - 1)})",
    vmap_index_columns=lambda d, a: (
        f"jax.vmap(lambda c, i: c[i], in_axes=(1, 0))({a}, {d.unknown(d.shape(a)[1], 0, d.shape(a)[0] - 1)})"
    ),
    vmap_set=lambda d, a: (
        f"jax.vmap(lambda row, i: row.at[i].{d.choose(['set', 'add'])}(0.3))({a}, "
        f"{d.indices(d.shape(a)[0], d.shape(a)[1])})"
    ),
    vmap_set_unknown=lambda d, a: (
        f"jax.vmap(lambda row, i: row.at[i].add(row[0]))({a}, {d.unknown(d.shape(a)[0], 0, d.shape(a)[1])})"
    ),
    vmap_slice=lambda d, a: (
        f"jax.vmap(lambda row, i: lax.dynamic_slice(row, (i,), (1,)))({a}, "
        f"{d.choose([d.indices, lambda n, m: d.unknown(n, 0, m)])(d.shape(a)[0], d.shape(a)[1])})"
    ),
    vmap_update=lambda d, a: (
        "jax.vmap(lambda row, i: lax.dynamic_update_slice(row, row[:1] "
        f"* 0.5, (i,)))({a}, {d.indices(d.shape(a)[0], d.shape(a)[1])})"
    ),
    set_column=lambda d, a: (
        f"{a}.at[:, {d.integer(0, 1)}].{d.choose(['set', 'add', 'multiply', 'max'])}({d.choose(['0.0', '0.4'])})"
    ),
    set_pairs=lambda d, a: (
        f"{a}.at[{d.indices(2, d.shape(a)[0])}, "
        f"{d.indices(2, d.shape(a)[1], True)}].{d.choose(['set', 'add', 'multiply'])}"
        f"({d.vector(2)})"
    ),
    set_row_unknown=lambda d, a: f"{a}.at[{d.unknown_scalar(-1, d.shape(a)[0])}].{d.choose(['set', 'add'])}({a}[0])",
    slice_matrix=lambda d, a: f"{a}[{d.choose(['::-1, :1', '1:, ::2', ':, None, 0', '..., -1'])}]",
    dynamic_slice_matrix=lambda d, a: (
        f"lax.dynamic_slice({a}, ({d.choose([d.integer(0, 2), d.unknown_scalar(0, 2)])}, {d.integer(0, 2)}), (1, 2))"
    ),
    product_known=lambda d, a: f"{d.array((2, d.shape(a)[0]), 0.6)} @ {a} * 0.5",
    gram="jnp.tanh({a} @ {a}.T)",
    einsum=lambda d, a: (
        f"jnp.einsum({d.choose(['ij,ij->i', 'ij,ij->j', 'ij,ij->ij', 'ij,ik->jk', 'ij,kj->ik'])!r}, "
        f"{a}, {a} * {d.array(d.shape(a))})"
    ),
    batched_product=lambda d, a: f"jnp.einsum('bi,bj->bij', {a}, {a} * {d.array(d.shape(a))})[:, 0]",
    tensordot=lambda d, a: f"jnp.tensordot({a}, {d.array((2, *d.shape(a)), 0.6)}, axes=[[0, 1], [1, 2]])",
    triangle=lambda d, a: f"jnp.{d.choose(['triu', 'tril'])}({a}, {d.integer(-1, 1)})",
    trace="jnp.trace({a})[None]",
    swap="jnp.swapaxes({a}, 0, 1)",
    kron="jnp.kron({a}[:2, :2], jnp.eye(2))",
    cross="jnp.cross(cycled({a}, (2, 3)), jnp.array([1.0, 0, 0]))",
    covariance="jnp.cov({a})",
    norm=lambda d, a: f"jnp.linalg.norm({a}, axis={d.axis(a)})",
    scan_rows=lambda d, a: (
        f"lax.scan(lambda c, row: ({d.body('(0.3 * c + row)', d.shape(a)[1])}, c * "
        f"2), {d.vector(d.shape(a)[1])}, {a}, reverse={d.choose([True, False])})[1]"
    ),
    image_convolution=lambda d, a: (
        f"lax.conv_general_dilated({a}[None, None], {d.array((1, 1, 2, 2))}, (1, 1), 'SAME')[0, 0]"
    ),
    unknown_kernel=lambda d, a: (
        f"lax.conv_general_dilated({d.array((1, 1, 3, 3))}, {a}[None, None, :2, :2], (1, 1), 'VALID')[0, 0]"
    ),
    grouped_convolution=lambda d, a: (
        f"lax.conv_general_dilated({a}[None], {d.array(d.shape(a))}[:, "
        f"None, :2], (1,), 'SAME', feature_group_count={d.shape(a)[0]})[0]"
    ),
    vmap_sort_search="jax.vmap(lambda row: jnp.searchsorted(jnp.sort(row), 0.2))({a}) * 0.5",
    lexsort="jnp.lexsort(({a}[0], {a}[1])).astype(float)",
    pool="lax.reduce_window({a}, -jnp.inf, lax.max, (2, 1), (1, 1), 'SAME')",
    pool_gradient=(
        "jax.grad(lambda c: jnp.sum(lax.reduce_window(c, -jnp.inf, lax.max, (2, 1), (1, 1), 'SAME') ** 2))({a})"
    ),
    vmap_roll=lambda d, a: f"jax.vmap(lambda c: jnp.roll(c, 1) * c[0], in_axes={(k := d.axis(a))}, out_axes={k})({a})",
)


@operation
def solve_triangular(d):
    n = d.integer(2, 4)
    lower, right = d.lower(n), d.choose([d.vector(n), f"{d.array((n, 2))} * {d.vector(n)}[:, None]"])
    return (
        f"jax.scipy.linalg.solve_triangular({lower}, {right}, lower=True, "
        f"trans={d.integer(0, 1)}, unit_diagonal={d.choose([True, False])})"
    )


@operation
def solve_triangular_upper(d):
    n = d.integer(2, 4)
    return f"jax.scipy.linalg.solve_triangular({d.lower(n)}.T, {d.vector(n)}, trans={d.integer(0, 1)})"


@operation
def solve_right(d):
    n = d.integer(2, 3)
    return (
        f"lax.linalg.triangular_solve({d.lower(n)}, {d.vector(n)}[None] * {d.array((2, n))}, left_side=False, "
        f"lower=True, transpose_a={d.choose([True, False])})"
    )


@operation
def cholesky(d):
    n = d.integer(2, 4)
    return f"jnp.linalg.cholesky({d.positive(n)}, upper={d.choose([True, False])})"


@operation
def cho_solve(d):
    n = d.integer(2, 4)
    return f"jax.scipy.linalg.cho_solve((jnp.linalg.cholesky({d.positive(n)}), True), {d.vector(n)})"


@operation
def solve(d):
    n = d.integer(2, 4)
    return f"jnp.linalg.solve({d.positive(n)}, {d.vector(n)})"


@operation
def inverse(d):
    return f"jnp.linalg.{d.choose(['inv', 'pinv'])}({d.positive(d.integer(2, 3))})"


@operation
def determinant(d):
    code = d.choose(["det({})", "slogdet({})[1]"])
    return "jnp.linalg." + code.format(d.positive(d.integer(2, 3)))


@operation
def eigenvalues(d):
    return f"jnp.linalg.eigvalsh({d.positive(d.integer(2, 3))})"


@operation
def qr(d):
    return f"jnp.abs(jnp.linalg.qr({d.positive(d.integer(2, 3))})[1])"


@operation
def batched_cholesky(d):
    n = d.integer(2, 3)
    return f"jax.vmap(jnp.linalg.cholesky)(jnp.stack([{d.positive(n)}, {d.positive(n)}]))"


@operation
def matrix_exponential(d):
    return f"jax.scipy.linalg.expm(0.3 * {d.square(2)})"


@operation
def tridiagonal(d):
    n = 4
    a, b = d.vector(n), d.vector(n)
    return (
        f"lax.linalg.tridiagonal_solve(0.3 * jnp.tanh({a}).at[0].set(0), 2 "
        f"+ jnp.tanh({b}), 0.3 * jnp.tanh({b}).at[-1].set(0), {a}[:, None])"
    )


@operation
def scan_carry(d):
    a = d.floats(1)
    n = d.shape(a)[0]
    return (
        f"lax.scan(lambda c, t: ({d.body('c', n, 't')}, c[0] + t), {a}, "
        f"jnp.arange({d.integer(1, 5)}), reverse={d.choose([True, False])})[{d.integer(0, 1)}]"
    )


@operation
def scan_scalar(d):
    a, rate = d.floats(1), d.choose(["0.5", "0.0", "1.0"])
    return f"lax.scan(lambda c, u: (jnp.tanh(c * {rate} + u), c), {d.choose(['0.0', 'x[0]'])}, {a})[1]"


@operation
def scan_swap(d):
    a = d.floats(1)
    n, b = d.shape(a)[0], d.vector(d.shape(a)[0])
    return f"lax.scan(lambda s, t: ((s[1], {d.body('s[0]', n, 't')}), s[0][t]), ({a}, {b}), jnp.arange({n}))[1]"


@operation
def fori_loop(d):
    a = d.floats(1)
    n = d.shape(a)[0]
    return f"lax.fori_loop({d.integer(0, 1)}, {d.integer(1, 5)}, lambda i, c: {d.body('c', n, 'i')}, {a})"


@operation
def fori_loop_unknown(d):
    a = d.floats(1)
    n, stop = d.shape(a)[0], d.unknown_scalar(0, 4)
    return f"lax.fori_loop({d.choose([0, d.unknown_scalar(0, 2)])}, {stop}, lambda i, c: {d.body('c', n, 'i')}, {a})"


@operation
def while_known(d):
    a = d.floats(1)
    n = d.shape(a)[0]
    return (
        f"lax.while_loop(lambda s: s[0] < {d.integer(1, 4)}, lambda "
        f"s: (s[0] + 1, {d.body('s[1]', n, 's[0]')}), (0, {a}))[1]"
    )


@operation
def while_unknown(d):
    a = d.floats(1)
    n, b = d.shape(a)[0], d.floats(1)
    condition = d.choose([f"jnp.abs({b}[0]) * 3 > s[0]", "jnp.abs(s[1][0]) > 0.2", f"jnp.sum(s[1]) < {b}[-1]"])
    return (
        f"lax.while_loop(lambda s: (s[0] < 5) & ({condition}), lambda s: (s[0] "
        f"+ 1, {d.body('s[1]', n, 's[0]')}), (0, {a}))[{d.integer(0, 1)}] * 1.0"
    )


@operation
def while_shift(d):
    a = d.floats(1)
    n, b, c = d.shape(a)[0], d.vector(d.shape(a)[0]), d.vector(d.shape(a)[0])
    return (
        f"lax.while_loop(lambda s: (s[0] < 6) & ({d.floats(1)}[0] > 0.2 * s[0]), "
        f"lambda s: (s[0] + 1, {d.body('s[2]', n)}, s[3], s[1]), (0, {a}, {b}, {c}))[{d.integer(1, 3)}]"
    )


@operation
def conditional(d):
    a = d.floats(1)
    n = d.shape(a)[0]
    predicate = d.choose([f"{d.floats(1)}[0] > 0", f"jnp.sum({d.array((3,))}) > 0"])
    return f"lax.cond({predicate}, lambda c: {d.body('c', n)}, lambda c: {d.body('c', n)}, {a})"


@operation
def switch(d):
    a = d.floats(1)
    n, which = d.shape(a)[0], d.choose([d.unknown_scalar(-1, 3), f"{d.integer(0, 2)}"])
    branches = ", ".join(f"lambda c: {d.body('c', n)}" for _ in range(3))
    return f"lax.switch({which}, [{branches}], {a})"


@operation
def vmap_body(d):
    a = d.floats(2)
    return f"jax.vmap(lambda c: {d.body('c', d.shape(a)[1])})({a})"


@operation
def vmap_scan(d):
    a = d.floats(2)
    n = d.shape(a)[1]
    return f"jax.vmap(lambda c: lax.fori_loop(0, 3, lambda i, c: {d.body('c', n, 'i')}, c))({a})"


@operation
def vmap_while(d):
    a = d.floats(2)
    n = d.shape(a)[1]
    return (
        f"jax.vmap(lambda c: lax.while_loop(lambda s: (s[0] < 4) & (s[1][0] > -0.5), "
        f"lambda s: (s[0] + 1, {d.body('s[1]', n)}), (0, c))[1])({a})"
    )


@operation
def vmap_cond(d):
    a = d.floats(2)
    n = d.shape(a)[1]
    return f"jax.vmap(lambda c: lax.cond(c[0] > 0, lambda u: {d.body('u', n)}, lambda u: {d.body('u', n)}, c))({a})"


@operation
def vmap_switch(d):
    a = d.floats(2)
    rows, n = d.shape(a)
    which = d.unknown(rows, 0, 1)
    return f"jax.vmap(lambda c, k: lax.switch(k, [lambda u: {d.body('u', n)}, lambda u: 0.5 * u], c))({a}, {which})"


@operation
def map_rows(d):
    a = d.floats(2)
    return f"lax.map(lambda c: {d.body('c', d.shape(a)[1])}, {a})"


@operation
def jit_body(d):
    a = d.floats(1)
    wrap = d.choose(["jax.jit", "jax.checkpoint", "jax.jit(jax.checkpoint", "jax.linearize"])
    body = d.body("c", d.shape(a)[0])
    if wrap == "jax.linearize":
        return f"jax.linearize(lambda c: {body}, {a})[1]({a})"
    return f"{wrap}(lambda c: {body}{')' * wrap.count('(')})({a})"


@operation
def gradient(d):
    a = d.floats(1)
    n = d.shape(a)[0]
    return f"jnp.tanh(jax.grad(lambda c: jnp.sum(jnp.sin({d.body('c', n)}) * {d.array((n,))}))({a}))"


@operation
def gradient_of_scan(d):
    a = d.floats(1)
    n = d.shape(a)[0]
    inner = f"lax.scan(lambda s, t: ({d.body('s', n, 't')}, jnp.sin(s[0])), c, jnp.arange(3))[1]"
    return f"jnp.tanh(jax.grad(lambda c: jnp.sum({inner} ** 2))({a}))"


@operation
def hessian(d):
    a = d.floats(1)
    n = d.shape(a)[0]
    return (
        f"jnp.tanh(jax.hessian(lambda c: jnp.sum(jnp.sin({d.body('c', n)}) ** 2))({a}[:{n}]))" if n <= 5 else f"{a} * 2"
    )


@operation
def jacobian_product(d):
    a = d.floats(1)
    n = d.shape(a)[0]
    return f"jax.jvp(lambda c: {d.body('c', n)}, ({a},), ({d.array((n,))},))[1]"


@operation
def custom_linear_solve(d):
    n = d.integer(2, 3)
    matrix = d.positive(n)
    solve = f"lambda product, b: jnp.linalg.solve({matrix}, b)"
    return f"lax.custom_linear_solve(lambda v: {matrix} @ v, {d.vector(n)}, solve={solve}, symmetric=True)"


@operation
def integrate(d):
    return (
        f"lax.scan(lambda u, t: (u + 0.1 * jnp.stack([{d.floats(1)}[0] "
        "* u[0] - u[1], u[0] * t]), u), jnp.ones(2), jnp.arange(4.0))[1]"
    )


@operation
def carried_index(d):
    a = d.floats(1)
    n = d.shape(a)[0]
    return (
        f"lax.scan(lambda s, _: (((s[0] + 2) % {n}, s[1] * 0.5 + "
        f"{a}[s[0]]), s[1]), ({d.integer(0, n - 1)}, 0.0), None, length=3)[1]"
    )


@operation
def walking_index(d):
    a = d.floats(1)
    n = d.shape(a)[0]
    return (
        f"lax.fori_loop(0, 3, lambda t, s: (jnp.clip(s[0] + jnp.where({a}[s[0]] > 0, 1, -1), "
        f"0, {n - 1}), s[1].at[t].set({a}[s[0]])), ({d.integer(0, n - 1)}, jnp.zeros(3)))[1]"
    )
