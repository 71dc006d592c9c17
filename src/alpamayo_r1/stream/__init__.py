"""Plans along a drive: `Stream` makes the plan of every step sooner from what the steps before it found, and never another one."""

from alpamayo_r1.stream.stream import Reused, Stream

__all__ = ["Reused", "Stream"]
