"""The operations of the fast planner, each a torch function and, on a GPU, the Triton kernel that computes the same.

The torch twin is the oracle of the kernel's test and what runs on the CPU; ops/NAME.py launches kernels/NAME.py.
Letters: M rows (tokens) · R rows of reasoning (scenes x samples) · P parts of a sum · Hq, Hkv heads · G = Hq / Hkv · d head width.
"""

from alpamayo_r1.engine.ops.attention import Context, attend
from alpamayo_r1.engine.ops.blocks import dense, keep_blocks
from alpamayo_r1.engine.ops.drawing import draw_tokens
from alpamayo_r1.engine.ops.eight import EightBits, Rows, Weight, add_rms_norm_for, rms_norm_for
from alpamayo_r1.engine.ops.norms import add_layer_norm, add_rms_norm, rms_norm
from alpamayo_r1.engine.ops.products import action_features, linear, linear_gelu, linear_into, row_dots, swiglu_linear
from alpamayo_r1.engine.ops.rotation import Heads, rope_write, vision_rope
from alpamayo_r1.engine.ops.swiglu import swiglu
from alpamayo_r1.engine.ops.table import pick_rows

__all__ = [
    "Context",
    "EightBits",
    "Heads",
    "Rows",
    "Weight",
    "action_features",
    "add_layer_norm",
    "add_rms_norm",
    "add_rms_norm_for",
    "attend",
    "dense",
    "draw_tokens",
    "keep_blocks",
    "linear",
    "linear_gelu",
    "linear_into",
    "pick_rows",
    "rms_norm",
    "rms_norm_for",
    "rope_write",
    "row_dots",
    "swiglu",
    "swiglu_linear",
    "vision_rope",
]
