"""Evaluation over many clips: protocol, durable rows, figures with intervals, the report."""

from .loop import evaluate
from .protocol import EvalConfig
from .summary import compare, summarise

__all__ = ["EvalConfig", "compare", "evaluate", "summarise"]
