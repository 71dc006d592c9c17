"""Training material, the loop and the measurement, at the size of `tiny`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import alpamayo_r1.train.loop as loop
import alpamayo_r1.train.material as material
from alpamayo_r1.core.action import to_trajectory
from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.config import read_config
from alpamayo_r1.core.family import PLANNING
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.vocab import load_vocabulary, spoken, whole_ids
from alpamayo_r1.planner import load
from alpamayo_r1.train import validate as measure
from alpamayo_r1.train.loop import TrainConfig, train
from alpamayo_r1.train.losses import PATH, Losses, fresh_model, jittered, path_error
from alpamayo_r1.train.material import Pool, make_layout, render_rows
from alpamayo_r1.train.presets import write_skeleton
from alpamayo_r1.train.stream import LAST_TRAINING_SEED, StreamConfig, chunks, logged, make_chunk
from alpamayo_r1.world.families import T0_STEP
from alpamayo_r1.world.language import TEXTS, classify
from alpamayo_r1.world.samples import sample_batch
from alpamayo_r1.world.simulate import simulate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def skeleton(tmp_path_factory):
    """A tiny checkpoint folder without weights, its config and its vocabulary."""
    folder = tmp_path_factory.mktemp("tiny")
    write_skeleton(folder, "tiny")
    config = read_config(folder)
    return folder, config, load_vocabulary(folder / config.vlm, config.tokens)


def test_the_small_vocabulary_says_every_sentence(skeleton):
    _, config, vocabulary = skeleton
    assert len(vocabulary) == config.tokens.vocab
    for text in TEXTS:
        ids = whole_ids(vocabulary, text, PLANNING, "reasoning")
        assert spoken(vocabulary, ids, "cot", opened=True) == text
        assert len(ids) <= StreamConfig().words


@pytest.mark.parametrize(("step", "pushed"), [(T0_STEP, np.zeros(64, bool)), (30, np.arange(64) % 2 == 0)])
def test_directed_rows_say_and_do_otherwise(skeleton, step, pushed):
    _, config, vocabulary = skeleton
    seeds = np.arange(64)
    nobody = np.zeros(64, bool)
    natural = make_chunk(seeds, step, nobody, pushed, config, vocabulary, 24)
    directed = make_chunk(seeds, step, np.arange(64) < 32, pushed, config, vocabulary, 24)
    assert natural.natural.all() and directed.natural.tolist() == [False] * 32 + [True] * 32
    assert torch.equal(natural.future[32:], directed.future[32:]) and torch.equal(natural.words[32:], directed.words[32:])
    assert (natural.future[:32] - directed.future[:32]).norm(dim=-1).amax(1).gt(0.5).float().mean() > 0.8
    assert torch.equal(natural.history_ids, directed.history_ids)
    for words, length in zip(directed.words, directed.length, strict=True):
        assert classify(spoken(vocabulary, words[:length].tolist(), "cot", opened=True)) is not None


def test_who_was_pushed_off_its_way_finds_back(skeleton):
    _, config, vocabulary = skeleton
    seeds, nobody = np.arange(64), np.zeros(64, bool)
    pushed = np.arange(64) < 32
    plain, off = (make_chunk(seeds, 40, nobody, who, config, vocabulary, 24) for who in (nobody, pushed))
    assert torch.equal(plain.future[32:], off.future[32:]) and torch.equal(plain.history_ids[32:], off.history_ids[32:])
    away = [chunk.scene.road.frenet(chunk.scene.ego[:, -1:, :2])[:, 0, 1] for chunk in (plain, off)]
    beside = (away[1] - away[0])[:32]
    assert beside.abs().median() > 0.1, "they stand beside their way when they plan"
    turned = (off.future[:32, 20, 1] - plain.future[:32, 20, 1]) * beside.sign()
    far = beside.abs() > 0.3
    assert turned[far].median() < -0.2, "and come back to it"


def test_logged_histories_are_millimetres_off_and_end_where_the_car_is():
    history, seeds = torch.zeros(400, 16, 3), np.arange(400)
    off = logged(history, seeds, 0.5)
    assert torch.equal(off, logged(history, seeds, 0.5)) and (off[:, -1] == 0).all()
    noisy = off.abs().amax((1, 2)) > 0
    assert 160 < noisy.sum() < 240
    assert 1e-3 < off[noisy].std() < 15e-3 and torch.equal(logged(history, seeds, 0.0), history)


def test_a_silent_stream_says_nothing(skeleton):
    folder, config, vocabulary = skeleton
    chunk = next(chunks(StreamConfig(chunk=32, silent=True), config, str(folder), workers=0))
    assert chunk.natural.all() and chunk.length.tolist() == [len(PLANNING.closes)] * 32
    assert spoken(vocabulary, chunk.words[0, : chunk.length[0]].tolist(), "cot", opened=True) == ""


def test_moments_lie_anywhere(skeleton):
    folder, config, _ = skeleton
    stream = chunks(StreamConfig(chunk=64, group=4), config, str(folder), workers=0)
    chunk = next(stream)
    s = chunk.scene.road.frenet(chunk.scene.ego[:, -1:, :2])[:, 0, 0]
    assert s.min() < -5 and s.max() > 50, "the ego passes s = 0 at 5.1 s"


def test_the_stream_stays_among_the_training_seeds(skeleton):
    folder, config, _ = skeleton
    chunk = StreamConfig(first_seed=LAST_TRAINING_SEED - 10, chunk=4)
    stream = chunks(chunk, config, str(folder), workers=0)
    before = torch.get_num_threads()
    seeds = torch.cat([next(stream).scene.seeds for _ in range(4)])
    assert torch.get_num_threads() == before, "the process that trains keeps its threads"
    assert seeds.max() <= LAST_TRAINING_SEED and seeds.min() < 100


def test_processes_take_different_seeds(skeleton):
    folder, config, _ = skeleton
    streams = [chunks(StreamConfig(chunk=4), config, str(folder), 0, rank, 2) for rank in range(2)]
    seeds = torch.cat([next(stream).scene.seeds for _ in range(2) for stream in streams])
    assert seeds.sort().values.tolist() == list(range(16))


@pytest.mark.slow
def test_a_step_on_the_same_rows_lowers_every_loss(skeleton, monkeypatch):
    _, config, vocabulary = skeleton
    monkeypatch.setattr(material, "RENDER_SIZE", (96, 54))
    layout = make_layout(config, vocabulary)
    losses = Losses(fresh_model(config, torch.device("cpu"), 0), layout, 2, 24)
    chunk = make_chunk(np.arange(8), T0_STEP, np.zeros(8, bool), np.zeros(8, bool), config, vocabulary, 24)
    pool = Pool(16)
    pool.add(render_rows(chunk, layout, torch.device("cpu")))
    optimiser = torch.optim.AdamW(losses.parameters(), lr=3e-3)
    seen = []
    for _ in range(12):
        generator = torch.Generator().manual_seed(0)
        rows = pool.draw(8, generator)
        noise, t = torch.randn(8, 2, 64, 2, generator=generator), torch.rand(8, 2, generator=generator)
        parts = losses(rows, noise, t, generator)
        sum(weight * part for weight, part in zip((1, 1, PATH, 1), parts, strict=True)).backward()
        optimiser.step()
        optimiser.zero_grad()
        seen.append([part.item() for part in parts])
    assert all(last < 0.9 * first for first, last in zip(seen[0], seen[-1], strict=True)), (seen[0], seen[-1])


def test_the_path_error_is_how_far_wrong_actions_lead(skeleton):
    action = skeleton[1].action
    speed = torch.tensor([12.0])
    for error in (torch.tensor([0.3, 0.0]).expand(64, 2), torch.tensor([0.05, -0.2]).expand(64, 2)):
        straight = to_trajectory(torch.zeros(1, 64, 2), speed, torch.zeros(1), 0.1).xyz
        scale = torch.tensor([action.accel_std, action.curvature_std])
        driven = to_trajectory((error * scale)[None], speed, torch.zeros(1), 0.1).xyz
        off = (driven - straight)[0, :, :2].square().sum(-1).mean().item()
        assert path_error(error[None, None], speed, action).item() == pytest.approx(off, rel=0.1)


def test_the_strips_that_other_cars_may_not_see_are_grey(skeleton):
    config = skeleton[1]
    frames = torch.full((2, 16, 3, 32, 64), 255, dtype=torch.uint8)
    drawn = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.0, 0.0], [1.0, 1.0], [0.9, 0.1]])[..., None, None, None, None]
    patches = jittered(frames, drawn, torch.zeros(frames.shape), config.vision).view(2, 4, 4, -1)
    grey = [[(patches[b, c] == 0).float().mean().item() for c in range(4)] for b in range(2)]
    assert grey[0] == [0, 0, 0, 0], "not drawn"
    assert grey[1] == pytest.approx([10 / 64, 0, 10 / 64, 0]), "a strip of 15 % of both side cameras, in all frames"
    columns = patches[1].view(4, 4, 2, 2, 2, 3, 2, 16, 16)[:, 0, :, 0, :, 0, 0, 0]  # (camera, block across, patch in it, x)
    left, right = (columns[c].flatten() for c in (0, 2))
    assert (left[-9:] == 0).all() and (left[:-10] == 1).all() and (right[:9] == 0).all() and (right[10:] == 1).all()


def test_neighbouring_history_bins_start_alike(skeleton):
    _, config, _ = skeleton
    table = fresh_model(config, torch.device("cpu"), 0).language.embed_tokens.weight
    rows = table[config.tokens.first_history :][: config.tokens.history_bins].detach()
    near = torch.cosine_similarity(rows[:-1], rows[1:]).mean()
    far = torch.cosine_similarity(rows[:-300], rows[300:]).mean()
    assert near > 0.7 > 0.4 > far
    assert 0.01 < rows.std() < 0.04


@pytest.mark.slow
def test_train_writes_a_checkpoint_that_loads_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(material, "RENDER_SIZE", (96, 54))
    config = TrainConfig(minutes=5, batch=4, fresh=8, reuse=1, pool=16, warmup=2, workers=0, max_rounds=2)
    train(tmp_path / "a", "tiny", config, StreamConfig(chunk=8), torch.device("cpu"))
    model, vocabulary = load_checkpoint(tmp_path / "a", dtype=torch.float32)
    run = json.loads((tmp_path / "a" / "run.json").read_text())
    assert run["steps"] == 4 and run["next_seed"] == 16
    train(tmp_path / "b", "tiny", config, StreamConfig(chunk=8), torch.device("cpu"), resume=tmp_path / "a")
    assert json.loads((tmp_path / "b" / "run.json").read_text())["next_seed"] == 32
    monkeypatch.setattr(measure, "PICTURE_SIZE", (96, 54))
    result = measure.validate(model, vocabulary, seeds=range(800_000, 800_003), samples=2, batch=3)
    assert result["scenes"] == 3 and result["min_ade"] <= result["ade"]
    assert sum(family["scenes"] for family in result["by_family"].values()) == 3
    assert "nudge" in measure.table(result) or "stop" in measure.table(result)


@pytest.mark.slow
def test_the_measurement_plans_as_the_specification():
    planner = load("small", device="cpu", fast=False)
    layout = make_layout(planner.model.config, planner.vocabulary)
    with torch.inference_mode():
        seen = measure.read_scenes(planner.model, layout, measure.show_scenes(planner.model, layout, [800_000, 800_001], 51, supersample=1))
        words, path = measure.predict(
            planner.model, planner.vocabulary, layout, seen, PlanOptions(samples=2, seed=42, max_tokens=32, steps=3)
        )
    width, height = measure.PICTURE_SIZE
    samples = sample_batch(simulate([800_000, 800_001], seconds=5.2), T0_STEP, width=width, height=height, supersample=1)
    for row, sample in enumerate(samples):
        plan = planner.plan(sample.observation, samples=2, seed=42, steps=3)
        assert words[row] == list(plan.reasoning)
        torch.testing.assert_close(path.xyz[row], plan.xyz, atol=1e-4, rtol=0)


def test_moved_reads_the_direction():
    straight = torch.stack([torch.linspace(1, 64, 64), torch.zeros(64), torch.zeros(64)], -1)
    left = straight + torch.tensor([0.0, 1.0, 0.0])
    assert measure.moved("nudge_left", straight, left) and not measure.moved("nudge_right", straight, left)
    assert measure.moved("stop", straight, straight * 0.5) and not measure.moved("stop", straight, straight)
    assert measure.moved("proceed", straight * 0.5, straight)


def test_a_save_that_is_cut_off_leaves_the_last_state(skeleton, tmp_path, monkeypatch):
    _, config, vocabulary = skeleton
    (tmp_path / "state.pt").write_bytes(b"the last state")

    def cut_off(state, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.torch, "save", cut_off)
    losses = Losses(fresh_model(config, torch.device("cpu"), 0), make_layout(config, vocabulary), 1, 24)
    with pytest.raises(KeyboardInterrupt):
        loop.finish(tmp_path, losses, TrainConfig(), StreamConfig(), 1, 1, 0.0, loop.Group())
    assert (tmp_path / "state.pt").read_bytes() == b"the last state"


def test_a_batch_larger_than_a_round_is_refused():
    with pytest.raises(ValueError, match="lower batch"):
        TrainConfig(batch=1024, fresh=256, reuse=2)
