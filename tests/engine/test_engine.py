"""The fast planner equals the specification in fp32 (on the CPU: torch twins, no graphs). checks/engine.py looks closer on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import cache
from importlib import resources
from itertools import count
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend

from alpamayo_r1 import bench, testing
from alpamayo_r1.core.checkpoint import build_meta, load_checkpoint
from alpamayo_r1.core.config import VisionConfig
from alpamayo_r1.core.images import to_patches
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.plan import DoesNotFit
from alpamayo_r1.core.request import prepare
from alpamayo_r1.core.vocab import whole_ids
from alpamayo_r1.engine import vendor
from alpamayo_r1.engine.arena import Arena, Capacity
from alpamayo_r1.engine.cost import decode_cost, flow_step_cost, prefill_cost, vision_cost
from alpamayo_r1.engine.engine import Engine
from alpamayo_r1.engine.graphs import Graphs
from alpamayo_r1.engine.ops import attention, launch
from alpamayo_r1.engine.pixels import patches, resize_to_patches
from alpamayo_r1.engine.weights import fuse_stack
from alpamayo_r1.planner import Planner
from alpamayo_r1.world.samples import sample_batch
from alpamayo_r1.world.simulate import simulate
from conftest import CASES, GOLDEN, golden, golden_observation

ROOT = Path(__file__).parents[2]
PIPELINES = ["forced_1", "forced_2_ragged", "forced_5_steps", "greedy_no_end", "stationary"]


NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_GPU)]


@pytest.fixture(scope="module", params=DEVICES)
def pair_anywhere(request):
    return recorded_pair(request.param)


@pytest.fixture(scope="module")
def pair():
    return recorded_pair("cpu")


@cache
def recorded_pair(device):
    """The recorded tiny model twice, for the specification and for an engine."""
    spec, vocabulary = load_checkpoint(GOLDEN / "checkpoint", dtype=torch.float32, device=device)
    mine, _ = load_checkpoint(GOLDEN / "checkpoint", dtype=torch.float32, device=device)
    return Planner(spec, vocabulary), Planner.of(mine, vocabulary, fast=True), vocabulary


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def equal(got, want) -> None:
    """Equal words; paths, of up to 140 m, within 1e-4 m: on a GPU within what fp32 can tell of random weights (checks/fp32.py)."""
    bound = 2.3e-4 if torch.cuda.is_available() else 1e-4
    assert got.tokens == want.tokens and got.ended == want.ended and got.reasoning == want.reasoning
    torch.testing.assert_close(got.xyz, want.xyz, atol=bound, rtol=0)
    torch.testing.assert_close(got.rot, want.rot, atol=bound, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", PIPELINES)
def test_recorded_cases(pair_anywhere, name):
    slow, fast, _ = pair_anywhere
    g, case = golden(f"pipeline_{name}"), CASES["cases"][f"pipeline_{name}"]
    options = {
        "samples": case["samples"],
        "noise": g["noise"],
        "reasoning": case["reasoning"],
        "top_k": case["top_k"],
        "max_tokens": case["max_generation_length"],
        "steps": case["inference_step"],
    }
    observation = golden_observation(g)
    equal(fast.plan(observation, **options), slow.plan(observation, **options))


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 2, 5])
@pytest.mark.parametrize("options", [{}, {"temperature": 1.3, "top_k": 5}, {"temperature": 0.0}], ids=["default", "hot", "greedy"])
def test_samples(pair_anywhere, samples, options):
    slow, fast, _ = pair_anywhere
    observation = testing.random_observation(samples, 64, 96)
    arguments = {"samples": samples, "seed": 3, "max_tokens": 6, "steps": 3, **options}
    equal(fast.plan(observation, **arguments), slow.plan(observation, **arguments))


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_the_trained_model_drives_alike(device):
    """The bundled model in fp32 on scenes of its world: the same words, and paths within 1e-4 m, sampled freely."""
    model, vocabulary = load_checkpoint(resources.files("alpamayo_r1") / "assets/small", dtype=torch.float32, device=device)
    fast, slow = Planner.of(model, vocabulary, fast=True), Planner(model, vocabulary)
    samples = sample_batch(simulate([850_004, 850_041], seconds=5.2), 51, width=224, height=126, supersample=1)
    requests = ((0, {"samples": 1}), (0, {"samples": 3, "temperature": 1.2, "steps": 3}), (1, {"samples": 2, "steps": 5}))
    for seed, (scene, options) in enumerate(requests):
        want = slow.plan(samples[scene].observation, seed=seed, **options)
        got = fast.plan(samples[scene].observation, seed=seed, **options)
        assert got.tokens == want.tokens
        torch.testing.assert_close(got.xyz, want.xyz, atol=1e-4, rtol=0)


def test_as_many_layers_as_deepstack_features(tiny):
    """The last layer then needs all its rows, to add features to them."""
    vocabulary, config = tiny[1], tiny[0].config
    layers = len(config.vision.deepstack)
    config = replace(config, text=replace(config.text, layers=layers), expert=replace(config.expert, layers=layers))
    model = testing.random_model(config, "cpu", torch.float32)
    observation, options = testing.random_observation(1, 64, 96), {"samples": 2, "seed": 1, "max_tokens": 4, "steps": 1}
    want = Planner(model, vocabulary).plan(observation, **options)
    got = Planner.of(model, vocabulary, fast=True).plan(observation, **options)
    assert got.tokens == want.tokens
    torch.testing.assert_close(got.actions, want.actions, atol=1e-5, rtol=0)


def test_scenes_at_once_equal_scenes_alone(pair):
    _, fast, _ = pair
    scenes = [testing.random_observation(1, 64, 96), testing.random_observation(2, 80, 80)]
    assert fast.plans([]) == []
    together = fast.plans(scenes, samples=2, seed=4, max_tokens=5, steps=3)
    for got, scene in zip(together, scenes, strict=True):
        equal(got, fast.plan(scene, samples=2, seed=4, max_tokens=5, steps=3))


def test_prompts_and_histories_go_together(pair):
    engine = pair[1].engine
    observation = testing.random_observation(1, 64, 64)
    prompts = [engine.prompt(observation), engine.prompt(observation)]
    how = prepare(PlanOptions(seed=0, max_tokens=2, steps=1), engine.config, engine.vocabulary)
    with pytest.raises(ValueError, match="2 prompts and 1 histories"):
        engine.plan_prompts(prompts, [observation.history], how)
    assert len(engine.plan_prompts(prompts, [observation.history] * 2, how)) == 2 and prompts == []


def test_nothing_stale(pair):
    """Plans of changing shapes in a row equal those of fresh engines, and a repeated plan is the same to the bit."""
    _, fast, vocabulary = pair
    shapes = [(2, 64, 96, 7), (1, 80, 80, 4), (3, 64, 64, 9), (2, 64, 96, 7)]
    for samples, height, width, tokens in shapes:
        observation = testing.random_observation(samples, height, width)
        arguments = {"samples": samples, "seed": tokens, "max_tokens": tokens, "steps": 2}
        got = fast.plan(observation, **arguments)
        fresh = Planner.of(fast.model, vocabulary, fast=True).plan(observation, **arguments)
        assert got.tokens == fresh.tokens and torch.equal(got.xyz, fresh.xyz)
        assert torch.equal(got.xyz, fast.plan(observation, **arguments).xyz)


def test_weights_are_fused_in_place(pair):
    engine = pair[1].engine
    layer, fused = engine.model.vla.language.layers[0], engine.model.text.layers[0]
    assert layer.self_attn.k_proj.weight.untyped_storage().data_ptr() == fused.qkv.untyped_storage().data_ptr()
    assert torch.equal(torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight]), fused.gate_up)
    again = fuse_stack(engine.model.vla.language).layers[0]
    assert again.qkv.data_ptr() == fused.qkv.data_ptr() and again.gate_up.shape == fused.gate_up.shape


def test_fused_weights_stay_the_module_s():
    """They can be written to and loaded into outside inference_mode, and the engine sees it."""
    model, vocabulary = load_checkpoint(GOLDEN / "checkpoint", dtype=torch.float32)
    engine = Engine(model, vocabulary)
    model.load_state_dict({name: 2 * tensor for name, tensor in model.state_dict().items()})
    projection = model.language.layers[0].self_attn.q_proj.weight
    assert torch.equal(engine.model.text.layers[0].qkv[: len(projection)], projection)


def test_graphs_never_share_a_pool_with_forgotten_ones(monkeypatch):
    """The allocator refuses a capture into a pool whose graphs have all been destroyed."""
    handles = count()
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(handles))
    graphs = Graphs(enabled=True, stream=None)
    before = graphs._pool
    graphs.clear()
    assert graphs._pool != before


def test_what_runs_twice_becomes_a_graph(monkeypatch):
    """The first run compiles and may be the only one; a graph that is forgotten begins anew."""
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: 0)
    did = []

    class Recorded:
        def __init__(self, function):
            self.function = function

        def replay(self):
            did.append("replayed")

    graphs = Graphs(enabled=True, stream=None, capacity=1)
    monkeypatch.setattr(graphs, "_capture", lambda function: did.append("captured") or Recorded(function))
    for key in "aaabba":
        graphs.run(key, lambda: did.append("run"))
    assert did == ["run", "captured", "replayed", "replayed", "run", "captured", "replayed", "captured", "replayed"]
    graphs.clear()
    graphs.run("a", lambda: did.append("run"))
    assert did[-1] == "run"


def test_buffers_for_this_plan_alone_where_both_do_not_fit(pair, monkeypatch):
    """Two samples, then two scenes: buffers for two by two would be too large, but nobody asked for those."""
    _, fast, vocabulary = pair

    def check(arena):
        if arena.capacity.rows > 2:
            raise DoesNotFit(str(arena.capacity))

    monkeypatch.setattr(Arena, "_check", check)
    mine = Planner.of(fast.model, vocabulary, fast=True)
    scene = testing.random_observation(1, 64, 64)
    arguments = {"seed": 1, "max_tokens": 2, "steps": 1}
    assert mine.plan(scene, samples=2, **arguments).xyz.shape == (2, 64, 3)
    assert len(mine.plans([scene, scene], samples=1, **arguments)) == 2
    with pytest.raises(DoesNotFit):
        mine.plan(scene, samples=3, **arguments)


def test_frames_are_checked_before_they_are_uploaded(tiny):
    """The buffer of bytes would take floats in 0..1 as black pictures."""
    upload = lambda frames: frames  # noqa: E731
    upload.device = torch.device("cuda")
    with pytest.raises(TypeError, match="uint8"):
        patches(torch.rand(1, 3, 64, 96), tiny[0].config.vision, (4096, 8192), upload, torch.float32)


def test_the_vendors_first_sound_backend_is_taken(monkeypatch):
    """On the CPU: efficient attention refuses, flash takes it; a backend that is off is passed over, and without any PyTorch decides."""
    qkv = vendor.random_qkv((1, 4, 40, 32), 2, torch.bfloat16, torch.device("cpu"))
    refuses, takes = SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION
    assert vendor.first_sound((refuses, takes), qkv, True) == takes
    assert vendor.first_sound((refuses,), qkv, True) is None
    real = vendor.attend_by
    monkeypatch.setattr(vendor, "attend_by", lambda backend, *rest: real(backend, *rest) * (1.1 if backend == takes else 1))
    assert vendor.first_sound((takes, SDPBackend.MATH), qkv, True) == SDPBackend.MATH


def test_a_pipeline_gets_shorter_where_shared_memory_is_short():
    class OutOfResources(Exception):
        pass

    tried = []

    class Kernel:
        def __getitem__(self, grid):
            def launch(*arguments, num_stages, **options):
                tried.append(num_stages)
                if num_stages > 2:
                    raise OutOfResources("shared memory")

            return launch

    kernel, x = Kernel(), torch.zeros(1)
    for _ in range(2):
        launch.launch(kernel, (1,), x, stages=4, BM=16)
    assert tried == [4, 3, 2, 2]
    with pytest.raises(ZeroDivisionError):
        launch.launch(type("Bad", (), {"__getitem__": lambda self, grid: lambda *a, **o: 1 / 0})(), (1,), x)


def test_attention_is_whole_where_tiles_fill_the_card():
    """Samples of 64 action tokens of the 10B's expert: 8 tiles a sample, 132 multiprocessors."""
    queries, group = 16, 2
    whole = [s for s in range(1, 40) if attention.fits_whole(attention.WHOLE, s * 64 * queries, 64 * group)]
    assert whole == [15, 16, 30, 31, 32, 33]
    assert not attention.fits_whole(attention.WHOLE, 11 * 96 * queries, 96 * group)  # a tile would hold two samples


