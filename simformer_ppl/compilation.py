"""How programs that run once are compiled."""

COMPILED_QUICKLY: dict[str, bool | int | float | str] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
"""Compiler options of ``jax.jit`` for a program that would take longer to optimise than to run."""
