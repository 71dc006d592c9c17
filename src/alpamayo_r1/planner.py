"""Which planner a model gets: the fast one on a GPU, the specification elsewhere; the other is one argument away."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

from alpamayo_r1.plan import plan
from alpamayo_r1.types import Plan
from alpamayo_r1.vla import VLA
from alpamayo_r1.vocab import Vocabulary


def planner(model: VLA, vocabulary: Vocabulary, fast: bool | None = None) -> Callable[..., Plan]:
    """observation, **options of `plan` -> Plan. fast None: the engine where the model is on a GPU (and the engine is installed)."""
    if fast is None:
        fast = model.device.type == "cuda" and find_spec("alpamayo_r1.engine") is not None
    if not fast:
        return partial(plan, model, vocabulary)
    from alpamayo_r1.engine.planner import Engine

    return Engine(model, vocabulary).plan
