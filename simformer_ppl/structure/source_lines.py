"""Where in the user's own code something happened."""

import os
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_PACKAGE = str(Path(__file__).parents[1]) + os.sep
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")})
_INSTALLED = f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}"
"""In paths of libraries that another environment lends to this one."""


def line_of_equation(eqn: Any) -> str | None:
    """The innermost line of the model that made an equation of a jaxpr, as ``file:line``; None if a library did."""
    found = getattr(eqn.source_info, "traceback", None)
    return None if found is None else _innermost((frame.file_name, frame.line_num) for frame in found.frames)


def line_of_error(error: BaseException) -> str | None:
    """The innermost line of the model that raised an error, as ``file:line``; None if a library called by us did."""
    frames = traceback.extract_tb(error.__traceback__)
    return _innermost((frame.filename, frame.lineno) for frame in reversed(frames))


def _innermost(frames: Iterable[tuple[str, int | None]]) -> str | None:
    """The first frame that is no library's; frames beyond our own package belong to who called us."""
    for name, line in frames:
        if name.startswith(_PACKAGE):
            return None
        if not name.startswith((*_LIBRARIES, "<frozen")) and not any(part in name for part in _INSTALLED):
            return f"{Path(name).name}:{line}"
    return None
