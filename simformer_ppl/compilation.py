"""How programs are compiled that run once, or that run on the cores of a CPU."""

COMPILED_QUICKLY: dict[str, bool | int | float | str] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
"""Compiler options of ``jax.jit`` for a program that would take longer to optimise than to run."""

ONE_THREAD: dict[str, bool | int | float | str] = {"xla_cpu_multi_thread_eigen": False}
"""Compiler options of programs that keep to one core: products as small as ours take longer when they are split."""
