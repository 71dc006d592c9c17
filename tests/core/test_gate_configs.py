"""Configs, shards and tokenizers from outside: every key is known, every number bounded, nothing is read outside, every error is typed."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from alpamayo_r1.core.checkpoint import INDEX, CheckpointError, inspect, load_checkpoint, load_model
from alpamayo_r1.core.config import ConfigError, read_config, read_json
from alpamayo_r1.core.gate.keys import QWEN, RELEASED
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.vocab import load_vocabulary
from conftest import GOLDEN

TINY = GOLDEN / "checkpoint"
KEYS = json.loads((Path(__file__).parent / "data" / "released_keys.json").read_text())


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "tiny"))


@pytest.mark.parametrize("key", KEYS["released"])
def test_every_key_of_both_released_configs_is_accounted_for(key):
    assert key in RELEASED


@pytest.mark.parametrize("key", KEYS["qwen"])
def test_every_key_of_qwens_config_is_accounted_for(key):
    assert key in QWEN


def change(file: Path, path: str, value: Any) -> None:
    config = json.loads(file.read_text())
    *sections, key = path.split(".")
    there = config
    for section in sections:
        there = there.setdefault(section, {})
    there[key] = value
    file.write_text(json.dumps(config))


@pytest.mark.parametrize(
    "path,value,words",
    [
        ("hist_traj_tokenizer_cfg.num_bins", True, "num_bins is True, expected an integer"),
        ("hist_traj_tokenizer_cfg.num_bins", 1001, "fit into traj_vocab_size"),
        ("hist_traj_tokenizer_cfg.ego_xyz_min", [5, -4, -10], "lower limit"),
        ("action_space_cfg.n_waypoints", 0, "n_waypoints is 0"),
        ("action_space_cfg.accel_bounds", [1], "a list of 2"),
        ("diffusion_cfg.num_inference_steps", 0, "num_inference_steps is 0, expected an integer from 1"),
        ("diffusion_cfg.num_inference_steps", 10**9, "num_inference_steps is 1000000000"),
        ("diffusion_cfg", [], "diffusion_cfg is"),
        ("min_pixels", 10**5, "is at most max_pixels"),
        ("vocab_size", 4451.0, "vocab_size is 4451.0"),
        ("traj_token_ids.future", 7, "special tokens follow"),
        ("action_in_proj_cfg.hidden_size", "16", "hidden_size is '16'"),
        ("expert_cfg.num_hidden_layers", 3, "the expert has the text's layers"),
        ("vlm_name_or_path", "../vlm", "vlm_name_or_path is '../vlm'"),
        ("vlm_name_or_path", 5, "vlm_name_or_path is 5"),
        ("vlm.vision_config.depth", 4_000_000, "depth is 4000000, expected an integer from 1 to 256"),
        ("vlm.vision_config.deepstack_visual_indexes", [0, 1, 2_000_000], "deepstack_visual_indexes is"),
        ("vlm.vision_config.deepstack_visual_indexes", [0, 1, 4], "below depth 4"),
        ("vlm.text_config.rope_scaling.mrope_section", [4, 1, 2], "half of head_dim"),
        ("vlm.text_config.rope_scaling", None, "mrope_section"),
        ("vlm.text_config.rms_norm_eps", True, "rms_norm_eps is True"),
        ("vlm.text_config.hidden_act", "gelu", "release's model only"),
        ("vlm.text_config.num_key_value_heads", 3, "divide heads"),
        ("vlm.text_config.hidden_size", 10**9, "hidden_size is 1000000000"),
    ],
)
def test_values_that_no_release_has_are_refused_at_once(folder, path, value, words):
    file = folder / "config.json"
    if path.startswith("vlm."):
        file, path = folder / "vlm" / "config.json", path.removeprefix("vlm.")
    change(file, path, value)
    start = time.process_time()
    with pytest.raises(ConfigError, match=words):
        read_config(folder)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "file,key", [("vlm/config.json", "text_config"), ("vlm/config.json", "vision_config"), ("config.json", "action_in_proj_cfg")]
)
def test_a_part_that_is_null_is_named(folder, file, key):
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(config | {key: None}))
    with pytest.raises(ConfigError, match=f"{key} is None, expected an object"):
        read_config(folder)


def test_history_bins_are_read(folder):
    change(folder / "config.json", "hist_traj_tokenizer_cfg.num_bins", 128)
    change(folder / "config.json", "hist_traj_tokenizer_cfg.ego_xyz_max", [8, 4, 10])
    tokens = read_config(folder).tokens
    assert (tokens.history_bins, tokens.history_high) == (128, (8, 4, 10))


@pytest.mark.parametrize("text", ["[" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000, "[1]", "", "\ud800", '{"a": NaN}', "null"])
def test_json_that_is_no_config_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match=r"config\.json"):
        read_json(tmp_path / "config.json")


@pytest.mark.parametrize("name", ["../stray.safetensors", "/etc/passwd", "C:\\x.safetensors", "..\\x.safetensors", "", "link.safetensors"])
def test_shards_lie_in_the_folder(folder, name):
    shard = next(folder.glob("*.safetensors"))
    shutil.copy(shard, folder.parent / "stray.safetensors")
    (folder / "link.safetensors").symlink_to(folder.parent / "stray.safetensors")
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] = {tensor: name if file == shard.name else file for tensor, file in index["weight_map"].items()}
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"leaves the folder|link out|no file name"):
        inspect(folder)


@pytest.mark.parametrize("name", ["config.json", INDEX, "vlm/tokenizer.json", "vlm/config.json"])
def test_what_is_read_of_a_checkpoint_lies_in_the_folder(folder, name):
    outside = folder.parent / "elsewhere.json"
    shutil.move(folder / name, outside)
    (folder / name).symlink_to(outside)
    with pytest.raises((ConfigError, CheckpointError), match="link out"):
        load_checkpoint(folder)


def test_a_tokenizer_in_a_snapshot_is_read_through_its_links(folder):
    blobs, snapshot = folder.parent / "models--x" / "blobs", folder.parent / "models--x" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    shutil.move(folder, snapshot)
    for i, file in enumerate(sorted(f for f in snapshot.rglob("*") if f.is_file())):
        shutil.move(file, blobs / str(i))
        file.symlink_to(blobs / str(i))
    load_checkpoint(snapshot)


def test_a_snapshot_of_the_hubs_cache_is_read_through_its_links(folder):
    repository = folder.parent / "models--x"
    snapshot = repository / "snapshots" / "abc"
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for i, file in enumerate(sorted(f for f in folder.iterdir() if f.is_file())):
        shutil.move(file, repository / "blobs" / str(i))
        (snapshot / file.name).symlink_to(f"../../blobs/{i}")
    assert inspect(snapshot).keys() == inspect(TINY).keys()


@pytest.mark.slow
def test_a_tensor_in_two_shards_comes_from_the_one_that_the_index_names(folder):
    where = json.loads((folder / INDEX).read_text())["weight_map"]
    name = "expert.norm.weight"
    for other in sorted(set(where.values())):
        if other != where[name]:
            tensors = load_file(folder / other)
            save_file(tensors | {name: torch.full_like(load_file(folder / where[name])[name], 7)}, folder / other)
    assert torch.equal(load_model(folder).state_dict()[name], load_model(TINY).state_dict()[name])


def edited(file: Path, edit: Callable[[str], str]) -> None:
    file.write_text(edit(file.read_text(encoding="utf-8")), encoding="utf-8")


def swap(a: str, b: str) -> Callable[[str], str]:
    return lambda text: text.replace(a, "\0").replace(b, a).replace("\0", b)


@pytest.mark.parametrize(
    "pair",
    [
        ("<|im_end|>", "<|image_pad|>"),
        ("<|image_pad|>", "<|vision_start|>"),
        ("<|vision_start|>", "<|vision_end|>"),
        ("<|im_end|>", "<|endoftext|>"),
    ],
)
def test_swapped_special_tokens_are_refused(folder, pair):
    edited(folder / "vlm" / "tokenizer.json", swap(*pair))
    config = read_config(folder)
    with pytest.raises(ConfigError, match="trained with"):
        load_vocabulary(folder / "vlm", config.tokens, config.family)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "{}",
        lambda text: "null",
        lambda text: "[" * 100_000,
        lambda text: text.replace('"ByteLevel"', '"Nonsense"'),
        lambda text: text.replace('"id": 4', '"id": -4'),
        lambda text: json.dumps(json.loads(text) | {"model": {"type": "BPE", "vocab": {}, "merges": []}}),
        lambda text: json.dumps(json.loads(text) | {"decoder": None}),
    ],
)
def test_damaged_tokenizer_files_are_config_errors(folder, edit):
    edited(folder / "vlm" / "tokenizer.json", edit)
    config = read_config(folder)
    with pytest.raises(ConfigError):
        load_vocabulary(folder / "vlm", config.tokens, config.family)


@pytest.mark.parametrize("option", [{"samples": 10**9}, {"max_tokens": 10**9}, {"steps": 10**9}])
def test_requests_are_bounded(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} is 1,000,000,000, expected .*at most"):
        PlanOptions(**option)


@pytest.mark.parametrize("text", ["\ud800", "a\udfff b", "東\ud83d", "\ud83d\ude00"])
def test_half_a_surrogate_pair_is_no_text(text):
    folder = GOLDEN / "checkpoint"
    config = read_config(folder)
    with pytest.raises(ValueError, match="no text that can be written as UTF-8"):
        load_vocabulary(folder / config.vlm, config.tokens).encode(text)