@pytest.mark.slow
def test_kernels_equal_their_twins_in_the_interpreter():
    """Every Triton kernel on small shapes in fp32, without a GPU; those that draw in bf16 too."""
    pytest.importorskip("triton", reason="needs Triton, which PyTorch brings along on Linux with CUDA")
    command = [sys.executable, str(ROOT / "checks" / "kernels.py")]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    lines = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    errors = {line[:40].strip(): float(line[40:]) for line in lines}
    assert len(errors) >= 32 and max(errors.values()) < 1e-5, errors


def test_memory_is_said_before_the_run(monkeypatch):
    config = testing.size_config("10b")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr("alpamayo_r1.engine.arena.free_bytes", lambda device: 2e9)
    with pytest.raises(DoesNotFit, match=r"samples=\d+ would fit"):
        Arena(config, Capacity(1, 64, 256, 3008), torch.device("cuda"), torch.bfloat16)
    with pytest.raises(DoesNotFit, match="not even one sample"):
        Arena(config, Capacity(16, 1, 256, 3008), torch.device("cuda"), torch.bfloat16)


def test_buffers_grow_to_what_was_asked():
    small, large = Capacity(1, 2, 32, 64), Capacity(2, 1, 64, 32)
    assert small.joined(large) == Capacity(2, 1, 64, 64) and small.joined(large).holds(small)
    assert Capacity(8, 1, 32, 64).joined(Capacity(1, 20, 32, 64)) == Capacity(8, 3, 32, 64), "20 rows, not 8 x 20"
    assert Capacity(1, 4, 32, 64).holds(replace(small, samples=3)) and not small.holds(large)


