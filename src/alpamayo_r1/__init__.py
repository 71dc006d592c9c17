"""Alpamayo-R1 inference: four cameras and 1.6 s of the car's own past in, reasoning and 64 waypoints out."""

__version__ = "0.1.0"
