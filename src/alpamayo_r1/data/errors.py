"""What can be wrong with a source or a clip. Every message says what was given, what was expected and what to do."""

from __future__ import annotations


class DataError(Exception):
    """Base of all errors of the clip loader."""

    def __init__(self, given: str, expected: str, do: str):
        super().__init__(f"{given}\n  expected: {expected}\n  what to do: {do}")
        self.given, self.expected, self.do = given, expected, do


class SourceError(DataError):
    """The place named is no data set."""


class AccessDenied(DataError):
    """The Hub refused: not logged in, or the licence of a gated data set was not accepted."""


class UnknownClip(DataError):
    """The clip id is not in the index."""


class BadClipId(UnknownClip):
    """A clip id that is no safe name of a file, so that no clip can have it."""


class NotDownloaded(DataError):
    """A chunk that holds the clip is not on this machine."""


class OutOfRange(DataError):
    """t0 leaves too little log before or after it."""


class MissingCamera(DataError):
    """The clip, or the data set, lacks a camera."""


class BadVideo(DataError):
    """A video that is broken, too short, or whose clock would give wrong frames without notice."""


class BadEgomotion(DataError):
    """Poses that are not numbers, or times that do not increase."""


class BadSurroundings(DataError):
    """A table of lanes and vehicles around the car that can't be read."""


class BadCalibration(DataError):
    """A lens, a pose of a camera or a size of the car that can't be."""


class BadRecording(DataError):
    """A recording of one's own whose recording.yaml or tables can't be used."""
