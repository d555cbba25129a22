"""The training loop: compiled over many steps, data-parallel over all devices."""

import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray
from tqdm import tqdm

from simformer_ppl.compilation import ONE_THREAD
from simformer_ppl.condition import make_condition
from simformer_ppl.diffusion.control_variate import ModelGradient
from simformer_ppl.diffusion.loss import denoising_loss
from simformer_ppl.diffusion.process import Process
from simformer_ppl.exceptions import TrainingWarning
from simformer_ppl.sequences import Sequence
from simformer_ppl.tokens.functions import Functions
from simformer_ppl.tokens.masks import EVERY_QUESTION, Questions, draw_states
from simformer_ppl.tokens.plates import draw_present
from simformer_ppl.tokens.standardisation import Standardisation
from simformer_ppl.tokens.states import ABSENT, LATENT
from simformer_ppl.training.checkpoint import Checkpoints
from simformer_ppl.training.devices import batch_sharding, replicated, tell_devices

STEPS_PER_REPORT = 50
REPORTS_PER_VALIDATION = 5
VALIDATION_REPEATS = 4
MOST_VALIDATED = 2_048
"""Held-out simulations on which the loss is computed: more would cost more than training on many simulations."""

DECAY = 0.999


class TrainingState(NamedTuple):
    """All that a training run carries from step to step."""

    step: Int[Array, ""]
    parameters: nnx.State
    average: nnx.State
    optimiser: optax.OptState
    best: nnx.State
    best_loss: Float[Array, ""]


