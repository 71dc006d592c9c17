"""Every key of a released config: a number with its type and range, a value that is settled, or a key without effect.

A rule says what it expects and whether a value is that. A config's other keys are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alpamayo_r1.core.gate.values import brief


@dataclass(frozen=True)
class Whole:
    """An integer from low to high."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"an integer from {self.low:,} to {self.high:,}"

    def fits(self, value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True)
class Number:
    """A finite number from low to high."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}"

    def fits(self, value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high and math.isfinite(value)


@dataclass(frozen=True)
class Several:
    """A list of values of one kind, of this length (None: of at most 256)."""

    each: Whole | Number
    count: int | None = None

    def __str__(self) -> str:
        return f"a list of {self.count or 'at most 256'}, each {self.each}"

    def fits(self, value: Any) -> bool:
        if not isinstance(value, list | tuple) or not (len(value) == self.count or (self.count is None and len(value) <= 256)):
            return False
        return all(map(self.each.fits, value))


@dataclass(frozen=True)
class Settled:
    """A value that changes the arithmetic and is the same in every release."""

    value: Any

    def __str__(self) -> str:
        return f"{self.value!r}: this package computes the release's model only"

    def fits(self, value: Any) -> bool:
        return type(value) is type(self.value) and value == self.value


@dataclass(frozen=True)
class Text:
    """A word; `many` of them in a list."""

    many: bool = False

    def __str__(self) -> str:
        return "a list of texts" if self.many else "a text"

    def fits(self, value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(v, str) for v in value) if self.many else isinstance(value, str)


class Ignored:
    """A key without effect on what is computed here."""

    def fits(self, value: Any) -> bool:
        return True


Rule = Whole | Number | Several | Settled | Text | Ignored
IGNORED = Ignored()
ID = Whole(0, 2**22)
WIDTH = Whole(1, 2**16)
LAYERS = Whole(1, 256)
WEIGHT = Number(0, 1e6)
ACTION: Mapping[str, Rule] = {
    "_target_": IGNORED,  # compared with config.TARGETS
    "accel_mean": Number(-100, 100),
    "accel_std": Number(1e-9, 100),
    "curvature_mean": Number(-10, 10),
    "curvature_std": Number(1e-9, 10),
    "accel_bounds": Several(Number(-1e3, 1e3), 2),
    "curvature_bounds": Several(Number(-1e2, 1e2), 2),
    "dt": Number(0.1, 0.1),
    "n_waypoints": Whole(4, 1024),
    **{f"{of}_{kind}": WEIGHT for of in ("v", "theta", "a", "kappa") for kind in ("lambda", "ridge")},
}


def below(section: str, rules: Mapping[str, Rule]) -> dict[str, Rule]:
    """The rules of a section by their full paths."""
    return {f"{section}.{key}": rule for key, rule in rules.items()}


DECODER: Mapping[str, Rule] = {
    "head_dim": Whole(2, 4096),
    "hidden_size": WIDTH,
    "intermediate_size": Whole(1, 2**18),
    "num_attention_heads": Whole(1, 1024),
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": Whole(1, 1024),
    "rms_norm_eps": Number(0, 1),
    "rope_theta": Number(1, 1e12),
    "bos_token_id": ID,
    "eos_token_id": ID,
    "attention_bias": Settled(False),
    "hidden_act": Settled("silu"),
    **{
        f"{rope}.{key}": rule
        for rope in ("rope_scaling", "rope_parameters")
        for key, rule in {
            "mrope_interleaved": Settled(True),
            "mrope_section": Several(Whole(0, 2048), 3),
            "rope_type": Settled("default"),
            "rope_theta": Number(1, 1e12),
        }.items()
    },
    **dict.fromkeys(
        (
            "attention_dropout",
            "dtype",
            "initializer_range",
            "max_position_embeddings",
            "model_type",
            "use_cache",
            "vocab_size",  # the checkpoint's own counts
        ),
        IGNORED,
    ),
}

RELEASED: Mapping[str, Rule] = {
    "vocab_size": Whole(1, 2**22),
    "traj_token_start_idx": ID,
    "traj_vocab_size": Whole(2, 2**20),
    "tokens_per_history_traj": Whole(12, 768),
    "min_pixels": Whole(1, 2**26),
    "max_pixels": Whole(1, 2**26),
    "vlm_name_or_path": Text(),
    "model_dtype": Text(),
    "dtype": Text(),
    "model_type": Text(),
    "architectures": Text(many=True),
    "vlm_backend": Settled("qwenvl3"),
    "expert_non_causal_attention": Settled(True),
    "add_special_tokens": Settled(True),
    **below("traj_token_ids", dict.fromkeys(("future", "future_end", "future_start", "history", "history_end", "history_start"), ID)),
    **below("action_in_proj_cfg", {
        "_target_": IGNORED,
        "hidden_size": WIDTH,
        "max_freq": Number(1, 1e6),
        "num_enc_layers": Whole(1, 64),
        "num_fourier_feats": Whole(2, 1024),
    }),
    "action_out_proj_cfg._target_": IGNORED,
    **below("action_space_cfg", ACTION),
    **below("diffusion_cfg", {
        "_target_": IGNORED,
        "int_method": Settled("euler"),
        "num_inference_steps": Whole(1, 10_000),
        "x_dims": IGNORED,  # follows from n_waypoints
    }),
    **below("expert_cfg", DECODER),
    **below("hist_traj_tokenizer_cfg", {
        "_target_": IGNORED,
        "num_bins": Whole(2, 2**20),
        "ego_xyz_min": Several(Number(-1e4, 1e4), 3),
        "ego_xyz_max": Several(Number(-1e4, 1e4), 3),
    }),
    **below("traj_tokenizer_cfg", {
        "_target_": IGNORED,
        "_recursive_": IGNORED,
        "num_bins": Whole(2, 2**20),
        "dims_min": Several(Number(-1e4, 1e4), 2),
        "dims_max": Several(Number(-1e4, 1e4), 2),
    }),
    **below("traj_tokenizer_cfg.action_space_cfg", ACTION),
    **dict.fromkeys(
        (
            "attn_implementation",
            "include_camera_ids",  # the family's prompt says so
            "include_frame_nums",
            "keep_same_dtype",
            "padding_side",
            "tokens_per_future_traj",  # follows from n_waypoints
            "transformers_version",
        ),
        IGNORED,
    ),
}  # fmt: skip
"""Every key of the released config.json of R1 and of Alpamayo 1.5."""

QWEN: Mapping[str, Rule] = {
    "tie_word_embeddings": Settled(False),
    "image_token_id": ID,
    "vision_start_token_id": ID,
    "vision_end_token_id": ID,
    **below("text_config", DECODER),
    **below("vision_config", {
        "deepstack_visual_indexes": Several(Whole(0, 255)),
        "depth": LAYERS,
        "hidden_act": Settled("gelu_pytorch_tanh"),
        "hidden_size": WIDTH,
        "in_channels": Settled(3),
        "initializer_range": IGNORED,
        "intermediate_size": Whole(1, 2**18),
        "model_type": IGNORED,
        "num_heads": Whole(1, 1024),
        "num_position_embeddings": Whole(1, 2**20),
        "out_hidden_size": WIDTH,
        "patch_size": Whole(1, 256),
        "spatial_merge_size": Whole(1, 16),
        "temporal_patch_size": Whole(1, 16),
    }),
    **dict.fromkeys(("architectures", "model_type", "transformers_version", "video_token_id"), IGNORED),
}  # fmt: skip
"""Every key of Qwen3-VL's config.json."""


def faults(config: Mapping[str, Any], rules: Mapping[str, Rule]) -> list[str]:
    """What is wrong with a config's values, key by key: what is there and what was expected."""
    found = []
    for path, value in leaves(config, sections(rules)):
        if path in rules and not rules[path].fits(value):
            found.append(f"{path} is {brief(value)}, expected {rules[path]}")
        elif path in sections(rules) and not (value is None or isinstance(value, Mapping)):
            found.append(f"{path} is {brief(value)}, expected an object")
    return found


def sections(rules: Mapping[str, Rule]) -> set[str]:
    """The paths of the objects that rules speak of."""
    return {path[:i] for path in rules for i, letter in enumerate(path) if letter == "."}


def leaves(config: Mapping[str, Any], within: set[str], path: str = "") -> list[tuple[str, Any]]:
    """Path and value of every key, objects named in `within` opened."""
    found = []
    for key, value in config.items():
        full = f"{path}.{key}" if path else str(key)
        found += leaves(value, within, full) if isinstance(value, Mapping) and full in within else [(full, value)]
    return found
