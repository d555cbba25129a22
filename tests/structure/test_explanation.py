"""Why there is an edge, in words: laws, operations, lines of the model, and what is asked for by a wrong name."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan

from simformer_ppl.structure import trace_structure
from simformer_ppl.structure.source_lines import _innermost

sample, plate = numpyro.sample, numpyro.plate


def schools(y=None):
    mu, tau = sample("mu", dist.Normal(0, 5)), sample("tau", dist.HalfCauchy(5))
    with plate("school", 4):
        theta = sample("theta", dist.Normal(mu, tau))
        sample("y", dist.Normal(theta, 1.0), obs=y)


def test_an_edge_can_be_explained():
    structure = trace_structure(schools)
    assert "Normal law of 'y' reads theta[1]" in structure.explain("y[1]", "theta[1]")
    assert structure.explain("y[1]", "mu").startswith("no edge")
    marginal = trace_structure(schools, sites=["mu", "tau", "y"])
    assert "theta" in marginal.explain("y[1]", "mu")


def test_tokens_may_be_written_with_or_without_blanks_and_are_looked_for():
    def model():
        with plate("row", 2, dim=-2), plate("column", 3, dim=-1):
            theta = sample("theta", dist.Normal(sample("mu", dist.Normal(0, 1)), 1))
        numpyro.factor("soft", theta.sum())

    with pytest.warns(UserWarning, match=r"factor sites \['soft'\]"):
        structure = trace_structure(model, sites=["theta"])
    with_blanks, without = (
        structure.explain("theta[1, 2]", "theta[0, 0]"),
        structure.explain("theta[1,2]", "theta[0,0]"),
    )
    assert with_blanks.replace(" ", "") == without.replace(" ", "")
    for token, message in {
        "thetta[0, 0]": r"did you mean theta\[0, 0\]",
        "theta": r"the tokens of 'theta' are theta\[0, 0\]",
        "theta[2, 0]": r"the tokens of 'theta' are",
        "mu[0, 0]": "'mu' is left out",
        "soft": "'soft' is a factor",
        "x": "the sites are theta",
    }.items():
        with pytest.raises(ValueError, match=message):
            structure.explain(token, "theta[0, 0]")


def line_of(text):
    """Where this file says something, as an explanation would."""
    number = next(n for n, line in enumerate(Path(__file__).read_text().splitlines(), 1) if line.strip() == text)
    return f"{Path(__file__).name}:{number}"


def test_an_explanation_names_the_operation_and_its_line():
    def model():
        x = sample("x", dist.Normal(0, 1).expand([3]).to_event(1))
        ordered = jnp.sort(x)
        with plate("n", 3):
            sample("y", dist.Normal(ordered, 1.0))
        sample("z", dist.Uniform(0.0, jnp.exp(x[0])))

        def step(carry, _):
            carry = sample("w", dist.Normal(jnp.tanh(carry), jnp.cosh(x[2])))
            return carry, None

        scan(step, 0.0, None, length=3)

    structure = trace_structure(model)
    assert f"sort at {line_of('ordered = jnp.sort(x)')}" in structure.explain("y[0]", "x[2]")
    assert "exp at" in structure.explain("z", "x[0]")
    assert "tanh at" in structure.explain("w[2]", "w[1]") and "earlier scalar w[1]" in structure.explain("w[2]", "w[1]")
    assert "cosh" in structure.explain("w[2]", "x[2]")


def test_what_is_dense_says_where():
    def model():
        x = sample("x", dist.Normal(0, 1).expand([2]).to_event(1))
        out = jax.ShapeDtypeStruct((2,), jnp.float32)
        mean = jax.pure_callback(lambda x: np.asarray(x) * 2, out, x)
        sample("y", dist.Normal(mean, 1.0).to_event(1))

    structure = trace_structure(model)
    line = line_of("mean = jax.pure_callback(lambda x: np.asarray(x) * 2, out, x)")
    (reason,) = structure.info
    assert "pure_callback" in reason and line in reason
    assert f"pure_callback (dense) at {line}" in structure.explain("y[0]", "x[1]")


def test_a_branch_in_python_is_dense_and_says_where():
    def model():
        x = sample("x", dist.Normal(0, 1))
        y = sample("y", dist.Normal(0, 1))
        if x > 0.5:
            y = -y
        sample("z", dist.Normal(y, 1))

    with pytest.warns(UserWarning, match=line_of("if x > 0.5:")):
        structure = trace_structure(model)
    assert line_of("if x > 0.5:") in structure.info[0] and line_of("if x > 0.5:") in structure.explain("z", "x")


def test_libraries_of_other_environments_are_no_models():
    frames = [("/cache/archive/lib/python3.12/site-packages/jax/_src/util.py", 213), ("/home/ann/study.py", 44)]
    assert _innermost(frames) == "study.py:44"
