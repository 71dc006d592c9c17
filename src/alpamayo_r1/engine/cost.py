"""What the model must do at least: floating-point operations and bytes of device memory per stage, as functions of the configuration.

    floor(stage) = max(FLOPs / arithmetic ceiling, bytes / bandwidth ceiling)

A multiply-add counts as two operations. Bytes are weights and cached keys and values read once, at `width` bytes a number; what can stay
in registers and caches is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alpamayo_r1.core.config import DecoderConfig, ModelConfig


@dataclass(frozen=True)
class Cost:
    """Operations and bytes of one stage."""

    flops: float
    bytes: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def floor_ms(self, flops_per_s: float, bytes_per_s: float) -> float:
        """The shortest time at these ceilings, in milliseconds."""
        return 1e3 * max(self.flops / flops_per_s, self.bytes / bytes_per_s)


def layer_parameters(c: DecoderConfig) -> int:
    """Weights of a decoder layer's products: q, k, v, o, gate, up, down."""
    return c.hidden * (2 * c.heads * c.head_dim + 2 * c.kv_heads * c.head_dim + 3 * c.intermediate)


def kv_numbers(c: DecoderConfig) -> int:
    """Numbers that one token leaves in the cache of one layer."""
    return 2 * c.kv_heads * c.head_dim


def attention_flops(c: DecoderConfig, queries: float, keys: float) -> float:
    """Scores and weighted sum of one layer."""
    return 4 * queries * keys * c.heads * c.head_dim


def vision_cost(config: ModelConfig, grids: Sequence[tuple[int, int]], width: int = 2) -> Cost:
    """The vision tower over images of these grids (patches high and wide)."""
    c = config.vision
    patches = sum(h * w for h, w in grids)
    block = 4 * c.hidden**2 + 2 * c.hidden * c.intermediate
    wide = c.hidden * c.merge**2
    merger = (wide**2 + wide * c.out_hidden) * (1 + len(c.deepstack))
    embed = c.patch_dim * c.hidden
    attention = c.depth * 4 * c.hidden * sum((h * w) ** 2 for h, w in grids)
    flops = 2 * patches * (c.depth * block + embed) + 2 * patches / c.merge**2 * merger + attention
    return Cost(flops, width * (c.depth * block + embed + merger))


def prefill_cost(config: ModelConfig, prompt: int, width: int = 2, *, whole_last_layer: bool = False) -> Cost:
    """Reading a prompt of so many tokens. Of the last layer only keys and values are needed, except at the last token."""
    c = config.text
    tail = (
        0.0 if whole_last_layer else prompt * (layer_parameters(c) - c.hidden * kv_numbers(c)) * 2 + attention_flops(c, prompt, prompt / 2)
    )
    flops = (
        2 * prompt * c.layers * layer_parameters(c)
        + c.layers * attention_flops(c, prompt, prompt / 2)
        - tail
        + 2 * c.hidden * config.tokens.vocab
    )
    return Cost(flops, width * (c.layers * layer_parameters(c) + c.hidden * config.tokens.vocab + prompt * c.layers * kv_numbers(c)))


def decode_cost(config: ModelConfig, prompt: int, said: float, scenes: int = 1, samples: int = 1, width: int = 2) -> Cost:
    """One token for every row, after `said` tokens: weights once, every scene's prompt once, every row's own words."""
    c, rows = config.text, scenes * samples
    weights = c.layers * layer_parameters(c) + c.hidden * config.tokens.vocab
    flops = 2 * rows * weights + c.layers * attention_flops(c, rows, prompt + said)
    return Cost(flops, width * (weights + c.layers * kv_numbers(c) * (scenes * prompt + rows * said)))


def flow_step_cost(config: ModelConfig, prompt: int, said: float, scenes: int = 1, samples: int = 1, width: int = 2) -> Cost:
    """One Euler step of all rows."""
    c, tokens = config.expert, scenes * samples * config.action.n_waypoints
    weights = c.layers * layer_parameters(c)
    flops = 2 * tokens * weights + c.layers * attention_flops(c, tokens, prompt + said + config.action.n_waypoints)
    return Cost(flops, width * (weights + c.layers * kv_numbers(c) * (scenes * prompt + scenes * samples * said)))
