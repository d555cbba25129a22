"""How fast training and sampling run on the device at hand, beside what its matrix products alone would take."""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr
from jaxtyping import Array

from simformer_ppl.benchmarks.machine import device
from simformer_ppl.benchmarks.published_network import PublishedNetwork
from simformer_ppl.benchmarks.tasks.catalogue import TASKS
from simformer_ppl.diffusion.process import PROCESSES
from simformer_ppl.joint import LearnedJoint
from simformer_ppl.labelled_arrays import dataset_to_arrays
from simformer_ppl.sequences import Sequence, Sequences
from simformer_ppl.simformer import Simformer
from simformer_ppl.tokens.layout import TokenLayout
from simformer_ppl.training.fit import Trainer
from simformer_ppl.training.optimiser import make_optimiser

_STEPS, _REPEATS = 20, 3
_DRAWS = 10_000


def measure_device(name: str, batches: list[int]) -> Iterator[dict[str, Any]]:
    """Time training steps of our network and of the published one, and draws.

    Parameters
    ----------
    name
        Of the task whose tokens and masks are used.
    batches
        Examples a step; ours noises each twice.

    Yields
    ------
    Rates in GFLOP/s, milliseconds a step, and the share of it that the step's matrix products would take at the
    measured rate of a large product.
    """
    ceiling = _ceiling()
    yield {"measured": "ceiling", "gflops": round(ceiling / 1e9, 1), "device": device()}
    task = TASKS[name]
    simformer = Simformer(task.model, **task.options, use_density=False)
    sequence, joint, channels = _before_training(simformer, max(batches))
    for batch in batches:
        flops, seconds = _our_step(sequence, joint, channels, batch)
        yield _row("simformer_ppl", name, 2 * batch, flops, seconds, ceiling, joint.parameters)
        run, weights = _published_run(simformer.structure.num_tokens, 2 * batch)
        flops = _products(jax.make_jaxpr(run)(weights, 1))
        seconds = fastest(partial(run, weights, _STEPS)) / _STEPS
        yield _row("published network", name, 2 * batch, flops, seconds, ceiling, weights)
    yield _time_draws(simformer, name)


def _before_training(simformer: Simformer, num_simulations: int) -> tuple[Sequence, LearnedJoint, np.ndarray]:
    """The tokens of an example, a network of random weights, and simulations as channels."""
    structure, attention = simformer.structure, simformer.attention
    layout = TokenLayout.of(structure, share_exchangeable=simformer.share_exchangeable)
    simulations = dataset_to_arrays(structure, simformer.simulate(jax.random.key(0), num_simulations))
    channels = np.asarray(jax.jit(layout.encode)(simulations))
    sequences = Sequences(structure, layout, attention, simformer.share_exchangeable, simformer.network_config)
    joint = sequences.initial_joint(jax.random.key(1), channels, PROCESSES[simformer.process])
    return sequences.training, joint, channels


def _our_step(sequence: Sequence, joint: LearnedJoint, channels: np.ndarray, batch: int) -> tuple[float, float]:
    """FLOP of the products of a training step, and its seconds."""
    trainer = Trainer(sequence, joint.standardisation, joint.process, make_optimiser(1e-3, 1_000), batch)
    state, key, data = trainer.start(joint.parameters), jax.random.key(3), (jnp.asarray(channels), None)
    flops = _products(jax.make_jaxpr(trainer.step)(state, key, data))
    return flops, fastest(partial(trainer.run, state, key, data, _STEPS)) / _STEPS


def _time_draws(simformer: Simformer, name: str) -> dict[str, Any]:
    simformer.fit(jax.random.key(0), 256, num_steps=10, progress_bar=False)
    observation = {site.name: np.zeros(site.shape) for site in simformer.structure.sites.values() if site.is_data}
    posterior = simformer.condition(observation)
    return {
        "measured": "draws",
        "task": name,
        "draws": _DRAWS,
        "evaluations": PROCESSES[simformer.process].default_steps,
        "seconds": round(fastest(partial(posterior.draw, jax.random.key(0), (_DRAWS,))), 2),
        "device": device(),
    }


def _row(
    network: str, name: str, rows: int, flops: float, seconds: float, ceiling: float, parameters: Any
) -> dict[str, Any]:
    return {
        "measured": "training step",
        "network": network,
        "task": name,
        "sequences": rows,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(parameters)),
        "step_ms": round(1e3 * seconds, 2),
        "products_gflop": round(flops / 1e9, 3),
        "share_of_ceiling": round(flops / seconds / ceiling, 3),
        "device": device(),
    }


def _published_run(num_tokens: int, batch: int) -> tuple[Callable[[Any, int], Any], Any]:
    """Training steps of the published network with Adam, in one compiled loop like ours."""
    graph, parameters = nnx.split(PublishedNetwork(num_tokens, nnx.Rngs(0)))
    keys = jax.random.split(jax.random.key(0), 3)
    values, noise = jax.random.normal(keys[0], (2, batch, num_tokens))
    conditioned = jax.random.bernoulli(keys[1], 0.5, (batch, num_tokens))
    label, mask = jax.random.normal(keys[2], (batch,)), jnp.ones((batch, num_tokens, num_tokens), bool)
    optimiser = optax.adam(1e-3)

    def loss(parameters: Any) -> Array:
        predicted = nnx.merge(graph, parameters)(values, conditioned, label, mask)
        return jnp.where(conditioned, 0.0, (predicted + noise) ** 2).mean()

    def step(_: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        parameters, state = carry
        updates, state = optimiser.update(jax.grad(loss)(parameters), state)
        return optax.apply_updates(parameters, updates), state

    @jax.jit
    def run(parameters: Any, num_steps: int) -> Any:
        return jax.lax.fori_loop(0, num_steps, step, (parameters, optimiser.init(parameters)))

    return run, parameters


def _ceiling() -> float:
    """FLOP/s of a large product of single-precision matrices."""
    size = 1_024 if jax.default_backend() == "cpu" else 8_192
    matrix = jax.random.normal(jax.random.key(0), (size, size))
    multiply = jax.jit(lambda a: a @ a)
    return 2 * size**3 / fastest(lambda: multiply(matrix))


def _products(program: ClosedJaxpr) -> float:
    """FLOP of all matrix products of a program."""
    return _products_of(program.jaxpr)


def _products_of(program: Any) -> float:
    total = 0.0
    for equation in program.eqns:
        if equation.primitive.name == "dot_general":
            contracted = equation.params["dimension_numbers"][0][0]
            left, result = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            total += 2 * math.prod(result) * math.prod(left[axis] for axis in contracted)
            continue
        for parameter in equation.params.values():
            inner = getattr(parameter, "jaxpr", parameter)
            if isinstance(inner, Jaxpr):
                total += _products_of(inner) * equation.params.get("length", 1)
    return total


def fastest(call: Callable[[], Any]) -> float:
    """Seconds of the fastest of a few calls, after one that compiles."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return min(seconds)
