"""How good a plan is: errors of paths, comfort, baselines, whether words and path agree, and intervals."""

from alpamayo_r1.metrics.baselines import BASELINES
from alpamayo_r1.metrics.consistency import verdict
from alpamayo_r1.metrics.intervals import intervals
from alpamayo_r1.metrics.paths import (
    Metric,
    ade,
    ade_by_horizon,
    best_sample,
    comfort,
    corner_distance,
    fde,
    heading_error,
    min_ade,
    min_fde,
    miss,
    spread,
    violations,
)

__all__ = [
    "BASELINES",
    "Metric",
    "ade",
    "ade_by_horizon",
    "best_sample",
    "comfort",
    "corner_distance",
    "fde",
    "heading_error",
    "intervals",
    "min_ade",
    "min_fde",
    "miss",
    "spread",
    "verdict",
    "violations",
]
