"""Configuration as data: a closed table from the released `config.json` (R1 and 1.5) and Qwen3-VL's `config.json` to ours.

Nothing that a config names is ever imported or called: `_target_` strings are compared with the names below and refused otherwise.
Unknown keys are ignored, absent ones take the release's values (spec section 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpamayo_r1.core.family import FAMILIES, Family, family_of
from alpamayo_r1.core.gate.files import inside, read_object
from alpamayo_r1.core.gate.keys import QWEN, RELEASED, Rule, faults
from alpamayo_r1.core.gate.values import brief

TARGETS: Mapping[str, tuple[str, ...]] = {
    "action_in_proj_cfg": ("models.action_in_proj.PerWaypointActionInProjV2",),
    "action_out_proj_cfg": ("torch.nn.Linear",),
    "action_space_cfg": ("action_space.UnicycleAccelCurvatureActionSpace",),
    "diffusion_cfg": ("diffusion.flow_matching.FlowMatching",),
    "hist_traj_tokenizer_cfg": ("models.delta_tokenizer.DeltaTrajectoryTokenizer",),
    "traj_tokenizer_cfg": ("action_space.DiscreteTrajectoryTokenizer", "action_space.discrete_action_space.DiscreteTrajectoryTokenizer"),
}
"""Config section -> the class names of the release that we know how to be (their package prefix removed)."""

MIN_PIXELS, MAX_PIXELS = 163840, 196608
"""The release's pixel budget of one resized picture."""

DTYPES = ("float32", "bfloat16", "float16")
"""What weights may be computed in."""

PACKAGES = (*(family.package for family in FAMILIES), "")


class ConfigError(ValueError):
    """A config that this package cannot be, said by name."""


@dataclass(frozen=True)
class VisionConfig:
    """Qwen3-VL's vision transformer."""

    depth: int
    hidden: int
    heads: int
    intermediate: int
    out_hidden: int
    positions: int
    deepstack: tuple[int, ...]
    patch: int = 16
    temporal_patch: int = 2
    merge: int = 2
    channels: int = 3

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch: channels x time x height x width."""
        return self.channels * self.temporal_patch * self.patch**2


@dataclass(frozen=True)
class DecoderConfig:
    """A Qwen3 decoder stack: the language model, or the action expert (which has no vocabulary)."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    rope_theta: float
    rope_sections: tuple[int, int, int]
    eps: float = 1e-6
    vocab: int | None = None


@dataclass(frozen=True)
class ActionConfig:
    """The unicycle action space: (acceleration, curvature) at `dt`, normalised by mean and std; see action.py for the lambdas."""

    accel_mean: float = 0.02902694707164455
    accel_std: float = 0.6810426736454882
    curvature_mean: float = 0.0002692167976330542
    curvature_std: float = 0.026148280660833106
    accel_bounds: tuple[float, float] = (-9.8, 9.8)
    curvature_bounds: tuple[float, float] = (-0.33, 0.33)
    dt: float = 0.1
    n_waypoints: int = 64
    v_lambda: float = 1e-6
    v_ridge: float = 1e-4
    theta_lambda: float = 1e-6
    theta_ridge: float = 1e-8
    a_lambda: float = 1e-4
    a_ridge: float = 1e-4
    kappa_lambda: float = 1e-4
    kappa_ridge: float = 1e-4


@dataclass(frozen=True)
class ProjectionConfig:
    """The action encoder: Fourier features per waypoint, then `layers` hidden blocks."""

    hidden: int
    layers: int
    features: int = 20
    max_frequency: float = 100.0


@dataclass(frozen=True)
class TokenConfig:
    """Where trajectory tokens live in the vocabulary and how they are quantised (spec sections 2 and 6)."""

    first: int  # id of <i0>
    count: int  # trajectory tokens
    vocab: int  # whole vocabulary
    history_tokens: int = 48
    future_bins: int = 3000
    future_low: tuple[float, float] = (-10.0, -10.0)
    future_high: tuple[float, float] = (10.0, 10.0)
    history_bins: int = 1000
    history_low: tuple[float, float, float] = (-4.0, -4.0, -10.0)
    history_high: tuple[float, float, float] = (4.0, 4.0, 10.0)
    placed: tuple[tuple[str, int], ...] = ()  # Qwen's special tokens whose ids its config names

    @property
    def first_history(self) -> int:
        """Id of history bin 0: history bins come after the future bins."""
        return self.first + self.future_bins


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the model's shape and arithmetic. One class, three sizes: tiny, small, 10B."""

    vision: VisionConfig
    text: DecoderConfig
    expert: DecoderConfig
    action: ActionConfig
    projection: ProjectionConfig
    tokens: TokenConfig
    min_pixels: int
    max_pixels: int
    flow_steps: int
    image_token: str
    vlm: str
    dtype: str
    family: Family


