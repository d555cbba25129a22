"""Run a model as a simulator: observations forgotten, some values held, also inside its loops and branches."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow.cond import cond_wrapper
from numpyro.contrib.control_flow.scan import scan_wrapper
from numpyro.distributions import constraints
from numpyro.primitives import _PYRO_STACK, Messenger

from simformer_ppl.structure.supports import base_constraint

Message = dict[str, Any]

_ASK_FOR_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


def asks_for_values(error: Exception) -> bool:
    """Whether an error comes from a program that asks for the value of something that is traced without one."""
    return isinstance(error, _ASK_FOR_VALUES) or (isinstance(error, TypeError) and "Tracer" in str(error))


class Run(Messenger):
    """One run of a model as a simulator.

    Parameters
    ----------
    held
        Values of sites, by the name of the sample or deterministic statement. What uses a held deterministic value
        uses this one; inside loops and branches only sample sites are held.
    keys
        Answers to ``numpyro.prng_key``, one per call; drawn from the seed where there are none.
    placeholder
        A traced zero that continuous sites are filled with instead of draws: where only shapes are wanted, tracing the
        samplers is most of the work. Distributions that are not NumPyro's may have any dtype, and are drawn from.

    Attributes
    ----------
    num_keys
        Number of calls of ``numpyro.prng_key``.
    observations
        Observations that were forgotten, by site; None for those inside a loop or a branch.
    deterministic
        Values of deterministic sites, before they are held.
    params
        Names of ``numpyro.param`` statements. They stay at their initial values, the same in every run.
    seeded
        Sites that the model itself seeds; their seed is not used, since every run would be the same.
    """

    def __init__(self, held: Mapping[str, Any] | None = None, keys: Any = None, placeholder: Any = None):
        super().__init__(None)
        self.held, self.keys, self.placeholder = dict(held or {}), keys, placeholder
        self.num_keys = 0
        self.observations: dict[str, Any] = {}
        self.deterministic: dict[str, Any] = {}
        self.params: list[str] = []
        self.seeded: list[str] = []
        self._initialising: str | None = None

    def process_message(self, msg: Message) -> None:
        """Forget, hold, or refuse what cannot be simulated."""
        if msg["type"] == "prng_key":
            self._answer_key(msg)
        elif msg["type"] != "mutable":
            self._initialising = None
        if msg["type"] == "param":
            self._start_param(msg)
        elif msg["type"] == "plate":
            _refuse_subsample(msg)
        elif msg["type"] == "control_flow":
            self._unseed(msg, "a loop or branch")
            self._enter(msg)
        elif msg["type"] == "deterministic":
            self.deterministic[msg["name"]] = msg["value"]
            msg["value"] = self.held.get(msg["name"], msg["value"])
        elif msg["type"] == "sample" and not msg.get("_control_flow_done", False):
            self._sample(msg)

    def _sample(self, msg: Message) -> None:
        name, fn = msg["name"], innermost(msg["fn"])
        _refuse_unsimulable(name, fn)
        self._unseed(msg, name)
        if isinstance(fn, dist.Unit):
            return
        if msg["is_observed"]:
            self.observations[name] = msg["value"]
            msg["is_observed"], msg["value"] = False, None
        elif msg["value"] is not None:
            raise ValueError(_set_inside(name))
        if name in self.held:
            msg["value"] = self.held[name]
        elif self.placeholder is not None and _is_numpyros(fn) and not fn.is_discrete:
            shape = (*msg["kwargs"].get("sample_shape", ()), *msg["fn"].shape())
            msg["value"] = jnp.broadcast_to(self.placeholder, shape)

    def _answer_key(self, msg: Message) -> None:
        if self._initialising is not None:  # a parameter's initial value is one constant, not noise
            msg["value"] = jax.random.fold_in(jax.random.key(0), zlib.crc32(self._initialising.encode()))
            self._initialising = None
            return
        if msg["value"] is not None or msg.get("_is_inside", False):  # of a loop or a branch, which has its own seed
            return
        self._unseed(msg, "numpyro.prng_key")
        if self.keys is not None and self.num_keys < len(self.keys):
            msg["value"] = self.keys[self.num_keys]
        self.num_keys += 1

    def _start_param(self, msg: Message) -> None:
        if msg["value"] is None:
            self.params.append(msg["name"])
            # the key of an initialiser, or of a module that is not there yet, is drawn right after asking for it
            if not msg["args"] or msg["name"].endswith("$params"):
                self._initialising = msg["name"]

    def _unseed(self, msg: Message, name: str) -> None:
        if msg["kwargs"].get("rng_key") is not None:
            msg["kwargs"]["rng_key"] = None
            self.seeded.append(name)

    def _enter(self, msg: Message) -> None:
        """Go with a loop or a branch into its body, where NumPyro's handlers do not reach."""
        self._uncondition_loop(msg)
        if msg["fn"] is scan_wrapper:
            step, init, xs, length, reverse = msg["args"]
            length = jnp.shape(jax.tree.leaves(xs)[0])[0] if length is None else length
            held = {n: v for n, v in self._held_inside().items() if jnp.shape(v)[:1] == (length,)}
            prefix = self._prefix()

            def body(carry: Any, inputs: tuple[Any, Mapping[str, Any]]) -> Any:
                with _Body(self, inputs[1], prefix):
                    return step(carry, inputs[0])

            msg["args"] = (body, init, (xs, held), length, reverse)
        elif msg["fn"] is cond_wrapper:
            condition, *branches, operand = msg["args"]
            held, prefix = self._held_inside(), self._prefix()

            def within(branch: Callable, operand: Any) -> Any:
                with _Body(self, held, prefix):
                    return branch(operand)

            msg["args"] = (condition, *(partial(within, branch) for branch in branches), operand)

    def _uncondition_loop(self, msg: Message) -> None:
        """Forget what handlers around the loop would observe in it."""
        prefix = self._prefix()
        for kind, data in msg["kwargs"].get("substitute_stack", []):
            if kind == "substitute":
                raise ValueError(_set_inside(", ".join(data) if isinstance(data, Mapping) else "a site"))
            if isinstance(data, Mapping):
                self.observations.update(dict.fromkeys(prefix + name for name in data))
        msg["kwargs"]["substitute_stack"] = []

    def _prefix(self) -> str:
        """What the scopes between the model's statement and this handler put in front of a name."""
        inner = _PYRO_STACK[_PYRO_STACK.index(self) + 1 :]
        return "".join(f"{h.prefix}{h.divider}" for h in inner if _renames(h))

    def _held_inside(self) -> dict[str, Any]:
        prefix = self._prefix()
        return {name.removeprefix(prefix): value for name, value in self.held.items() if name.startswith(prefix)}


