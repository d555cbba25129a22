"""How programs are compiled for CPUs."""

ONE_THREAD: dict[str, bool | int | float | str] = {"xla_cpu_multi_thread_eigen": False}
"""Compiler options of programs that keep to one core: products as small as ours take longer when they are split."""
