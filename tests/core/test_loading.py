"""Checkpoints in the released layout: names, shapes, refusals, the way to the device and back to disk."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from huggingface_hub.errors import HTTPError
from safetensors.torch import load_file, save_file

from alpamayo_r1.core.checkpoint import (
    DTYPES,
    CheckpointError,
    build_meta,
    inspect,
    load_checkpoint,
    load_model,
    read_header,
    save_checkpoint,
    split,
)
from alpamayo_r1.core.config import ConfigError, parse_config, read_config, read_json
from alpamayo_r1.core.hub import HubError, fetch
from alpamayo_r1.models.alpamayo_r1 import AlpamayoR1
from alpamayo_r1.planner import load
from conftest import GOLDEN

TINY = GOLDEN / "checkpoint"
ROUNDED = {
    "accel_mean": 0.029052734375,
    "accel_std": 0.6796875,
    "curvature_mean": 0.0002689361572265625,
    "curvature_std": 0.026123046875,
}


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the network was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def folder(tmp_path):
    """A copy of the tiny checkpoint to break."""
    return shutil.copytree(TINY, tmp_path / "tiny")


def change(folder, change_tensors):
    """Rewrites the first shard's tensors."""
    file = folder / "model-00001-of-00008.safetensors"
    tensors = load_file(file)
    change_tensors(tensors)
    save_file(tensors, file)


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("release", ["alpamayo-r1-10b", "alpamayo-1.5-10b"])
def test_the_10b_on_the_meta_device(shared, release, no_network, tmp_path):
    """1,166 published names, shapes and dtypes, 11,078,526,194 parameters, from config.json alone."""
    shutil.copy(shared / "release" / f"{release}.config.json", tmp_path / "config.json")
    config = read_config(tmp_path)
    model = build_meta(config)
    tensors = model.state_dict()
    published = read_json(shared / "release" / "tensors_alpamayo-r1-10b.json")
    assert {name: list(t.shape) for name, t in tensors.items()} == {name: shape for name, (shape, _) in published.items()}
    assert len(tensors) == 1166 and sum(p.numel() for p in model.parameters()) == 11_078_526_194
    model.to(DTYPES[config.dtype]).action_space.float()  # the release keeps its four scalars in fp32
    assert {name: str(t.dtype) for name, t in model.state_dict().items()} == {name: dtype for name, (_, dtype) in published.items()}


def test_known_vlms_are_qwens(shared):
    """The configuration kept in the package equals Qwen's own file."""
    released = read_json(shared / "release" / "alpamayo-r1-10b.config.json")
    qwen = read_json(shared / "release" / "qwen3-vl-8b" / "config.json")
    assert parse_config(released, qwen) == parse_config(released, known_vlm(released["vlm_name_or_path"]))


def known_vlm(name):
    from alpamayo_r1.core.config import KNOWN_VLMS

    return KNOWN_VLMS[name]


def test_no_network_for_a_local_checkpoint(no_network):
    AlpamayoR1.from_pretrained(TINY)


def test_a_checkpoint_without_buffers(folder):
    """1.5 does not store the seven buffers: they follow from the config."""
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        kept = {n: t for n, t in tensors.items() if not n.startswith("action_space.") and not n.endswith(".freqs")}
        save_file(kept, file) if len(kept) < len(tensors) else None
    assert len(inspect(TINY)) - len(inspect(folder)) == 7
    ours, whole = load_model(folder).state_dict(), load_model(TINY).state_dict()
    assert all(torch.equal(ours[name], whole[name]) for name in whole)


def test_bf16_rounds_the_scalars():
    model = load_model(TINY, dtype=torch.bfloat16)
    assert {name: getattr(model.action_space, name).item() for name in ROUNDED} == ROUNDED
    assert {t.dtype for t in model.state_dict().values()} == {torch.bfloat16}


def test_missing_unexpected_and_misshapen_are_all_named(folder, monkeypatch):
    first = sorted(read_header(folder / "model-00001-of-00008.safetensors"))

    def spoil(tensors):
        tensors["stranger"] = torch.zeros(1)
        tensors[first[0]] = torch.zeros(3, 3)
        del tensors[first[1]]

    change(folder, spoil)
    monkeypatch.setattr("alpamayo_r1.core.checkpoint.read_tensors", None)  # nothing may be used
    with pytest.raises(CheckpointError) as error:
        load_model(folder)
    said = str(error.value)
    assert f"1 missing: {first[1]}" in said and "1 unexpected: stranger" in said and f"1 misshapen: {first[0]} (stored (3, 3)" in said


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated(folder, keep):
    file = folder / "model-00003-of-00008.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model-00003.*truncated"):
        load_model(folder)


def test_absent_shard(folder):
    (folder / "model-00003-of-00008.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lacks model-00003-of-00008"):
        load_model(folder)


def test_foreign_dtype(folder):
    change(folder, lambda tensors: tensors.update({next(iter(tensors)): torch.zeros(2, dtype=torch.int64)}))
    with pytest.raises(CheckpointError, match=r"\(I64\)"):
        load_model(folder)