def test_costs():
    """The floors' table: 16 images of 20 x 36 patches, a prompt of 3,050 tokens."""
    config = testing.size_config("10b")
    assert vision_cost(config, ((20, 36),) * 16).flops == pytest.approx(11.47e12, rel=1e-3)
    assert prefill_cost(config, 3050, whole_last_layer=True).flops == pytest.approx(45.11e12, rel=1e-3)
    assert decode_cost(config, 3050, 0).bytes == pytest.approx(15.62e9, rel=1e-3)
    assert decode_cost(config, 3050, 0).flops == pytest.approx(17.0e9, rel=5e-3)
    assert flow_step_cost(config, 3050, 0).flops == pytest.approx(0.351e12, rel=2e-3)
    assert flow_step_cost(config, 3050, 0).bytes == pytest.approx(5.01e9, rel=1e-3)


def test_bench_prompt_is_the_released_one():
    config = testing.size_config("10b")
    assert bench.prompt_shape(config, testing.random_observation(0))[0] == 3006
    vocabulary = testing.StandIn(config)
    assert (vocabulary.eos_token_id, vocabulary.pad_token_id, vocabulary.id("<|image_pad|>")) == (151645, 151643, 151655)
    assert len(whole_ids(vocabulary, testing.words(16), config.family.planning, "reasoning")) == 16
    released = sum(p.numel() for p in build_meta(config).parameters())
    assert released == pytest.approx(11_078_526_194, abs=100)


def test_patches_are_the_specification_s(tiny):
    vision: VisionConfig = tiny[0].config.vision
    frames = testing.random_observation(0, 90, 130).frames.flatten(0, 1)
    want, (h, w) = to_patches(frames, vision, 4096, 8192)
    assert torch.equal(resize_to_patches(frames, vision, 16 * h, 16 * w, torch.float32), want)
