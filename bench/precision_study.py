"""What weights, activations and keys of few bits cost: the small model on unseen scenes, and products of layers like the 10B's.

    python bench/precision_study.py [--parts layers,scenes] [--scenes 256] [--first 820000] [--only NAME,...] [--seconds 80]

scenes: paired with fp32 on the same draws: ADE of one sample, decisions, malformed words, steering; differences with 95 % intervals;
after so many seconds no more scenes are begun. Calibrated: GPTQ on 64 other scenes.
layers: random weights and inputs, normal and with outliers as trained models have them; relative error of x W^T. On a GPU if there is one.
The last line is JSON.
"""

from __future__ import annotations

from _head import CUDA, DEVICE

import argparse
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import nn

from alpamayo_r1.core.calibrate import calibrated
from alpamayo_r1.core.checkpoint import load_checkpoint, load_model
from alpamayo_r1.core.hub import SMALL
from alpamayo_r1.core.precision import PARTS, PRECISIONS
from alpamayo_r1.core.quantised import Kind, Scheme, quantise, storable
from alpamayo_r1.core.transformer import KV
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.engine.ops.eight import quantise_rows
from alpamayo_r1.train.material import make_layout
from alpamayo_r1.train.validate import judge, read_scenes, show_scenes
from alpamayo_r1.world.families import T0_STEP

BATCH = 128 if CUDA else 16
BEGAN = time.perf_counter()
CALIBRATION = range(790_000, 790_064)

Change = Callable[[VLA], None]
"""What is done to the model in fp32."""


def weights(most: int = 128, **kinds: Kind) -> Change:
    """Parts of the model in a kind, in groups of at most so many columns."""

    def change(model: VLA) -> None:
        for name, weight in list(model.named_parameters()):
            part = next((part for part in kinds if PARTS[part].fullmatch(name)), None)
            scheme = None if part is None else Scheme.fitting(kinds[part], weight.shape[1], most)
            if scheme is not None:
                made = quantise(weight, scheme).dequantised(torch.float32)  # as numbers again: faster than a layer of few bits
                model.get_parameter(name).copy_(made)

    return change


def only(leaf: str, kind: Kind, most: int = 64) -> Change:
    """One kind of the language model's products in few bits."""

    def change(model: VLA) -> None:
        for name, weight in list(model.named_parameters()):
            if PARTS["language"].fullmatch(name) and f".{leaf}." in name:
                scheme = Scheme.fitting(kind, weight.shape[1], most)
                assert scheme is not None
                model.get_parameter(name).copy_(quantise(weight, scheme).dequantised(torch.float32))

    return change


def nearest_int4(most: int) -> Change:
    """The language model in int4 without zero points and clips: the nearest of -7..7."""

    def change(model: VLA) -> None:
        for name, weight in list(model.named_parameters()):
            if PARTS["language"].fullmatch(name):
                grouped = weight.unflatten(1, (-1, most))
                scale = storable(grouped.abs().amax(-1, keepdim=True) / 7)
                model.get_parameter(name).copy_(((grouped / scale).round().clamp(-7, 7) * scale).flatten(1))

    return change


def inputs_in_8_bits(decoder: str, least: int = 64) -> Change:
    """Products of at least so many rows read e4m3, a scale per row."""

    def hook(module: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        x = given[0]
        if x.shape[-2] < least:
            return given
        return (quantise_rows(x.flatten(0, -2)).numbers().view(x.shape),)

    def change(model: VLA) -> None:
        for layer in cast(nn.Module, getattr(model, decoder)).modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_pre_hook(hook)

    return change


def keys_in_8_bits(keys: bool, values: bool) -> Change:
    """Cached keys and values of the language model as int8, a scale per token and head."""

    def fake(x: torch.Tensor) -> torch.Tensor:
        scale = x.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127
        return (x / scale).round() * scale

    def hook(module: nn.Module, given: Any, out: tuple[torch.Tensor, KV]) -> tuple[torch.Tensor, KV]:
        attended, (k, v) = out
        return attended, (fake(k) if keys else k, fake(v) if values else v)

    def change(model: VLA) -> None:
        for layer in model.language.layers:
            layer.self_attn.register_forward_hook(hook)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]

    return change