@pytest.mark.parametrize(
    "section, path",
    [("action_space_cfg", "action_space_cfg"), ("diffusion_cfg", "diffusion_cfg"), ("surprise", "surprise")],
)
def test_a_config_is_never_called(folder, section, path, monkeypatch):
    monkeypatch.setattr("os.system", lambda *_: pytest.fail("called"))
    change_config(folder, **{section: {"_target_": "os.system", "command": "true"}})
    with pytest.raises(ConfigError, match=rf"{path}._target_ is 'os.system'"):
        AlpamayoR1.from_pretrained(folder)


def test_a_nested_target_is_refused(folder):
    for section in (
        {"traj_tokenizer_cfg": {"action_space_cfg": {"_target_": "os.system"}}},
        {"diffusion_cfg": {"solver": {"_target_": "os.system"}}},
        {"diffusion_cfg": {"solvers": [{"_target_": "os.system"}]}},
        {"diffusion_cfg": {"_target_": ["os.system"]}},
    ):
        shutil.copy(TINY / "config.json", folder)
        change_config(folder, **section)
        with pytest.raises(ConfigError, match=r"os\.system"):
            read_config(folder)


@pytest.mark.parametrize(
    "section,values,words",
    [
        (None, {"expert_non_causal_attention": False}, "expert_non_causal_attention is False"),
        (None, {"diffusion_cfg": {"int_method": "heun"}}, "int_method is 'heun'"),
        (None, {"tie_word_embeddings": True}, "tie_word_embeddings is True"),
        ("text_config", {"hidden_act": "relu"}, "text_config.hidden_act is 'relu'"),
        ("text_config", {"rope_parameters": {"mrope_interleaved": False}}, "mrope_interleaved is False"),
    ],
)
def test_an_arithmetic_that_is_not_the_releases_is_refused(section, values, words):
    released, vlm = dict(read_json(TINY / "config.json")), dict(read_json(TINY / "vlm" / "config.json"))
    for config in (released, vlm):
        config |= values if section is None else {section: {**config.get(section, {}), **values}}
    with pytest.raises(ConfigError, match=words):
        parse_config(released, vlm)


@pytest.mark.parametrize(
    "name,content,words",
    [
        ("config.json", b"\xff\xfe", "not valid JSON"),
        ("model.safetensors.index.json", b"{", "not valid JSON"),
        ("model.safetensors.index.json", b"{}", "weight_map"),
    ],
)
def test_damaged_json_is_named(folder, name, content, words):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}.*{words}"):
        load_model(folder)


def test_a_dtype_that_weights_cannot_have_is_refused(folder):
    change_config(folder, model_dtype="float64")
    with pytest.raises(ConfigError, match="float64"):
        read_config(folder)
    change_config(folder, model_dtype="torch.bfloat16")
    assert read_config(folder).dtype == "bfloat16"


def test_unknown_vlm_and_repository(folder, monkeypatch):
    change_config(folder, vlm_name_or_path="nobody/nothing")
    with pytest.raises(ConfigError, match="nobody/nothing"):
        AlpamayoR1.from_pretrained(folder)
    with pytest.raises(HubError, match="hf download nobody/nothing"):
        AlpamayoR1.from_pretrained("nobody/nothing", local_files_only=True, cache_dir=folder)
    with pytest.raises(HubError, match="neither a folder"):
        AlpamayoR1.from_pretrained("/no/such/folder")


def test_a_network_that_breaks_off_is_said(monkeypatch):
    def breaks_off(*_, **options):
        raise HTTPError("read timeout")

    monkeypatch.setattr("huggingface_hub.snapshot_download", breaks_off)
    with pytest.raises(HubError, match=r"read timeout.*pass the folder"):
        AlpamayoR1.from_pretrained("a/b")


@pytest.mark.parametrize("name", ["0", "smal", "./ckpt", "../x/y", "~/x", "a/b/c", ""])
def test_a_name_that_is_no_repository_is_never_asked_for(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **options: pytest.fail("the Hub was asked"))
    with pytest.raises(HubError, match="neither a folder"):
        fetch(name)


def test_hub_arguments_reach_the_hub(monkeypatch):
    seen = {}

    def snapshot_download(repo, **options):
        seen.update(options, repo=repo)
        return str(TINY)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    AlpamayoR1.from_pretrained("a/b", revision="r", cache_dir="c", token="t", local_files_only=True)
    assert {k: seen[k] for k in ("repo", "revision", "cache_dir", "token", "local_files_only")} == {
        "repo": "a/b",
        "revision": "r",
        "cache_dir": "c",
        "token": "t",
        "local_files_only": True,
    }


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_save_pretrained_round_trip(tmp_path):
    """Every byte of config.json, shards, index and the Qwen3-VL folder."""
    AlpamayoR1.from_pretrained(TINY).save_pretrained(tmp_path / "saved")
    theirs = {name: content for name, content in files_of(TINY).items() if not name.startswith("tokenizer_reference")}
    assert files_of(tmp_path / "saved") == theirs