@dataclass(frozen=True, eq=False)
class Trainer:
    """The compiled pieces of a training run.

    Attributes
    ----------
    sequence
        The tokens of an example, and the network for them.
    standardisation
        Of the channels of all tokens.
    process
        Noise levels and preconditioning.
    optimiser
        Gradient transformation over the whole schedule.
    batch_size
        Examples a step.
    gradient
        What training needs to know of the model's gradients, but for their values; None, where they are unknown.
    questions
        How often each kind of question is asked.
    functions
        Sites of which every example has some points.
    """

    sequence: Sequence
    standardisation: Standardisation
    process: Process
    optimiser: optax.GradientTransformation
    batch_size: int
    gradient: ModelGradient | None = None
    questions: Questions = EVERY_QUESTION
    functions: Functions | None = None

    def start(self, parameters: nnx.State) -> TrainingState:
        """State before the first step."""
        optimiser = self.optimiser.init(parameters)
        zero, worst = jnp.zeros((), jnp.int32), jnp.full((), jnp.inf, jnp.float32)
        state = TrainingState(zero, parameters, parameters, optimiser, parameters, worst)
        # placed as the compiled steps return it, so that they compile once
        return jax.device_put(state, replicated(self.batch_size))

    def loss(
        self,
        parameters: nnx.State,
        rng_key: PRNGKeyArray,
        channels: Float[Array, "batch channels"],
        gradient: Float[Array, "batch channels"] | None = None,
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """What is to be minimised, and the denoising loss, of a batch under freshly drawn condition masks.

        Discrete values are dequantised where they are diffused, and enter plain where they are given.
        """
        place_key, mask_key, quantum_key, noise_key = jax.random.split(rng_key, 4)
        element_key = jax.random.fold_in(place_key, 1)
        layout, standardisation, coordinates, there = self.sequence.layout, self.standardisation, None, None
        known = None if gradient is None or self.gradient is None else self.gradient._replace(values=gradient)
        if self.functions is not None:
            points = self.functions.draw_points(place_key, channels.shape[0], self.sequence.points)
            places = self.sequence.channels_at(points.places)
            channels = jnp.take_along_axis(channels, places, 1)
            standardisation = Standardisation(*(part[:, places] for part in standardisation))
            known = None if known is None else known.at(places)
            coordinates = self.sequence.along_tokens(points.scaled)
            there = self.sequence.along_tokens(points.there) | ~self.sequence.is_point
        states = draw_states(
            mask_key,
            channels.shape[0],
            layout.is_data,
            layout.unit_of_token,
            layout.site_of_token,
            self.questions,
            layout.is_covariate,
            layout.is_embedded_token,
        )
        target = standardisation.forward(layout.dequantise(quantum_key, channels))
        states = states if there is None else jnp.where(there, states, ABSENT)
        if len(self.sequence.elements):
            present = draw_present(element_key, channels.shape[0], self.sequence.elements)
            present |= ~(present & (states == LATENT)).any(-1, keepdims=True)  # one token at least is asked for
            states = jnp.where(present, states, ABSENT)
        network = nnx.merge(self.sequence.graph, parameters)
        parts = network, layout, self.sequence.attention, standardisation
        condition = make_condition(*parts, channels, states, coordinates)
        return denoising_loss(noise_key, self.process, network, condition, layout.for_network(target), known)

    def step(
        self, state: TrainingState, rng_key: PRNGKeyArray, data: tuple[Array, Array | None]
    ) -> tuple[TrainingState, Array]:
        """One gradient step on a random batch, and the moving average of the parameters."""
        index_key, loss_key = jax.random.split(jax.random.fold_in(rng_key, state.step))
        chosen = jax.random.randint(index_key, (self.batch_size,), 0, data[0].shape[0])
        batch = jax.tree.map(lambda array: array[chosen], data)
        batch = jax.lax.with_sharding_constraint(batch, batch_sharding(self.batch_size))
        (_, loss), gradients = jax.value_and_grad(self.loss, has_aux=True)(state.parameters, loss_key, *batch)
        updates, optimiser = self.optimiser.update(gradients, state.optimiser, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        # a short memory at first, so that the average forgets the initial weights
        decay = jnp.minimum(DECAY, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state.average, parameters)
        return state._replace(step=state.step + 1, parameters=parameters, average=average, optimiser=optimiser), loss

    @partial(jax.jit, static_argnums=0, compiler_options=ONE_THREAD)
    def run(
        self,
        state: TrainingState,
        rng_key: PRNGKeyArray,
        data: tuple[Array, Array | None],
        num_steps: Int[Array, ""],
    ) -> tuple[TrainingState, Float[Array, ""]]:
        """Take some steps without leaving the device; return their mean loss."""

        def body(_: Array, carry: tuple[TrainingState, Array]) -> tuple[TrainingState, Array]:
            state, loss = self.step(carry[0], rng_key, data)
            return state, carry[1] + loss

        state, total = jax.lax.fori_loop(0, num_steps, body, (state, jnp.zeros(())))
        return jax.lax.with_sharding_constraint(state, replicated(self.batch_size)), total / num_steps

    @partial(jax.jit, static_argnums=0, compiler_options=ONE_THREAD)
    def validate(
        self, state: TrainingState, rng_key: PRNGKeyArray, data: Array
    ) -> tuple[TrainingState, Float[Array, ""]]:
        """Loss of the averaged weights on held-out simulations; the best so far are kept.

        The same masks and noise every time, so that losses compare.
        """
        # in batches, and short of the remainder: a large held-out set at once may not fit into memory
        size = min(self.batch_size, len(data))
        batches = data[: len(data) // size * size].reshape(-1, size, data.shape[1])

        def repeat(key: PRNGKeyArray) -> Float[Array, " batches"]:
            keys = jax.random.split(key, len(batches))
            return jax.lax.map(lambda pair: self.loss(state.average, *pair)[1], (keys, batches))

        loss = jax.lax.map(repeat, jax.random.split(rng_key, VALIDATION_REPEATS)).mean()
        better = loss < state.best_loss
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), state.average, state.best)
        state = state._replace(best=best, best_loss=jnp.where(better, loss, state.best_loss))
        return jax.lax.with_sharding_constraint(state, replicated(self.batch_size)), loss


def train(
    trainer: Trainer,
    turns: tuple[Sequence, ...],
    parameters: nnx.State,
    rng_key: PRNGKeyArray,
    training_set: Float[np.ndarray, "simulations channels"],
    validation_set: Float[np.ndarray, "held_out channels"],
    gradients: Float[Array, "simulations channels"] | None,
    num_steps: int,
    bar: tqdm,
    checkpoints: Checkpoints | None = None,
) -> tuple[nnx.State, xr.Dataset]:
    """Take `num_steps` steps, looking at the losses now and then.

    Parameters
    ----------
    trainer
        The compiled pieces.
    turns
        Sequences that steps are taken on in turn; the losses that are compared are those of the trainer's own.
    parameters
        Where to start.
    rng_key
        Source of all randomness; step by step, so that a run that was cut off goes on the same.
    training_set, validation_set
        Channels, not standardised.
    gradients
        Of the model's log density at the training set, where they are known.
    num_steps
        Length of the schedule.
    bar
        Shows the progress.
    checkpoints
        Where to keep the state, and to go on from.

    Returns
    -------
    The averaged parameters with the lowest validation loss, and both losses over ``step``.
    """
    tell_devices(trainer.batch_size)
    step_key, validation_key = jax.random.split(rng_key)
    placement = replicated(trainer.batch_size)
    data, held_out = jax.device_put(((training_set, gradients), validation_set[:MOST_VALIDATED]), placement)
    state = trainer.start(parameters)
    compiled = {sequence: replace(trainer, sequence=sequence) for sequence in turns} | {trainer.sequence: trainer}
    stored = checkpoints.newest(state) if checkpoints else None
    # the weights that training starts from count as the best so far
    state = (
        trainer.validate(state, validation_key, held_out)[0] if stored is None else jax.device_put(stored, placement)
    )
    done, history = int(state.step), []
    bar.update(done)
    try:
        while done < num_steps:
            count = min(STEPS_PER_REPORT, num_steps - done)
            turn = compiled[turns[done // STEPS_PER_REPORT % len(turns)]]
            state, loss = turn.run(state, step_key, data, count)
            done += count
            bar.update(count)
            if done % (STEPS_PER_REPORT * REPORTS_PER_VALIDATION) == 0 or done == num_steps:
                state, validation_loss = trainer.validate(state, validation_key, held_out)
                history.append((done, float(loss), float(validation_loss)))
                bar.set_postfix(loss=f"{history[-1][1]:.3f}", validation=f"{history[-1][2]:.3f}")
                if not np.isfinite(history[-1][2]):
                    warnings.warn(
                        f"The loss is no number any more at step {done} of {num_steps}; the best weights before it are "
                        "kept. Try a smaller learning_rate, or use_density=False.",
                        TrainingWarning,
                        stacklevel=3,
                    )
                    break
                if checkpoints:
                    checkpoints.write(done, state)
    except KeyboardInterrupt:
        state, _ = trainer.validate(state, validation_key, held_out)
        warnings.warn(
            f"Training was interrupted at step {done} of {num_steps}; the best weights so far are kept. "
            "Call fit again to go on from them.",
            TrainingWarning,
            stacklevel=3,
        )
    finally:
        bar.close()
    steps, losses, validation_losses = (
        (list(column) for column in zip(*history, strict=True)) if history else ([], [], [])
    )
    variables = {"training_loss": ("step", losses), "validation_loss": ("step", validation_losses)}
    return jax.device_put(state.best, jax.devices()[0]), xr.Dataset(variables, {"step": steps})
