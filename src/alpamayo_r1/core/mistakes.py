"""Which errors are about what a person gave, and which are bugs. Imports nothing heavy."""

from __future__ import annotations

import dis
from pathlib import Path
from types import TracebackType

PACKAGE = Path(__file__).parents[1]
_RAISE = dis.opmap["RAISE_VARARGS"]


def is_for_people(error: Exception) -> bool:
    """Whether the error is about what was given: a ValueError, a class of this package, a TypeError or KeyError that it raised itself."""
    ours = type(error).__module__.startswith("alpamayo_r1.")
    return ours or isinstance(error, ValueError) or (isinstance(error, TypeError | KeyError) and raised_here(error))


def raised_here(error: Exception) -> bool:
    """Whether a `raise` in this package made the error, not an operation that failed."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    code = trace.tb_frame.f_code
    return Path(code.co_filename).is_relative_to(PACKAGE) and code.co_code[trace.tb_lasti] == _RAISE
