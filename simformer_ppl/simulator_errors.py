"""Errors that a simulator raises, as JAX hands them on."""

import logging


def tell_failures_once() -> None:
    """Let JAX log no callback that fails: it raises the error too."""
    logging.getLogger("jax._src.callback").addFilter(_is_no_failure)


def raise_if_interrupted(error: Exception) -> None:
    """Raise Ctrl-C in a callback, of which JAX tells as of any error there."""
    if "KeyboardInterrupt" in str(error):
        raise KeyboardInterrupt from error


def last_line(error: Exception) -> str:
    """What went wrong: JAX tells the whole way to an error of a callback, which comes last."""
    told = str(error).strip().splitlines() or [""]
    return told[-1] if len(told) > 1 else f"{type(error).__name__}: {told[0]}"


def _is_no_failure(record: logging.LogRecord) -> bool:
    return "callback failed" not in record.getMessage()