class _Body(Run):
    """The same run, inside a loop or a branch."""

    def __init__(self, outer: Run, held: Mapping[str, Any], prefix: str):
        super().__init__(held, placeholder=outer.placeholder)
        self._outer, self._outer_prefix = outer, prefix

    def process_message(self, msg: Message) -> None:
        if msg["type"] == "deterministic":
            return
        if msg["type"] == "prng_key" and self._initialising is None:
            msg["_is_inside"] = True
            return
        super().process_message(msg)

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        # the values are traced inside the body, and must not leave it
        self._outer.observations.update(dict.fromkeys(self._outer_prefix + name for name in self.observations))
        self._outer.params.extend(self.params)
        self._outer.seeded.extend(self.seeded)


def run(
    model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], rng_key: jax.Array, **options: Any
) -> tuple[dict[str, Message], Run]:
    """Trace a model as a simulator.

    Where a model needs the value of something that JAX would trace, it is run once more with all that is computed from
    constants computed at once: a count of groups, a total of counts.

    Parameters
    ----------
    model, args, kwargs
        The model and its arguments.
    rng_key
        Source of all randomness.
    **options
        For `Run`.

    Returns
    -------
    The messages by site, and the run.
    """
    try:
        return _run(model, args, kwargs, rng_key, options)
    except Exception as error:
        if not asks_for_values(error) and "total_count_max" not in str(error):
            raise
        try:
            with jax.ensure_compile_time_eval():
                return _run(model, args, kwargs, rng_key, options)
        except Exception:
            raise error from None


def _run(
    model: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    rng_key: jax.Array,
    options: dict[str, Any],
) -> tuple[dict[str, Message], Run]:
    # validation computes, even in a trace, wherever an argument of a distribution is known
    handler = Run(**options)
    with (
        numpyro.validation_enabled(False),
        handlers.trace() as messages,
        handlers.seed(rng_seed=rng_key),
        handler,
    ):
        model(*args, **kwargs)
    return messages, handler


def innermost(fn: Any) -> Any:
    """The distribution inside ``Independent``, ``Masked`` and ``Expanded``."""
    while isinstance(fn, (dist.Independent, dist.MaskedDistribution, dist.ExpandedDistribution)):
        fn = fn.base_dist
    return fn


def _renames(handler: Any) -> bool:
    return isinstance(handler, handlers.scope) and "sample" not in handler.hide_types


def _set_inside(name: str) -> str:
    return (
        f"site {name!r} is set to a value inside the model (handlers.substitute): every simulation would be the same "
        "there. Use handlers.do to intervene, or handlers.condition to observe"
    )


def _is_numpyros(fn: Any) -> bool:
    if not type(fn).__module__.startswith("numpyro.") or isinstance(fn, dist.Delta):
        return False
    return base_constraint(fn.support) is not constraints.complex


def _refuse_subsample(msg: Message) -> None:
    size, subsample_size = msg["args"]
    if subsample_size is not None and subsample_size != size:
        raise ValueError(
            f"plate {msg['name']!r} draws a subsample of {subsample_size} out of {size}: a model of all the "
            "elements is needed, leave subsample_size out"
        )


def _refuse_unsimulable(name: str, fn: Any) -> None:
    if isinstance(fn, dist.ImproperUniform):
        raise ValueError(f"site {name!r} is ImproperUniform, which cannot be simulated: give it a proper prior")
    if isinstance(fn, dist.IntervalCensoredDistribution):
        raise ValueError(
            f"site {name!r} is interval censored: its values are pairs of bounds, which NumPyro does not simulate. "
            "Write the uncensored distribution, and give the bounds as between(low, high) when conditioning"
        )
