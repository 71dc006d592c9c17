"""The shapes that we train, as config files in the released form, and the small vocabulary that goes with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alpamayo_r1.core.family import ALPAMAYO_15, R1, Family
from alpamayo_r1.core.files import write_text

QWEN_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TRAJECTORY_TOKENS = 4000
CHAT_TEMPLATE = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}{%- if m.content is string %}{{- m.content }}{%- else %}"
    "{%- for c in m.content %}{%- if c.type == 'image' or 'image' in c %}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif 'text' in c %}{{- c.text }}{%- endif %}{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


@dataclass(frozen=True)
class Preset:
    """One size: the numbers that differ between sizes. The rest follows."""

    text: Mapping[str, int]
    expert: Mapping[str, int]
    vision: Mapping[str, Any]
    rope_sections: tuple[int, int, int]
    action_hidden: int
    min_pixels: int
    max_pixels: int
    words: int  # size of the base vocabulary
    family: Family = R1


_R1 = {
    "small": Preset(
        text={"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 1024},
        expert={"hidden_size": 192, "num_attention_heads": 6, "intermediate_size": 512},
        vision={"hidden_size": 192, "depth": 8, "num_heads": 3, "intermediate_size": 768, "deepstack_visual_indexes": [2, 5]},
        rope_sections=(12, 10, 10),
        action_hidden=128,
        min_pixels=16384,
        max_pixels=30720,
        words=560,
    ),
    "tiny": Preset(
        text={"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 128},
        expert={"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64},
        vision={"hidden_size": 64, "depth": 2, "num_heads": 1, "intermediate_size": 128, "deepstack_visual_indexes": [0]},
        rope_sections=(12, 10, 10),
        action_hidden=32,
        min_pixels=2048,
        max_pixels=8192,
        words=560,
    ),
}

PRESETS = _R1 | {f"{name}-1.5": replace(preset, words=760, family=ALPAMAYO_15) for name, preset in _R1.items()}
"""`small` and `small-1.5` are the bundled models: 128 x 224 pixels a frame, 28 tokens an image. The tiny ones are for tests."""

ACTION_SPACE = {
    "accel_bounds": [-9.8, 9.8],
    "accel_mean": -0.15,
    "accel_std": 1.05,
    "curvature_bounds": [-0.33, 0.33],
    "curvature_mean": 0.0,
    "curvature_std": 0.012,
    "dt": 0.1,
    "n_waypoints": 64,
}
"""Normalisation measured on 1,024 scenes of the world at t0: acceleration -0.15 +- 1.05 m/s^2, curvature 0.0002 +- 0.009 1/m."""


def build_backend(corpus: Iterable[str], words: int):
    """A byte-level BPE of `words` tokens learnt from a corpus, with Qwen's special tokens after it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=words, min_frequency=1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(corpus, trainer)
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in QWEN_SPECIAL])
    return backend


def corpus(family: Family = R1) -> list[str]:
    """Everything that a model of a family reads or says, sentences also in mid-sentence form. Of numbers all digits, each by itself."""
    from alpamayo_r1.world.language import RICHER_TEXTS, TEXTS
    from alpamayo_r1.world.navigation import texts
    from alpamayo_r1.world.questions import ANSWERS, QUESTIONS

    said = [*TEXTS]
    more: list[str] = []
    if family.question is not None:
        answers = [answer for some in ANSWERS.values() for answer in some]
        said += [*RICHER_TEXTS, *texts(range(2, 10)), *QUESTIONS, *answers]
        often = [*family.headers(range(len(family.cameras))), *family.headers([0] * 4), family.system, family.task]
        more = 40 * often + list("0123456789")  # what stands in every prompt shall be short
    return [*said, *(f" {text}" for text in said), family.system, family.task, "system\n", "user\n", "assistant\n", *more]


def vlm_config(preset: Preset, ids: Mapping[str, int]) -> dict[str, Any]:
    """Qwen3-VL's config.json."""
    hidden = preset.text["hidden_size"]
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "tie_word_embeddings": False,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "text_config": {
            "model_type": "qwen3_vl_text",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "head_dim": 64,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "max_position_embeddings": 32768,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-6,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": list(preset.rope_sections), "rope_type": "default"},
            "rope_theta": 10000.0,
            "use_cache": True,
            "vocab_size": len(ids),
            **preset.text,
        },
        "vision_config": {
            "model_type": "qwen3_vl",
            "hidden_act": "gelu_pytorch_tanh",
            "in_channels": 3,
            "initializer_range": 0.02,
            "num_position_embeddings": 2304,
            "out_hidden_size": hidden,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            **preset.vision,
        },
    }


