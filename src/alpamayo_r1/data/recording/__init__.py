"""Recordings of your own car: a folder with a recording.yaml, its cameras' pictures and its poses. docs/own-data.md is the reference."""

FILE = "recording.yaml"
"""What makes a folder a recording."""
