"""Arguments of public functions: each of its type and in its range, or refused by its name. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any


def check_flag(name: str, value: object) -> None:
    """Raises TypeError unless a value is True or False, of Python or NumPy, or 1 or 0."""
    if type(value).__name__ not in ("bool", "bool_") and not (isinstance(value, int) and value in (0, 1)):
        raise TypeError(f"{name} is {brief(value)}, expected True or False")


def check_type(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    """Raises TypeError unless a value is of a type; expected: what to give, in words."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {brief(value)}, expected {expected}")


def check_whole(name: str, value: object, least: int, most: int) -> None:
    """Raises TypeError, ValueError unless a value is a whole number between two others."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} is {brief(value)}, expected a whole number from {least:,} to {most:,}")
    if not least <= int(value) <= most:
        raise ValueError(f"{name} is {brief(value)}, expected a whole number from {least:,} to {most:,}")


def check_real(name: str, value: object, least: float, most: float) -> None:
    """Raises TypeError, ValueError unless a value is a number between two others."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} is {brief(value)}, expected a number from {least:g} to {most:g}")
    if not least <= float(value) <= most:
        raise ValueError(f"{name} is {brief(value)}, expected a number from {least:g} to {most:g}")


def check_texts(name: str, value: object, such_as: str) -> None:
    """Raises TypeError unless a value is a list or tuple of texts."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence) or not all(isinstance(one, str) for one in value):
        raise TypeError(f"{name} is {brief(value)}, expected a list of texts, such as {such_as}")


def check_tensors(**tensors: tuple[Any, Sequence[int]]) -> None:
    """Raises unless each is a tensor of floating-point numbers whose last axes have these lengths (-1: any)."""
    for name, (value, ends) in tensors.items():
        wanted = ", ".join(["...", *("any" if n < 0 else str(n) for n in ends)])
        if not hasattr(value, "detach") or not value.is_floating_point():
            raise TypeError(f"{name} is {brief(value)}, expected a torch.Tensor of floating-point numbers [{wanted}]")
        last = tuple(value.shape)[-len(ends) :]
        if len(last) < len(ends) or any(n not in (-1, m) for n, m in zip(ends, last)):
            raise ValueError(f"{name} has shape {tuple(value.shape)}, expected [{wanted}]")


def path_of(name: str, value: object) -> Path:
    """A place on the disk.

    Raises:
        TypeError: neither text nor a path. ValueError: a name that no system can store.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise TypeError(f"{name} is {brief(value)}, expected a path as text or pathlib.Path")
    text = os.fspath(value)
    try:
        storable = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        storable = False
    if not storable:
        raise ValueError(f"{name} is {brief(value)}, which no file can be called: give a plain path")
    return Path(text)


def need_keys(name: str, value: object, keys: Iterable[str], source: str) -> None:
    """Raises TypeError unless a value is a mapping, KeyError where it lacks keys; source: what makes a good one."""
    check_type(name, value, Mapping, source)
    missing = [key for key in keys if key not in value]  # type: ignore[operator]  # a mapping, as was just checked
    if missing:
        raise KeyError(f"{name} lacks {', '.join(missing)}: give {source}")


def brief(value: object) -> str:
    """A value as messages show it."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a {type(value).__name__} {value.dtype} {tuple(value.shape)}"  # type: ignore[attr-defined]
    if isinstance(value, list | dict | tuple) and len(value) > 8:
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