def released_config(preset: Preset, base: int) -> dict[str, Any]:
    """The checkpoint's config.json in the released schema; `base` tokens stand before <i0>."""
    family, first_special = preset.family, base + TRAJECTORY_TOKENS
    names = [name for name in family.special if name != "image_pad"]
    ids = {name: first_special + i for i, name in enumerate(names)}
    targets = family.package
    action_space = {"_target_": targets + "action_space.UnicycleAccelCurvatureActionSpace", **ACTION_SPACE}
    headers = {} if family.names is None else {"include_camera_ids": True, "include_frame_nums": True, "padding_side": "left"}
    return {
        **headers,
        "action_in_proj_cfg": {
            "_target_": targets + "models.action_in_proj.PerWaypointActionInProjV2",
            "hidden_size": preset.action_hidden,
            "max_freq": 100.0,
            "num_enc_layers": 2,
            "num_fourier_feats": 20,
        },
        "action_out_proj_cfg": {"_target_": "torch.nn.Linear"},
        "action_space_cfg": action_space,
        "add_special_tokens": True,
        "architectures": [family.architecture],
        "attn_implementation": "sdpa",
        "diffusion_cfg": {"_target_": targets + "diffusion.flow_matching.FlowMatching", "num_inference_steps": 10},
        "dtype": "bfloat16",
        "expert_cfg": {"head_dim": 64, "num_key_value_heads": 2, **preset.expert},
        "expert_non_causal_attention": True,
        "hist_traj_tokenizer_cfg": {"_target_": targets + "models.delta_tokenizer.DeltaTrajectoryTokenizer"},
        "keep_same_dtype": True,
        "max_pixels": preset.max_pixels,
        "min_pixels": preset.min_pixels,
        "model_dtype": "bfloat16",
        "model_type": family.model_type,
        "tokens_per_future_traj": 128,
        "tokens_per_history_traj": 48,
        "traj_token_ids": {
            key.removeprefix("traj_"): ids[key]
            for key in ("traj_future", "traj_future_end", "traj_future_start", "traj_history", "traj_history_end", "traj_history_start")
        },
        "traj_token_start_idx": base,
        "traj_tokenizer_cfg": {
            "_recursive_": False,
            "_target_": targets + "action_space.DiscreteTrajectoryTokenizer",
            "action_space_cfg": action_space,
            "dims_max": [10, 10],
            "dims_min": [-10, -10],
            "num_bins": 3000,
        },
        "traj_vocab_size": TRAJECTORY_TOKENS,
        "transformers_version": "4.57.1",
        "vlm_backend": "qwenvl3",
        "vlm_name_or_path": "vlm",
        "vocab_size": first_special + len(names),
    }


def write_vlm_folder(folder: Path, preset: Preset) -> int:
    """Writes Qwen3-VL's config, tokenizer and processor files; returns the number of base tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    backend = build_backend(corpus(preset.family), preset.words)
    ids = {token: number for token, number in backend.get_vocab(with_added_tokens=True).items() if token in QWEN_SPECIAL}
    full = backend.get_vocab(with_added_tokens=False)
    base = len(full) + len(QWEN_SPECIAL)
    backend.save(str(folder / "tokenizer.json"))
    model = json.loads(backend.to_str())["model"]
    write_json(folder / "vocab.json", full)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    write_text(folder / "merges.txt", "#version: 0.2\n" + "\n".join(merges) + "\n")
    write_json(folder / "config.json", {**vlm_config(preset, full | ids)})
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    tokenizer = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(i): {"content": token, **flags} for token, i in ids.items()},
        "additional_special_tokens": list(QWEN_SPECIAL[1:]),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
        "model_max_length": 32768,
    }
    write_json(folder / "tokenizer_config.json", tokenizer)
    write_json(folder / "added_tokens.json", ids)
    write_text(folder / "chat_template.jinja", CHAT_TEMPLATE)
    picture = {
        "size": {"longest_edge": 16777216, "shortest_edge": 65536},
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen3VLProcessor",
    }
    write_json(folder / "preprocessor_config.json", {**picture, "image_processor_type": "Qwen2VLImageProcessorFast"})
    write_json(folder / "video_preprocessor_config.json", {**picture, "video_processor_type": "Qwen3VLVideoProcessor"})
    return base


def write_skeleton(folder: Path, name: str) -> None:
    """A checkpoint folder without weights: config.json and the vlm folder of a preset. Raises ValueError for a preset that is not there."""
    preset = preset_named(name)
    base = write_vlm_folder(folder / "vlm", preset)
    write_json(folder / "config.json", released_config(preset, base))


def preset_named(name: str) -> Preset:
    """A preset by its name. Raises ValueError for one that is not there."""
    if name not in PRESETS:
        raise ValueError(f"preset is {name!r}, expected one of {', '.join(PRESETS)}")
    return PRESETS[name]


def write_json(path: Path, value: object) -> None:
    """Indented JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")
