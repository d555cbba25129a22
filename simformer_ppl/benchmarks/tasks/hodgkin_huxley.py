"""A neuron that is told by a few statistics of its voltage, and the energy that it spends (Hodgkin & Huxley 1952)."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float

from simformer_ppl.benchmarks.tasks.task import Task

DURATION, STEP = 200.0, 0.025
ON, OFF, CURRENT = 50.0, 150.0, 4.0
_NOISE, _THRESHOLD, _RECORD = 0.05, -10.0, 8
"""Noise of the voltage (mV), voltage that a spike crosses, and steps from one record to the next."""

PARAMETERS = {
    "capacity": (1.0, 2.0),
    "g_sodium": (60.0, 120.0),
    "g_potassium": (10.0, 30.0),
    "g_leak": (0.1, 0.5),
    "e_sodium": (40.0, 70.0),
    "e_potassium": (-100.0, -60.0),
    "e_leak": (-90.0, -60.0),
}
STATISTICS = ("spikes", "rest_mean", "rest_sd", "mean", "sd", "skewness", "kurtosis")
_REST = -65.0


def hodgkin_huxley() -> None:
    """Seven parameters, seven statistics of the voltage under a step of current, and the energy spent."""
    values = {name: numpyro.sample(name, dist.Uniform(low, high)) for name, (low, high) in PARAMETERS.items()}
    voltage, energy = simulate(jnp.stack(list(values.values())))
    noise = numpyro.prng_key()
    assert noise is not None
    voltage = voltage + _NOISE * jax.random.normal(noise, voltage.shape)
    for name, statistic in zip(STATISTICS, statistics(voltage), strict=True):
        numpyro.deterministic(name, statistic)
    numpyro.deterministic("energy", energy)


def simulate(parameters: Float[Array, "7"]) -> tuple[Float[Array, " records"], Float[Array, ""]]:
    """Voltage (mV), and energy (microjoules per square centimetre) of the currents against their batteries.

    Gates by the exponential Euler method, which keeps them between 0 and 1; the voltage likewise, its conductances held
    over a step.
    """
    capacity, g_sodium, g_potassium, g_leak, e_sodium, e_potassium, e_leak = parameters
    m_in, m_out, h_in, h_out, n_in, n_out = _rates(jnp.asarray(_REST))
    gates = jnp.stack([m_in / (m_in + m_out), h_in / (h_in + h_out), n_in / (n_in + n_out)])

    def step(state: tuple[Array, Array, Array], time: Array) -> tuple[tuple[Array, Array, Array], None]:
        voltage, gates, energy = state
        m_in, m_out, h_in, h_out, n_in, n_out = _rates(voltage)
        into, out = jnp.stack([m_in, h_in, n_in]), jnp.stack([m_out, h_out, n_out])
        settled = into / (into + out)
        gates = settled + (gates - settled) * jnp.exp(-STEP * (into + out))
        conductances = jnp.stack([g_sodium * gates[0] ** 3 * gates[1], g_potassium * gates[2] ** 4, g_leak])
        batteries = jnp.stack([e_sodium, e_potassium, e_leak])
        current = CURRENT * ((time >= ON) & (time < OFF))
        total = conductances.sum()
        balance = ((conductances * batteries).sum() + current) / total
        spent = (conductances * (voltage - batteries) ** 2).sum()
        voltage = balance + (voltage - balance) * jnp.exp(-STEP * total / capacity)
        return (voltage, gates, energy + STEP * spent), None

    def record(state: tuple[Array, Array, Array], times: Array) -> tuple[tuple[Array, Array, Array], Array]:
        return jax.lax.scan(step, state, times)[0], state[0]

    times = jnp.asarray(np.arange(0.0, DURATION, STEP).reshape(-1, _RECORD), jnp.float32)
    start = jnp.asarray(_REST), gates, jnp.zeros(())
    (_, _, energy), voltage = jax.lax.scan(record, start, times)
    return voltage, energy / 1e3


def _rates(voltage: Float[Array, ""]) -> tuple[Array, ...]:
    """Opening and closing rates (per ms) of the gates m, h, n, resting at -65 mV."""
    return (
        _ratio(voltage + 40, 10.0),
        4 * jnp.exp(-(voltage + 65) / 18),
        0.07 * jnp.exp(-(voltage + 65) / 20),
        1 / (1 + jnp.exp(-(voltage + 35) / 10)),
        0.1 * _ratio(voltage + 55, 10.0),
        0.125 * jnp.exp(-(voltage + 65) / 80),
    )


def _ratio(x: Array, scale: float) -> Array:
    """``(x / scale) / (1 - exp(-x / scale))``, which is 1 at 0."""
    share = x / scale
    safe = jnp.where(jnp.abs(share) < 1e-4, 1.0, share)
    return jnp.where(jnp.abs(share) < 1e-4, 1 + share / 2, safe / -jnp.expm1(-safe))


def statistics(voltage: Float[Array, " records"]) -> tuple[Array, ...]:
    """Spikes; mean and sd at rest; mean, sd, skewness and kurtosis while the current flows."""
    times = np.arange(len(voltage)) * STEP * _RECORD
    crossed = (voltage[1:] >= _THRESHOLD) & (voltage[:-1] < _THRESHOLD)
    rest, driven = voltage[(times > 10) & (times < ON)], voltage[(times >= ON) & (times < OFF)]
    mean, sd = driven.mean(), driven.std()
    scores = (driven - mean) / sd
    return (crossed.sum() * 1.0, rest.mean(), rest.std(), mean, sd, (scores**3).mean(), (scores**4).mean())


OPTIONS = {"sites": (*PARAMETERS, *STATISTICS, "energy"), "data_sites": STATISTICS}
"""Of :class:`~simformer_ppl.Simformer`."""

HODGKIN_HUXLEY = Task("hodgkin_huxley", hodgkin_huxley, options=OPTIONS)