def test_save_pretrained_of_a_mixed_checkpoint(tmp_path):
    """The release's layout: bf16 weights, fp32 scalars. Loaded in bf16 and saved, it is the same to the byte."""
    model = AlpamayoR1.from_pretrained(TINY, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "mixed")
    saved = inspect(tmp_path / "mixed")
    assert saved["action_space.accel_std"].dtype == torch.float32 and saved["action_out_proj.weight"].dtype == torch.bfloat16
    assert json.loads((tmp_path / "mixed" / "config.json").read_text())["dtype"] == "bfloat16"
    index = json.loads((tmp_path / "mixed" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] < 4240784
    AlpamayoR1.from_pretrained(tmp_path / "mixed").save_pretrained(tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(tmp_path / "mixed")


def test_saving_keeps_what_changed(tmp_path):
    model = AlpamayoR1.from_pretrained(TINY)
    model.model.action_out_proj.bias += 1
    model.save_pretrained(tmp_path / "saved")
    again = AlpamayoR1.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.model.action_out_proj.bias, model.model.action_out_proj.bias)
    with pytest.raises(CheckpointError, match="loaded from"):
        again.save_pretrained(tmp_path / "saved")


def test_a_model_saved_over_a_sharded_one_is_what_is_loaded(tmp_path):
    """The other's index must not stay: it would be read instead."""
    single, model = tmp_path / "single", AlpamayoR1.from_pretrained(TINY)
    model.save_pretrained(single)
    tensors = {name: tensor for shard in single.glob("*.safetensors") for name, tensor in load_file(shard).items()}
    for file in (*single.glob("*.safetensors"), single / "model.safetensors.index.json"):
        file.unlink()
    tensors["action_out_proj.bias"] += 1
    save_file(tensors, single / "model.safetensors", metadata={"format": "pt"})
    model.save_pretrained(tmp_path / "target")
    AlpamayoR1.from_pretrained(single).save_pretrained(tmp_path / "target")
    again = AlpamayoR1.from_pretrained(tmp_path / "target")
    assert torch.equal(again.model.action_out_proj.bias, model.model.action_out_proj.bias + 1)


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="devise"):
        load("small", devise="cuda")


def test_a_tensor_larger_than_a_shard_has_a_file_of_its_own():
    tensors = {name: torch.zeros(n) for name, n in (("a", 10), ("b", 10), ("large", 100), ("c", 10), ("huge", 900))}
    files = split(tensors, shard_bytes=80)
    assert list(files) == list(tensors) and [int(file[6:11]) for file in files.values()] == [1, 1, 2, 3, 4]
    assert set(split({"huge": torch.zeros(900)}, 80).values()) == {"model-00001-of-00001.safetensors"}, "no empty file before it"


def test_save_checkpoint_splits_into_shards(tmp_path, tiny):
    """What training writes reads back equal, in files of at most the size asked (or one tensor)."""
    model, _ = tiny
    save_checkpoint(tmp_path, model, read_json(TINY / "config.json"), shard_bytes=10**6, vlm_files=TINY / "vlm")
    shards = list(tmp_path.glob("*.safetensors"))
    assert len(shards) > 3
    index = "model.safetensors.index.json"
    assert read_json(tmp_path / index)["metadata"] == read_json(TINY / index)["metadata"]
    again, _ = load_checkpoint(tmp_path)
    wanted = model.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in again.state_dict().items())


def test_weights_lie_on_their_own():
    """A mapped file would keep the checkpoint open."""
    tensors = load_model(TINY).state_dict().values()
    assert sum(t.untyped_storage().nbytes() for t in tensors) == sum(t.nbytes for t in tensors)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_straight_to_the_gpu(monkeypatch):
    """Through a small pinned buffer, in pieces, without a tensor of the model on the CPU."""
    monkeypatch.setattr("alpamayo_r1.core.checkpoint.CHUNK", 1000)
    ours, theirs = load_model(TINY, device="cuda").state_dict(), load_model(TINY).state_dict()
    assert all(t.is_cuda and torch.equal(t.cpu(), theirs[name]) for name, t in ours.items())


def test_reading_through_a_buffer_in_pieces(monkeypatch):
    """The GPU's way of reading, here with both ends on the CPU."""
    from alpamayo_r1.core.checkpoint import read_tensor

    monkeypatch.setattr("alpamayo_r1.core.checkpoint.CHUNK", 1000)
    theirs = load_model(TINY).state_dict()
    for name, info in inspect(TINY).items():
        with info.file.open("rb", buffering=0) as stream:
            ours = read_tensor(stream, info, torch.device("cpu"), torch.empty(1000, dtype=torch.uint8))
        assert torch.equal(ours, theirs[name])


@pytest.mark.slow
def test_loading_imports_neither_torchdynamo_nor_sympy():
    """Two seconds of every verb's start, that shapes without memory cost where PyTorch fills them with random numbers."""
    heavy = "[name for name in ('torch._dynamo', 'mpmath') if name in sys.modules]"
    code = f"import sys, alpamayo_r1; alpamayo_r1.load({str(TINY)!r}, device='cpu'); print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
