"""Checkpoints of few bits: written, read to the bit, understood by the library whose layout it is, and others' read too."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from alpamayo_r1 import load, testing
from alpamayo_r1.core.checkpoint import CheckpointError, load_model, precision_of, resave, save_checkpoint
from alpamayo_r1.core.packed import packed, quantization_config
from alpamayo_r1.core.precision import PRECISIONS
from alpamayo_r1.core.quantise import quantise_checkpoint
from alpamayo_r1.core.quantised import QuantisedLinear, Scheme, quantise

pytestmark = pytest.mark.slow

SCHEMES = [Scheme("e4m3"), Scheme("int8", 128), Scheme("int8", 16), Scheme("int4", 128), Scheme("int4", 64), Scheme("int4", 32)]
NEEDS_LIBRARY = pytest.mark.skipif(not find_spec("compressed_tensors"), reason="needs compressed-tensors: pip install 'alpamayo-r1[test]'")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return testing.tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(
        one.dtype == theirs[name].dtype and torch.equal(one.float(), theirs[name].float()) for name, one in mine.items()
    )


@pytest.mark.parametrize("name", ["fp8", "w8", "w4", "tight"])
def test_a_saved_checkpoint_is_what_loading_makes_to_the_bit(checkpoint, tmp_path, name, monkeypatch):
    monkeypatch.setattr("alpamayo_r1.core.quantise.SHARD_BYTES", 200_000)
    monkeypatch.setattr("alpamayo_r1.core.checkpoint.PIECE", 1000)
    schemes = quantise_checkpoint(checkpoint, tmp_path / "out", PRECISIONS[name])
    found = precision_of(tmp_path / "out")
    assert found is not None and found.name == name and found.stored == schemes
    assert precision_of(checkpoint) is None
    made, read = load_model(checkpoint, dtype=torch.float32, precision=PRECISIONS[name]), load_model(tmp_path / "out", dtype=torch.float32)
    assert any(isinstance(module, QuantisedLinear) for module in read.modules())
    assert same(made, read)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    planner = load(tmp_path / "out", device="cpu")
    assert planner.plan(testing.random_observation(0, 64, 96), seed=0, max_tokens=4, reasoning="Go").xyz.isfinite().all()
    with pytest.raises(CheckpointError, match="is of few bits already"):
        quantise_checkpoint(tmp_path / "out", tmp_path / "again", PRECISIONS[name])
    with pytest.raises(CheckpointError, match="is not empty"):
        quantise_checkpoint(checkpoint, tmp_path / "out", PRECISIONS[name])


def test_a_model_of_few_bits_is_not_saved_as_another(checkpoint, tmp_path):
    model = load_model(checkpoint, precision=PRECISIONS["w8"])
    for write in (lambda: resave(checkpoint, tmp_path / "a", model), lambda: save_checkpoint(tmp_path / "b", model, "{}")):
        with pytest.raises(CheckpointError, match="`alpamayo-r1 quantize` writes them"):
            write()


def test_a_checkpoint_of_few_bits_has_one_precision(checkpoint, tmp_path):
    quantise_checkpoint(checkpoint, tmp_path / "out", PRECISIONS["w8"])
    load(tmp_path / "out", device="cpu", precision="w8")
    with pytest.raises(ValueError, match="is stored in w8, precision is 'w4'"):
        load(tmp_path / "out", device="cpu", precision="w4")


@NEEDS_LIBRARY
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_library_of_this_layout_reads_what_we_write(scheme):
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    weight = quantise(torch.randn(20, 256, generator=torch.Generator().manual_seed(0)), scheme)
    config = QuantizationConfig.model_validate(quantization_config({"a.0.b.weight": scheme}, ["c.weight"]))
    read = BaseCompressor.get_value_from_registry(config.format).decompress(packed(weight), config.config_groups["group_0"])
    assert torch.equal(read["weight"].float(), weight.dequantised(torch.bfloat16).float())
    assert config.config_groups["group_0"].targets == [r"re:^a\.\d+\.b$"] and config.ignore == ["re:^c$"]


@NEEDS_LIBRARY
def test_the_library_reads_a_whole_checkpoint(checkpoint, tmp_path):
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig
    from compressed_tensors.utils.match import match_name

    quantise_checkpoint(checkpoint, tmp_path / "out", PRECISIONS["tight"])
    config = QuantizationConfig.model_validate(json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"])
    tensors = {name: tensor for file in (tmp_path / "out").glob("*.safetensors") for name, tensor in load_file(file).items()}
    ours = load_model(tmp_path / "out", dtype=torch.bfloat16)
    modules = {name: module for name, module in ours.named_modules() if isinstance(module, QuantisedLinear)}
    for name, module in modules.items():
        (scheme,) = (group for group in config.config_groups.values() if any(match_name(name, target) for target in group.targets))
        parts = {key.rpartition(".")[2]: tensor for key, tensor in tensors.items() if key.rpartition(".")[0] == name and "bias" not in key}
        read = BaseCompressor.get_value_from_registry(config.format).decompress(parts, scheme)
        assert torch.equal(read["weight"].float(), module.weight.float()), name
        assert not any(match_name(name, target) for target in config.ignore)
    assert len(modules) > 10


def rewritten(checkpoint: Path, folder: Path, change) -> Path:
    """A copy whose tensors went through a function, in one file."""
    tensors = {name: tensor for file in checkpoint.glob("*.safetensors") for name, tensor in load_file(file).items()}
    folder.mkdir()
    for path in checkpoint.iterdir():
        if path.is_file() and path.suffix == ".json" and "index" not in path.name:
            (folder / path.name).write_bytes(path.read_bytes())
        elif path.is_dir():
            (folder / path.name).mkdir()
            for file in path.iterdir():
                (folder / path.name / file.name).write_bytes(file.read_bytes())
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_an_export_of_modelopt_in_fp8_is_read(checkpoint, tmp_path):
    def modelopt(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = dict(tensors)
        for name, tensor in tensors.items():
            if "language_model.layers" in name and name.endswith("proj.weight"):
                scale = tensor.float().abs().max() / 448
                found[name] = (tensor.float() / scale).to(torch.float8_e4m3fn)
                found[f"{name}_scale"], found[name.replace("weight", "input_scale")] = scale, torch.tensor(0.1)
        found["vlm.model.language_model.layers.0.self_attn.k_proj.k_scale"] = torch.tensor(1.0)
        return found

    model = load_model(rewritten(checkpoint, tmp_path / "out", modelopt), dtype=torch.float32)
    whole = load_model(checkpoint, dtype=torch.float32)
    for name in ("self_attn.q_proj", "mlp.down_proj"):
        got, want = (one.language.layers[0].get_submodule(name) for one in (model, whole))
        assert isinstance(got, QuantisedLinear) and got.scheme == Scheme("e4m3")
        assert 0.01 < (got.weight - want.weight).norm() / want.weight.norm() < 0.05


def test_weights_in_groups_of_a_whole_row_are_read(checkpoint, tmp_path):
    name = "vlm.model.language_model.layers.0.mlp.down_proj"

    def by_rows(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weight = tensors.pop(f"{name}.weight")
        made = quantise(weight, Scheme("int8", weight.shape[1]))
        return tensors | {f"{name}.{part}": tensor for part, tensor in packed(made).items()} | {"want": made.dequantised(torch.float32)}

    want = {}

    def change(tensors):
        found = by_rows(tensors)
        want["it"] = found.pop("want")
        return found

    model = load_model(rewritten(checkpoint, tmp_path / "out", change), dtype=torch.float32)
    assert torch.equal(model.get_submodule(name).weight, want["it"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {k: v for k, v in t.items() if not k.endswith("weight_scale")}, "can't be read: .* needs as many scales"),
        (lambda t: {k: v[:, :1] if k.endswith("weight_packed") else v for k, v in t.items()}, "words per row of"),
        (lambda t: t | {"vlm.lm_head.more": torch.zeros(2, dtype=torch.int32)}, r"lm_head.more \(I32\), which belong to no weight"),
        (
            lambda t: {k: v.contiguous() for k, v in t.items() if "down_proj.weight_packed" not in k},
            "down_proj.weight_shape.* belong to no weight of few bits",
        ),
    ],
)
def test_damaged_weights_of_few_bits_are_named(checkpoint, tmp_path, change, message):
    quantise_checkpoint(checkpoint, tmp_path / "few", PRECISIONS["w8"])

    def contiguous(tensors):
        return {name: tensor.contiguous() for name, tensor in change(tensors).items()}

    with pytest.raises(CheckpointError, match=message):
        load_model(rewritten(tmp_path / "few", tmp_path / "out", contiguous))
