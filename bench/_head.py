"""The head of every file here: imports find `alpamayo_r1`, `checks` and `bench` in the source tree; nothing needs to be installed."""

import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT / "src")  # instead of this folder, whose names other packages have too
sys.path.insert(1, str(ROOT))

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
