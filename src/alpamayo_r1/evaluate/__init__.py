"""Evaluation over many clips: protocol, durable rows, figures with intervals, the report."""

from alpamayo_r1.evaluate.loop import evaluate
from alpamayo_r1.evaluate.protocol import EvalConfig
from alpamayo_r1.evaluate.summary import compare, summarise

__all__ = ["EvalConfig", "compare", "evaluate", "summarise"]