def named(precision: str) -> Change:
    """A precision as `load` makes it."""

    def change(model: VLA) -> None:
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        for name, scheme in PRECISIONS[precision].schemes(shapes).items():
            made = quantise(model.get_parameter(name), scheme).dequantised(torch.float32)
            model.get_parameter(name).copy_(made)

    return change


def by_gptq(precision: str) -> Change:
    """A precision as `alpamayo-r1 quantize --calibrate` makes it."""

    def change(model: VLA) -> None:
        vocabulary = load_checkpoint(SMALL)[1]
        layout = make_layout(model.config, vocabulary)

        def replay() -> None:
            for start in range(0, len(CALIBRATION), BATCH):
                shown = show_scenes(model, layout, CALIBRATION[start : start + BATCH], T0_STEP)
                judge(model, vocabulary, layout, read_scenes(model, layout, shown), 1)

        for name, made in calibrated(model, PRECISIONS[precision], replay, 4e9).items():
            model.get_parameter(name).copy_(made.dequantised(torch.float32))

    return change


def both(*changes: Change) -> Change:
    """Several changes."""

    def change(model: VLA) -> None:
        for one in changes:
            one(model)

    return change


STUDIED: Mapping[str, Change] = {
    "fp8, weights alone": named("fp8"),
    "fp8, language inputs in 8 bits": both(named("fp8"), inputs_in_8_bits("language")),
    "fp8, expert inputs in 8 bits too": both(named("fp8"), inputs_in_8_bits("language"), inputs_in_8_bits("expert")),
    "w8": named("w8"),
    "w4": named("w4"),
    "w4, calibrated": by_gptq("w4"),
    "tight": named("tight"),
    "tight, calibrated": by_gptq("tight"),
    "tight, keys and values in 8 bits": both(named("tight"), keys_in_8_bits(True, True)),
    "language int4 g128": weights(128, language="int4"),
    "language int4 g128, nearest": nearest_int4(128),
    "language int4 g32": weights(32, language="int4"),
    "head int4 g64": weights(64, head="int4"),
    "expert int4 g64": weights(64, expert="int4"),
    "vision int8": weights(128, vision="int8"),
    "vision int4 g64": weights(64, vision="int4"),
    "vision e4m3": weights(128, vision="e4m3"),
    "keys and values in 8 bits": keys_in_8_bits(True, True),
    "down_proj int4 alone": only("down_proj", "int4"),
    "q, k, v int4 alone": both(only("q_proj", "int4"), only("k_proj", "int4"), only("v_proj", "int4")),
}


def paired(rows: list[dict[str, Any]], exact: list[dict[str, Any]], key: str) -> tuple[float, float, float]:
    """Mean of a figure, its mean difference from fp32, and half of the difference's 95 % interval."""
    mine, theirs = (torch.tensor([float(row[key]) for row in some]) for some in (rows, exact))
    difference = mine - theirs
    return mine.mean().item(), difference.mean().item(), 1.96 * difference.std().item() / len(rows) ** 0.5


@torch.inference_mode()
def scenes(count: int, first: int, names: list[str], seconds: float) -> dict[str, Any]:
    """Every change on the same scenes and draws."""
    model, vocabulary = load_checkpoint(SMALL, dtype=torch.float32, device=DEVICE)
    models = {"fp32": model}
    for name in names:
        models[name] = load_model(SMALL, dtype=torch.float32, device=DEVICE)
        STUDIED[name](models[name])
    layout = make_layout(model.config, vocabulary)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in models}
    table: dict[str, Any] = {}
    print(f"models made in {time.perf_counter() - BEGAN:.0f} s", flush=True)
    for start in range(first, first + count, BATCH):
        if time.perf_counter() - BEGAN > seconds:
            break
        shown = show_scenes(model, layout, range(start, min(start + BATCH, first + count)), T0_STEP)
        for name, one in models.items():
            rows[name] += judge(one, vocabulary, layout, read_scenes(one, layout, shown), 1)
        table = show(rows, time.perf_counter() - BEGAN)
    return table


