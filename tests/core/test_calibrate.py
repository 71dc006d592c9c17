"""GPTQ: codes chosen for what weights are multiplied by, stored as any others."""

import pytest
import torch

from alpamayo_r1 import load, testing
from alpamayo_r1.core.calibrate import Factor, calibrated, compensated, passes, source_of
from alpamayo_r1.core.checkpoint import load_model
from alpamayo_r1.core.hub import SMALL
from alpamayo_r1.core.precision import GROUP, PRECISIONS, Precision
from alpamayo_r1.core.prompt import build_prompt
from alpamayo_r1.core.quantise import quantise_checkpoint
from alpamayo_r1.core.quantised import Scheme, quantise
from alpamayo_r1.data.source import open_source


def inputs(rows: int, seed: int) -> torch.Tensor:
    """Rows [rows, 256] of 40 numbers each, mixed and with a little noise, as layers' inputs are."""
    mixing = torch.randn(40, 256, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 40, generator=generator) @ mixing + 0.3 * torch.randn(rows, 256, generator=generator)


@pytest.mark.parametrize("scheme", [Scheme("int4", 64), Scheme("int8", 128), Scheme("e4m3")], ids=str)
def test_products_with_inputs_of_the_same_kind_err_less(scheme):
    weight = torch.randn(48, 256, generator=torch.Generator().manual_seed(0))
    seen, unseen = inputs(2000, 1), inputs(500, 2)
    exact = unseen @ weight.T

    def error(made) -> float:
        return ((unseen @ made.dequantised(torch.float32).T - exact).norm() / exact.norm()).item()

    made = compensated(weight, scheme, Factor.of(seen.T @ seen))
    assert error(made) < 0.6 * error(quantise(weight, scheme))
    assert made.scheme == scheme and made.codes.dtype == quantise(weight, scheme).codes.dtype
    some = compensated(weight[8:20], scheme, Factor.of(seen.T @ seen))
    assert torch.equal(some.dequantised(torch.float32), made.dequantised(torch.float32)[8:20]), "rows do not see each other"


def test_inputs_that_say_little_or_nothing_leave_what_is_nearest():
    weight, scheme = torch.randn(8, 128), Scheme("int4", 64)
    nearest = quantise(weight, scheme, torch.ones(128)).dequantised(torch.float32)
    alike = compensated(weight, scheme, Factor.of(torch.eye(128)))
    assert torch.equal(alike.dequantised(torch.float32), nearest)
    assert compensated(weight, scheme, Factor.of(torch.zeros(128, 128))).dequantised(torch.float32).isfinite().all()
    with pytest.raises(ValueError, match="is not finite"):
        Factor.of(torch.full((128, 128), torch.nan))


def test_layers_are_looked_at_some_at_a_time():
    leaves = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj")
    widths = {f"expert.layers.{i}.{leaf}.weight": 100 for i in (2, 10) for leaf in leaves}
    groups = list(passes(widths, room=4 * 100**2 * 2))
    assert [len({source_of(name) for name in group}) for group in groups] == [2, 2, 2]
    assert sorted(name for group in groups for name in group) == sorted(widths)
    assert "layers.2." in groups[0][0] and "layers.10." in groups[-1][-1]
    assert [len(group) for group in passes(widths, room=0)] == [2, 1, 2] * 2, "one source at least"


@pytest.mark.slow
def test_a_calibrated_checkpoint_is_stored_and_read_as_any_other(tmp_path):
    checkpoint = testing.tiny_checkpoint(tmp_path / "tiny")
    planner, ran = load(checkpoint, device="cpu", fast=False), []

    def replay() -> None:
        ran.append(planner.plan(testing.random_observation(0, 64, 96), seed=0, max_tokens=4, reasoning="Go"))

    made = calibrated(planner.model, PRECISIONS["w4"], replay, room=1e9)
    assert len(ran) == 1
    again = calibrated(planner.model, PRECISIONS["w4"], replay, room=100_000)
    assert len(ran) > 3 and all(torch.equal(made[name].codes, again[name].codes) for name in made)
    schemes = quantise_checkpoint(checkpoint, tmp_path / "out", PRECISIONS["w4"], made=made)
    assert made.keys() == schemes.keys()
    read, nearest = (
        load_model(tmp_path / "out", dtype=torch.float32),
        load_model(checkpoint, dtype=torch.float32, precision=PRECISIONS["w4"]),
    )
    name = next(name for name in made if "language" in name)
    weights = [model.get_submodule(name.removesuffix(".weight")).weight for model in (read, nearest)]
    assert torch.equal(weights[0], made[name].dequantised(torch.float32)) and not torch.equal(*weights)


@pytest.mark.slow
def test_the_small_model_errs_less_on_clips_that_it_was_not_calibrated_on():
    """Keys behind a layer in int4, of a clip that the calibration did not see."""
    planner = load(SMALL, device="cpu", fast=False)
    model = planner.model
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if ".layers.0." in name}
    with open_source("sample") as source:
        seen = []
        for clip in source.clip_ids[:2]:
            with source.clip(clip) as read:
                seen.append(build_prompt(read.sample(5_100_000, need_future=False).observation, planner.vocabulary, model.config))
    schemes = Precision("a layer", {"language": "int4"}, GROUP).schemes(shapes)
    stored = Precision("a layer", {"language": "int4"}, GROUP, stored=schemes)

    def keys() -> torch.Tensor:
        with torch.inference_mode():
            return model.prefill(seen[-1])[1][1][0]

    exact, weights = keys(), {name: model.get_parameter(name).detach().clone() for name in schemes}
    made = calibrated(model, stored, lambda: model.prefill(seen[0]) and None, room=4e9)
    errors = []
    for few in (made, {name: quantise(weight, schemes[name]) for name, weight in weights.items()}):
        with torch.no_grad():
            for name, one in few.items():
                model.get_parameter(name).copy_(one.dequantised(torch.float32))
        errors.append(((keys() - exact).norm() / exact.norm()).item())
    assert made.keys() == schemes.keys() and errors[0] < 0.7 * errors[1]
