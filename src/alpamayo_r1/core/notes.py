"""Notes: what a person or a machine should know about a result. They travel with samples, plans, records and pages."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """One thing to know. `code` is for machines and never changes ("history-fast"); `text` says what was seen and what it means."""

    code: str
    text: str


class NoteWarning(UserWarning):
    """A note given as a Python warning; `note` is what a program acts on."""

    def __init__(self, note: Note):
        super().__init__(note)  # its only argument, so that it can be sent to another process
        self.note = note

    def __str__(self) -> str:
        return f"{self.note.text} [{self.note.code}]"


def tell(notes: Iterable[Note], stacklevel: int = 2) -> None:
    """Warns of each note. stacklevel: as in `warnings.warn`, counted from the caller."""
    for note in notes:
        warnings.warn(NoteWarning(note), stacklevel=stacklevel + 1)


def mute(code: str) -> None:
    """Shows no Python warnings of notes with this code any more; plans and records still carry them."""
    warnings.filterwarnings("ignore", rf".*\[{re.escape(code)}\]$", NoteWarning)
