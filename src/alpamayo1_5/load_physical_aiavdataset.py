"""The original's loader, the same for both models."""

from alpamayo_r1.load_physical_aiavdataset import load_physical_aiavdataset

__all__ = ["load_physical_aiavdataset"]
