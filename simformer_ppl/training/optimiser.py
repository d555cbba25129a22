"""The optimiser: Muon on the matrices of the layers, AdamW elsewhere."""

import jax
import optax
from optax import contrib

MATRICES = frozenset({"qkv", "attention_out", "up", "down"})
"""Parameters that Muon updates: the matrices between hidden vectors (Jordan et al. 2024)."""

_INPUT_OUTPUT = contrib.MuonDimensionNumbers(1, 2)
"""Axes of such a parameter, after the axis of the layers."""

_NEWTON_SCHULZ = ((3.4445, -4.775, 2.0315),) * 5
"""Coefficients of every iteration (Jordan et al. 2024): told one by one, they are looped over and compile once."""


def make_optimiser(learning_rate: float, num_steps: int) -> optax.GradientTransformation:
    """Muon and AdamW under a warm-up and a cosine.

    Parameters
    ----------
    learning_rate
        Peak rate of AdamW; Muon's is five times that.
    num_steps
        Length of the schedule.
    """
    warmup = max(1, int(0.03 * num_steps))
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, num_steps, 1e-3 * learning_rate)
    muon = contrib.muon(
        lambda step: 5.0 * schedule(step),
        ns_coeffs=_NEWTON_SCHULZ,
        weight_decay=1e-4,
        muon_weight_dimension_numbers=_INPUT_OUTPUT,
    )
    adamw = optax.flatten(optax.adamw(schedule, b2=0.99, weight_decay=1e-4))
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.multi_transform({"muon": muon, "adamw": adamw}, _kind_of_parameter)
    )


def _kind_of_parameter(parameters: optax.Params) -> optax.Params:
    def kind(path: tuple, _: jax.Array) -> str:
        names = {getattr(entry, "key", None) for entry in path}
        return "muon" if "layers" in names and names & MATRICES else "adamw"

    return jax.tree_util.tree_map_with_path(kind, parameters)