KNOWN_VLMS: Mapping[str, Mapping[str, Any]] = {
    name: {
        "model_type": "qwen3_vl",
        "image_token_id": 151655,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "text_config": {
            "bos_token_id": 151643,
            "eos_token_id": 151645,
            "head_dim": 128,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_attention_heads": 32,
            "num_hidden_layers": 36,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-6,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
            "rope_theta": 5000000,
        },
        "vision_config": {
            "deepstack_visual_indexes": [8, 16, 24],
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "out_hidden_size": 4096,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }
    for name in ("Qwen/Qwen3-VL-8B-Instruct", "nvidia/Cosmos-Reason2-8B")
}
"""Qwen3-VL configurations of the released checkpoints, so that building a config never opens the network."""


def read_config(folder: Path) -> ModelConfig:
    """The configuration of a checkpoint folder.

    Raises:
        ConfigError: no or invalid `config.json`, an unknown `_target_`, or a `vlm_name_or_path` that is neither known nor a folder.
    """
    released = own_json(folder, "config.json")
    return parse_config(released, read_vlm_config(required(released, "vlm_name_or_path"), folder))


def read_vlm_config(name: str, folder: Path) -> Mapping[str, Any]:
    """Qwen3-VL's config: in the checkpoint's own folder, at a local path, or from KNOWN_VLMS. Never from the network."""
    if not isinstance(name, str):
        raise ConfigError(f"vlm_name_or_path is {brief(name)}, expected a text")
    found = local_vlm(name, folder)
    if found is not None:
        return own_json(found, "config.json")
    if name in KNOWN_VLMS:
        return KNOWN_VLMS[name]
    raise ConfigError(
        f"vlm_name_or_path is {name!r}: no folder {folder / name} or {name} with a config.json, and not one of {sorted(KNOWN_VLMS)}. "
        "Put the Qwen3-VL config.json and tokenizer files into a folder and name that folder in the checkpoint's config.json."
    )


def local_vlm(name: str, folder: Path) -> Path | None:
    """The Qwen3-VL folder in the checkpoint's, or at a local path that does not climb, if there is one.

    An absolute path is a choice of whoever runs this; a relative one with `..` is a checkpoint's way out of its folder.

    Raises:
        ConfigError: a name with `..`, or one that is a link out of the checkpoint's folder.
    """
    if ".." in Path(name).parts or len(name) > 1000 or "\0" in name:
        raise ConfigError(f"vlm_name_or_path is {brief(name)}, expected a folder in the checkpoint's, a repository, or an absolute path")
    if not Path(name).is_absolute() and (folder / name / "config.json").is_file():
        try:
            return inside(folder, name)
        except ValueError as error:
            raise ConfigError(f"vlm_name_or_path: {error}") from None
    return Path(name) if (Path(name) / "config.json").is_file() else None


def parse_config(released: Mapping[str, Any], vlm: Mapping[str, Any]) -> ModelConfig:
    """Released config and Qwen3-VL config -> ModelConfig; what the expert does not name it inherits from the text config."""
    for section, known in TARGETS.items():
        check_target(section, released.get(section) or {}, known)
    check_target(
        "traj_tokenizer_cfg.action_space_cfg",
        (released.get("traj_tokenizer_cfg") or {}).get("action_space_cfg") or {},
        TARGETS["action_space_cfg"],
    )
    refuse_targets(released)
    check_keys("config.json", released, RELEASED)
    check_keys("Qwen3-VL's config.json", vlm, QWEN)
    text, vision = part(vlm, "text_config"), part(vlm, "vision_config")
    projection = part(released, "action_in_proj_cfg")
    future, past = released.get("traj_tokenizer_cfg") or {}, released.get("hist_traj_tokenizer_cfg") or {}
    vocab = required(released, "vocab_size")
    config = ModelConfig(
        vision=vision_config(vision),
        text=decoder_config(text, vocab),
        expert=decoder_config({**text, **(released.get("expert_cfg") or {})}, None),
        action=action_config(released.get("action_space_cfg") or {}),
        projection=ProjectionConfig(
            hidden=required(projection, "hidden_size"),
            layers=required(projection, "num_enc_layers"),
            features=projection.get("num_fourier_feats", 20),
            max_frequency=projection.get("max_freq", 100.0),
        ),
        tokens=TokenConfig(
            first=required(released, "traj_token_start_idx"),
            count=required(released, "traj_vocab_size"),
            vocab=vocab,
            history_tokens=released.get("tokens_per_history_traj", 48),
            future_bins=future.get("num_bins", 3000),
            future_low=tuple(future.get("dims_min", (-10.0, -10.0))),
            future_high=tuple(future.get("dims_max", (10.0, 10.0))),
            history_bins=past.get("num_bins", 1000),
            history_low=tuple(past.get("ego_xyz_min", (-4.0, -4.0, -10.0))),
            history_high=tuple(past.get("ego_xyz_max", (4.0, 4.0, 10.0))),
            placed=placed_tokens(vlm),
        ),
        min_pixels=released.get("min_pixels", MIN_PIXELS),
        max_pixels=released.get("max_pixels", MAX_PIXELS),
        flow_steps=(released.get("diffusion_cfg") or {}).get("num_inference_steps", 10),
        image_token="<|image_pad|>",
        vlm=required(released, "vlm_name_or_path"),
        dtype=dtype_name(released.get("model_dtype") or released.get("dtype") or "bfloat16"),
        family=read_family(released),
    )
    check_relations(config)
    check_token_ids(released, config)
    return config


def placed_tokens(vlm: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """The special tokens whose ids a Qwen3-VL config names."""
    text = vlm["text_config"]
    found = {
        "image_pad": vlm.get("image_token_id"),
        "vision_start": vlm.get("vision_start_token_id"),
        "vision_end": vlm.get("vision_end_token_id"),
        "endoftext": text.get("bos_token_id"),
        "im_end": text.get("eos_token_id"),
    }
    return tuple((name, id_) for name, id_ in found.items() if id_ is not None)


def read_family(released: Mapping[str, Any]) -> Family:
    """The family of a released config. Raises ConfigError where it names two."""
    try:
        return family_of(released)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def vision_config(vision: Mapping[str, Any]) -> VisionConfig:
    """A Qwen3-VL vision config -> VisionConfig."""
    return VisionConfig(
        depth=required(vision, "depth"),
        hidden=required(vision, "hidden_size"),
        heads=required(vision, "num_heads"),
        intermediate=required(vision, "intermediate_size"),
        out_hidden=required(vision, "out_hidden_size"),
        positions=required(vision, "num_position_embeddings"),
        deepstack=tuple(required(vision, "deepstack_visual_indexes")),
        patch=vision.get("patch_size", 16),
        temporal_patch=vision.get("temporal_patch_size", 2),
        merge=vision.get("spatial_merge_size", 2),
    )


def decoder_config(text: Mapping[str, Any], vocab: int | None) -> DecoderConfig:
    """A Qwen3 text config -> DecoderConfig. Accepts rope settings under `rope_scaling` (4.x) or `rope_parameters` (5.x)."""
    rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
    hidden, heads = required(text, "hidden_size"), required(text, "num_attention_heads")
    return DecoderConfig(
        layers=required(text, "num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=required(text, "num_key_value_heads"),
        head_dim=text.get("head_dim") or hidden // heads,
        intermediate=required(text, "intermediate_size"),
        rope_theta=float(text.get("rope_theta") or rope.get("rope_theta") or 5e6),
        rope_sections=tuple(required(rope, "mrope_section")),
        eps=text.get("rms_norm_eps", 1e-6),
        vocab=vocab,
    )


def action_config(section: Mapping[str, Any]) -> ActionConfig:
    """The action space's section -> ActionConfig; unknown keys ignored, absent ones default."""
    known = ActionConfig.__dataclass_fields__
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in section.items() if k in known}
    return ActionConfig(**values)


def dtype_name(said: Any) -> str:
    """A config's dtype without torch's prefix. Raises ConfigError unless it is one of DTYPES."""
    name = str(said).removeprefix("torch.")
    if name not in DTYPES:
        raise ConfigError(f"the config's dtype is {said!r}, expected one of {', '.join(DTYPES)}.")
    return name


def check_target(section: str, config: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuses a section that is no object, and a `_target_` that is not one of the release's names for it."""
    if not isinstance(config, Mapping):
        raise ConfigError(f"{section} is {config!r}: expected an object.")
    target = config.get("_target_")
    if target is not None and target not in [package + name for package in PACKAGES for name in known]:
        raise ConfigError(
            f"{section}._target_ is {target!r}, expected one of {known}. A config is data here: what it names is never imported or called."
        )


def refuse_targets(config: Any, path: str = "") -> None:
    """Refuses `_target_` anywhere but where `parse_config` compares it with TARGETS."""
    if isinstance(config, Mapping):
        if "_target_" in config and path not in (*TARGETS, "traj_tokenizer_cfg.action_space_cfg"):
            raise ConfigError(f"{path or 'config'}._target_ is {config['_target_']!r}: no class is expected here; remove it.")
        for key, value in config.items():
            refuse_targets(value, f"{path}.{key}" if path else key)
    elif isinstance(config, list):
        for i, value in enumerate(config):
            refuse_targets(value, f"{path}[{i}]")


def part(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """config[key], which is an object, or an error that names the key."""
    found = required(config, key)
    if not isinstance(found, Mapping):
        raise ConfigError(f"{key} is {brief(found)}, expected an object")
    return found


def required(config: Mapping[str, Any], key: str) -> Any:
    """config[key], or an error that names the key."""
    if key not in config:
        raise ConfigError(f"config lacks {key!r}; present: {sorted(config)}")
    return config[key]


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object from a file. Raises ConfigError, which names the file."""
    try:
        return read_object(path)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: expected a checkpoint folder with config.json, safetensors and an index.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(str(error)) from None


def own_json(folder: Path, name: str) -> Mapping[str, Any]:
    """A JSON object from a file of a folder. Raises ConfigError, also for a link that leads out of the folder."""
    try:
        return read_json(inside(folder, name))
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None


def check_keys(what: str, config: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Raises ConfigError naming every value that is not what its key expects."""
    found = faults(config, rules)
    if found:
        raise ConfigError(f"{what}: " + "; ".join(found))


def check_relations(config: ModelConfig) -> None:
    """Raises ConfigError where two values of a config contradict each other."""
    vision, text, expert, tokens = config.vision, config.text, config.expert, config.tokens
    holds = {
        f"deepstack_visual_indexes {vision.deepstack} are ascending and below depth {vision.depth}": (
            list(vision.deepstack) == sorted(set(vision.deepstack)) and all(i < vision.depth for i in vision.deepstack)
        ),
        f"there are no more deepstack_visual_indexes ({len(vision.deepstack)}) than layers ({text.layers})": (
            len(vision.deepstack) <= text.layers
        ),
        f"vision heads {vision.heads} divide hidden_size {vision.hidden} into multiples of 4": vision.hidden % (4 * vision.heads) == 0,
        f"num_position_embeddings {vision.positions} is a square": math.isqrt(vision.positions) ** 2 == vision.positions,
        f"out_hidden_size {vision.out_hidden} is the text's hidden_size {text.hidden}": vision.out_hidden == text.hidden,
        f"the expert has the text's layers {text.layers}, key-value heads {text.kv_heads} and head_dim {text.head_dim}": (
            (expert.layers, expert.kv_heads, expert.head_dim) == (text.layers, text.kv_heads, text.head_dim)
        ),
        f"num_fourier_feats {config.projection.features} is even": config.projection.features % 2 == 0,
        f"min_pixels {config.min_pixels} is at most max_pixels {config.max_pixels}": config.min_pixels <= config.max_pixels,
        f"max_pixels {config.max_pixels} holds a merged patch": config.max_pixels >= (vision.patch * vision.merge) ** 2,
        f"tokens_per_history_traj {tokens.history_tokens} is three per step": tokens.history_tokens % 3 == 0,
        f"future bins {tokens.future_bins} and history bins {tokens.history_bins} fit into traj_vocab_size {tokens.count}": (
            tokens.future_bins + tokens.history_bins <= tokens.count
        ),
        f"trajectory tokens {tokens.first} + {tokens.count} fit into vocab_size {tokens.vocab}": tokens.first + tokens.count < tokens.vocab,
        "every lower limit of the trajectory tokens is below its upper one": all(
            low < high for low, high in zip(tokens.future_low + tokens.history_low, tokens.future_high + tokens.history_high, strict=True)
        ),
        "every lower bound of the action space is below its upper one": all(
            low < high for low, high in (config.action.accel_bounds, config.action.curvature_bounds)
        ),
    }
    for name, decoder in (("text", text), ("expert", expert)):
        holds |= {
            f"{name}: key-value heads {decoder.kv_heads} divide heads {decoder.heads}": decoder.heads % decoder.kv_heads == 0,
            f"{name}: mrope_section {decoder.rope_sections} sums to half of head_dim {decoder.head_dim}": (
                2 * sum(decoder.rope_sections) == decoder.head_dim
            ),
        }
    wrong = [what for what, true in holds.items() if not true]
    if wrong:
        raise ConfigError("the config contradicts itself; expected that " + "; that ".join(wrong))


def check_token_ids(released: Mapping[str, Any], config: ModelConfig) -> None:
    """Raises ConfigError where traj_token_ids are not those of the release's order."""
    names = [name for name in config.family.special if name != "image_pad"]
    for key, said in (released.get("traj_token_ids") or {}).items():
        name = f"traj_{key}"
        if name in names and said != config.tokens.first + config.tokens.count + names.index(name):
            wanted = config.tokens.first + config.tokens.count + names.index(name)
            raise ConfigError(f"traj_token_ids.{key} is {said}, expected {wanted}: special tokens follow the trajectory tokens in order.")
