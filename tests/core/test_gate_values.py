"""Arguments of other types, and out of range: every public function names them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from alpamayo_r1 import helper, metrics, open_source
from alpamayo_r1.core.gate.values import check_flag, check_real, check_tensors, check_texts, check_whole, need_keys, path_of
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.evaluate import EvalConfig, compare, summarise
from alpamayo_r1.planner import load, pick_device
from alpamayo_r1.world.clips import write_world

PATHS, TRUTH = torch.zeros(2, 8, 3), torch.zeros(8, 3)


@pytest.mark.parametrize("flag", [True, False, 1, 0])
def test_flags_are_taken(flag):
    check_flag("fast", flag)


@pytest.mark.parametrize("flag", ["no", 2, None, [], torch.zeros(3)])
def test_what_is_no_flag_is_named(flag):
    with pytest.raises(TypeError, match=r"fast is .* expected True or False"):
        check_flag("fast", flag)


@pytest.mark.parametrize("given,kind", [(None, TypeError), (b"x", TypeError), (5, TypeError), ("a\0b", ValueError), ("\ud800", ValueError)])
def test_what_no_file_can_be_called_is_named(given, kind):
    with pytest.raises(kind, match="out is"):
        path_of("out", given)
    for function in (summarise, lambda place: compare(place, place), open_source):
        with pytest.raises(kind):
            function(given)


def test_paths_stay_what_they_are(tmp_path: Path):
    assert path_of("out", str(tmp_path)) == path_of("out", tmp_path) == tmp_path


@pytest.mark.parametrize(
    "call,words",
    [
        (lambda: check_whole("frames", True, 1, 9), "frames is True, expected a whole number"),
        (lambda: check_whole("frames", 2**70, 1, 9), "frames is .* expected a whole number from 1 to 9"),
        (lambda: check_real("step", float("nan"), 0, 9), "step is nan, expected a number from 0 to 9"),
        (lambda: check_real("step", "1", 0, 9), "step is '1', expected a number"),
        (lambda: check_texts("cameras", "front", "CAMERAS"), "cameras is 'front', expected a list of texts"),
        (lambda: check_texts("cameras", [1], "CAMERAS"), "cameras is .*1.*, expected a list of texts"),
        (lambda: check_tensors(pred=([0.0], (3,))), "pred is .* expected a torch.Tensor of floating-point numbers"),
        (lambda: check_tensors(pred=(torch.zeros(3, dtype=torch.long), (3,))), "pred is a Tensor torch.int64"),
        (lambda: check_tensors(pred=(torch.zeros(4, 2), (-1, 3))), r"pred has shape \(4, 2\), expected \[..., any, 3\]"),
        (lambda: need_keys("result", 5, ("a",), "a record"), "result is 5, expected a record"),
        (lambda: need_keys("result", {}, ("a", "b"), "a record"), "result lacks a, b: give a record"),
        (lambda: pick_device(None), "device is None"),  # type: ignore[arg-type]
        (lambda: load(fast="no"), "fast is 'no'"),  # type: ignore[arg-type]
        (lambda: load(word_table=[]), "word_table is"),  # type: ignore[arg-type]
        (lambda: PlanOptions(temperature=2**70), "temperature is .* at most 1e"),
        (lambda: PlanOptions(flow_temperature=2**70), "flow_temperature is .* at most 1e"),
        (lambda: EvalConfig(threads="x"), "threads is 'x'"),  # type: ignore[arg-type]
        (lambda: EvalConfig(plan=None), "plan is None, expected PlanOptions"),  # type: ignore[arg-type]
        (lambda: EvalConfig(t0=None), "t0 is None"),  # type: ignore[arg-type]
        (lambda: helper.to_device({}, 2**70), "device is"),  # type: ignore[arg-type]
        (lambda: helper.to_device({}, "cpu", "half"), "dtype is 'half'"),  # type: ignore[arg-type]
        (lambda: write_world(0, 10**9, "out"), "clips is 1000000000, expected a whole number from 1 to 100,000"),
        (lambda: write_world(2**70, 1, "out"), "seed is"),
        (lambda: write_world(0, 1, "out", width=10**6), "width is"),
        (lambda: metrics.min_ade(PATHS, [0]), "truth is"),  # type: ignore[arg-type]
        (lambda: metrics.min_ade(PATHS, TRUTH[:5]), r"truth has shape \(5, 3\), expected \[..., 8, 3\]"),
        (lambda: metrics.min_ade(PATHS, TRUTH[:1]), r"truth has shape \(1, 3\), expected \[..., 8, 3\]"),
        (lambda: metrics.min_ade(PATHS[:0], TRUTH), "at least one sample"),
        (lambda: metrics.comfort(PATHS[0, :2], torch.eye(3).expand(2, 3, 3)), "at least 4 steps"),
        (lambda: metrics.miss(PATHS, TRUTH, float("nan")), "threshold is nan"),
    ],
)
def test_what_a_function_does_not_take_is_named(call, words):
    with pytest.raises((TypeError, ValueError, KeyError), match=words):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda source, clip: source.clip([]),
        lambda source, clip: source.find(5),
        lambda source, clip: clip.sample(cameras=5),
        lambda source, clip: clip.sample(cameras="camera_front_wide_120fov"),
        lambda source, clip: clip.sample(frames=1.5),
        lambda source, clip: clip.sample(frames=10**9),
        lambda source, clip: clip.sample(need_future="no"),
        lambda source, clip: clip.valid_t0(frames=float("nan")),
        lambda source, clip: open_source("sample", maybe_stream="no"),  # type: ignore[arg-type]
    ],
)
def test_what_a_source_does_not_take_is_named(call):
    with open_source("sample") as source, source.clip(source.clip_ids[0]) as clip, pytest.raises(Exception, match="expected") as caught:
        call(source, clip)
    assert isinstance(caught.value, TypeError | ValueError) or type(caught.value).__module__.startswith("alpamayo_r1.")
