"""A bar over the sequences that the network is asked about, while a long call runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

_DELAY = 2.0
"""Seconds after which a bar is shown."""

_current: ContextVar[Any] = ContextVar("bar", default=None)


@contextmanager
def progress(description: str, shown: bool) -> Iterator[None]:
    """Show a bar of all that the network is asked in this block, unless one is shown already.

    Parameters
    ----------
    description
        What is done.
    shown
        Whether to show one.
    """
    if not shown or _current.get() is not None:
        yield
        return
    with tqdm(total=0, desc=description, unit="sequence", delay=_DELAY) as bar:
        token = _current.set(bar)
        try:
            yield
        finally:
            _current.reset(token)


def tracked[T](parts: Iterator[T], size: int, count: int) -> Iterator[T]:
    """Let the bar that is shown, if any, count parts as they come.

    Parameters
    ----------
    parts
        Of what is asked.
    size
        Sequences of a part.
    count
        Number of parts.
    """
    bar = _current.get()
    if bar is not None:
        bar.total += size * count
    for part in parts:
        yield part
        if bar is not None:
            bar.update(size)
