"""A mapping as people write it: every key is asked for by name and kind; what is missing, wrong or unknown is refused by its full path."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import yaml

from alpamayo_r1.data.errors import BadRecording

REFERENCE = "docs/own-data.md lists every key with an example"
MOST_BYTES = 4 * 2**20
"""The largest recording.yaml that is read."""


class Fields:
    """One mapping of recording.yaml; `path` is where it stands, such as "cameras.front". `done` refuses keys that nobody asked for."""

    def __init__(self, values: Any, path: str = ""):
        if not isinstance(values, Mapping):
            raise bad(f"{path or 'recording.yaml'} is {describe(values)}", "a mapping (key: value)", REFERENCE)
        self.values, self.path, self.asked = values, path, list[str]()

    def at(self, key: str) -> str:
        """The full path of a key."""
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        """Whether the key is there and not empty."""
        self.asked.append(key)
        return self.values.get(key) is not None

    def get(self, key: str, expected: str, default: Any = ...) -> Any:
        """The value of a key, or the default. Raises BadRecording where there is neither."""
        if self.has(key):
            return self.values[key]
        if default is ...:
            raise bad(f"recording.yaml has no {self.at(key)}", f"{self.at(key)}: {expected}", f"add it ({REFERENCE})")
        return default

    def section(self, key: str, default: Any = ...) -> Fields:
        """A mapping below this one."""
        return Fields(self.get(key, "a mapping", default), self.at(key))

    def number(self, key: str, low: float, high: float, default: Any = ...) -> float:
        """A finite number within bounds."""
        expected = f"a number from {low:g} to {high:g}"
        value = self.get(key, expected, default)
        return value if value is default else number(value, low, high, self.at(key))

    def numbers(self, key: str, counts: Sequence[int], low: float, high: float, default: Any = ...) -> tuple[float, ...]:
        """A list of numbers within bounds, as long as one of the counts."""
        expected = f"a list of {' or '.join(map(str, counts))} numbers from {low:g} to {high:g}"
        value = self.get(key, expected, default)
        if value is default:
            return value
        if not isinstance(value, list | tuple) or len(value) not in counts:
            raise bad(f"{self.at(key)} is {describe(value)}", expected, REFERENCE)
        return tuple(number(one, low, high, f"{self.at(key)}[{i}]") for i, one in enumerate(value))

    def choice(self, key: str, among: Sequence[str], default: Any = ...) -> str:
        """One of some words."""
        expected = " | ".join(among)
        value = self.get(key, expected, default)
        if value not in among:
            near = difflib.get_close_matches(str(value), among, 1, 0.4)
            raise bad(f"{self.at(key)} is {describe(value)}", expected, f"did you mean {near[0]}?" if near else REFERENCE)
        return value

    def text(self, key: str, default: Any = ...) -> str:
        """A text that is not empty."""
        value = self.get(key, "a text", default)
        if value is not default and (not isinstance(value, str) or not value.strip()):
            raise bad(f"{self.at(key)} is {describe(value)}", "a text", REFERENCE)
        return value

    def texts(self, key: str, counts: Sequence[int] | None = None, default: Any = ...) -> tuple[str, ...]:
        """A list of texts, as long as one of the counts; a single text counts as a list of one."""
        expected = f"a list of {' or '.join(map(str, counts))} texts" if counts else "a list of texts"
        value = self.get(key, expected, default)
        if value is default:
            return value
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list | tuple) or not all(isinstance(one, str) and one for one in value):
            raise bad(f"{self.at(key)} is {describe(value)}", expected, REFERENCE)
        if counts and len(value) not in counts:
            raise bad(f"{self.at(key)} has {len(value)} entries", expected, REFERENCE)
        return tuple(value)

    def done(self) -> None:
        """Raises BadRecording for a key that nobody asked for: a misspelt one would be ignored without a word."""
        for key in self.values:
            if key not in self.asked:
                near = difflib.get_close_matches(str(key), self.asked, 1, 0.5)
                known = ", ".join(dict.fromkeys(self.asked))
                raise bad(
                    f"recording.yaml has an unknown key {self.at(str(key))}",
                    f"keys of {self.path or 'recording.yaml'}: {known}",
                    f"did you mean {near[0]}?" if near else "remove it, or see docs/own-data.md",
                )


def number(value: Any, low: float, high: float, where: str) -> float:
    """A value as a finite number within bounds. Raises BadRecording."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)  # YAML 1.1 takes 1e-3 for a text
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise bad(f"{where} is {describe(value)}", f"a number from {low:g} to {high:g}", REFERENCE)
    return float(value)


def describe(value: Any) -> str:
    """A value as a message shows it."""
    shown = ascii(value)
    return f"{type(value).__name__} {shown if len(shown) <= 60 else shown[:57] + '...'}"


def bad(given: str, expected: str, do: str) -> BadRecording:
    """The error of a recording, with its stops."""
    return BadRecording(f"{given}.", expected, f"{do}.")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader that refuses a key given twice, of which it would silently take the last."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float | bool):
            raise yaml.constructor.ConstructorError(None, None, "a key that is no text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands there twice", key_node.start_mark)
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(content: bytes, name: str) -> Any:
    """YAML as plain values. Raises BadRecording with the line, of a key given twice too."""
    if len(content) > MOST_BYTES:
        raise bad(f"{name} has {len(content):,} bytes", f"at most {MOST_BYTES:,}", "put times and poses into tables of their own")
    try:
        return yaml.load(content.decode("utf-8"), Loader=_Loader)
    except UnicodeDecodeError as error:
        raise bad(f"{name} is no UTF-8 text ({error})", "a text file in UTF-8", "save it as UTF-8") from None
    except RecursionError:
        raise bad(f"{name} is nested too deeply", "a recording", REFERENCE) from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())[:300]
        raise bad(
            f"{name} is no valid YAML: {said}", "YAML: `key: value` lines, indented by blanks", "mend the line that it names"
        ) from None
