"""Drafts: guesses of what a row says next. A wrong one costs a little time, never a word; see words.py.

Words of driving are formulaic and repeat from step to step. A guess comes from what the row was given to say, from what the same row said
a step ago, or from counts of what usually follows, drawn by the uniform number that will draw the token itself.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path

from alpamayo_r1.core.files import write_text

ORDER = 5
"""Tokens that a guess looks back at, at most."""

CONTEXTS = 100_000
"""Contexts that are remembered; the ones not met for longest are forgotten."""

START = -1
"""Stands before the first token."""


class Table:
    """How often which token followed the last one to ORDER tokens, learnt from everything that was said."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[int, ...], dict[int, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def learn(self, tokens: Sequence[int]) -> None:
        """Counts each token of a row behind all its contexts."""
        text = [START, *tokens]
        for i in range(1, len(text)):
            for n in range(1, min(ORDER, i) + 1):
                context = tuple(text[i - n : i])
                counts = self._counts.setdefault(context, {})
                counts[text[i]] = counts.get(text[i], 0) + 1
                self._counts.move_to_end(context)
        while len(self._counts) > CONTEXTS:
            self._counts.popitem(last=False)

    def guess(self, tokens: Sequence[int], uniform: float) -> int | None:
        """The token after these in whose share of the counts `uniform` lies, in the order of ids; None where no context is known."""
        text = [START, *tokens]
        for n in range(min(ORDER, len(text)), 0, -1):
            counts = self._counts.get(tuple(text[-n:]))
            if counts:
                ids = sorted(counts)
                ends = list(accumulate(counts[i] for i in ids))
                return ids[min(bisect_right(ends, uniform * ends[-1]), len(ids) - 1)]
        return None

    def save(self, path: str | Path) -> None:
        """Writes the table as JSON, the contexts met last at the end."""
        rows = [[list(context), sorted(counts.items())] for context, counts in self._counts.items()]
        write_text(path, json.dumps({"drafts": 1, "contexts": rows}))

    @classmethod
    def load(cls, path: str | Path) -> Table:
        """A table that `save` wrote.

        Raises:
            ValueError: a file that is something else.
        """
        table = cls()
        try:
            stored = json.loads(Path(path).read_text(encoding="utf-8"))
            if stored["drafts"] != 1:
                raise ValueError("of another version")
            for context, counts in stored["contexts"][-CONTEXTS:]:
                table._counts[tuple(int(i) for i in context)] = {int(i): int(n) for i, n in counts if int(n) > 0}
        except (KeyError, TypeError, ValueError) as problem:
            raise ValueError(f"{path} is no table of drafts ({problem}): expected a file that Table.save wrote") from None
        return table


def guesses(
    said: Sequence[int], count: int, table: Table, uniform: Sequence[float], last: Sequence[int] = (), stop: Iterable[int] = ()
) -> list[int]:
    """Up to `count` guesses of what follows the tokens said, by one row's uniform numbers.

    last: what the row said a step ago, or is given to say: followed as long as it begins with what is said now. stop: tokens behind which
    nothing is guessed.
    """
    text, ends = list(said), set(stop)
    while len(text) < min(len(said) + count, len(uniform)):
        n = len(text)
        follows = n < len(last) and list(last[:n]) == text
        found = last[n] if follows else table.guess(text, uniform[n])
        if found is None:
            break
        text.append(found)
        if found in ends:
            break
    return text[len(said) :]