def show(rows: dict[str, list[dict[str, Any]]], seconds: float) -> dict[str, Any]:
    """Prints the table so far."""
    exact = rows["fp32"]
    print(f"\n{len(exact)} scenes, {seconds:.0f} s; ADE (difference from fp32 with 95 % interval), decisions, malformed, steered")
    found = {}
    for name, some in rows.items():
        ade, far, half = paired(some, exact, "ade")
        share = {key: paired(some, exact, key)[:2] for key in ("decision", "malformed", "steered")}
        changes = ", ".join(f"{key} {100 * mean:.2f} % ({100 * diff:+.2f})" for key, (mean, diff) in share.items())
        print(f"  {name:34s} {ade:.4f} m ({100 * far / (ade - far):+.2f} % +- {100 * half / (ade - far):.2f}), {changes}", flush=True)
        found[name] = {"ade": ade, "difference": far, "half": half, **{key: list(pair) for key, pair in share.items()}}
    return found


def heavy(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    """Weights with tails as trained ones have: Student's t of 5 degrees of freedom."""
    normal = torch.randn(rows, columns, generator=generator)
    chi = torch.randn(5, rows, columns, generator=generator).square().sum(0)
    return 0.02 * normal / (chi / 5).sqrt()


def activations(rows: int, columns: int, outliers: int, size: float, generator: torch.Generator) -> torch.Tensor:
    """Normal inputs of which some columns are larger by a factor in all rows, and one row's number larger still ("massive")."""
    x = torch.randn(rows, columns, generator=generator)
    if outliers:
        x[:, torch.randperm(columns, generator=generator)[:outliers]] *= size
        x[0, int(torch.randint(columns, (1,), generator=generator))] = 20 * size
    return x


def layers() -> dict[str, Any]:
    """Relative errors of products, of all rows but the first, and of the first, which has the massive number."""
    generator = torch.Generator().manual_seed(0)
    kinds: dict[str, Scheme] = {
        "e4m3": Scheme("e4m3"),
        "int8 g128": Scheme("int8", 128),
        "int4 g128": Scheme("int4", 128),
        "int4 g64": Scheme("int4", 64),
    }
    found: dict[str, Any] = {}
    for label, tails in (("normal weights", False), ("heavy tails", True)):
        w = heavy(1024, 4096, generator) if tails else 0.02 * torch.randn(1024, 4096, generator=generator)
        for inputs, outliers, size in (("normal inputs", 0, 1.0), ("16 columns x 30", 16, 30.0), ("4 columns x 200", 4, 200.0)):
            x = activations(256, 4096, outliers, size, generator)
            exact = x.double() @ w.double().T
            line = {}
            for name, scheme in kinds.items():
                made = quantise(w, scheme).dequantised(torch.float32)
                line[name] = errors(x, made, exact)
                if name == "e4m3":
                    line["e4m3, inputs too"] = errors(quantise_rows(x).numbers(), made, exact)
                    whole = x.abs().max() / 448
                    line["e4m3, inputs too, one scale"] = errors((x / whole).to(torch.float8_e4m3fn).float() * whole, made, exact)
            found[f"{label}, {inputs}"] = line
            print(
                f"{label}, {inputs}: " + ", ".join(f"{name} {100 * a:.2f} % ({100 * b:.2f})" for name, (a, b) in line.items()), flush=True
            )
    return found


def errors(x: torch.Tensor, w: torch.Tensor, exact: torch.Tensor) -> tuple[float, float]:
    """Relative error of x w^T in all rows but the first, and in the first."""
    far = x.double() @ w.double().T - exact
    return (far[1:].norm() / exact[1:].norm()).item(), (far[0].norm() / exact[0].norm()).item()


def main() -> None:
    """The parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="layers,scenes")
    parser.add_argument("--scenes", type=int, default=256)
    parser.add_argument("--first", type=int, default=820_000)
    parser.add_argument("--only", default=",".join(STUDIED).replace(", ", "; "), help="names, separated by commas; their own commas as ;")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    how = parser.parse_args()
    found: dict[str, Any] = {}
    if "layers" in how.parts:
        found["layers"] = layers()
    if "scenes" in how.parts:
        found["scenes"] = scenes(how.scenes, how.first, [name.replace(";", ",") for name in how.only.split(",")], how.seconds)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
