"""Rows of Alpamayo 1.5's kinds: the prompts that training makes are those of the product, and every loss falls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import alpamayo_r1.train.material as material
import alpamayo_r1.train.validate as validate
from alpamayo_r1.core.config import read_config
from alpamayo_r1.core.family import ALPAMAYO_15
from alpamayo_r1.core.prompt import build_prompt, build_question
from alpamayo_r1.core.types import CAMERAS
from alpamayo_r1.core.vocab import load_vocabulary
from alpamayo_r1.train.losses import PATH, fresh_model
from alpamayo_r1.train.material import Pool, make_layout
from alpamayo_r1.train.mixed import MixedLosses, mixed_rows
from alpamayo_r1.train.presets import write_skeleton
from alpamayo_r1.train.stream import StreamConfig
from alpamayo_r1.train.texts import ASKED, PLANS, SUBSETS, Tails, make_heads, make_mixed
from alpamayo_r1.world.navigation import navigation
from alpamayo_r1.world.questions import QUESTIONS
from alpamayo_r1.world.richer import richer_families
from alpamayo_r1.world.samples import sample_batch
from alpamayo_r1.world.simulate import simulate

pytestmark = pytest.mark.slow
CPU, STEP, SEEDS = torch.device("cpu"), 51, np.arange(40, 48)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny checkpoint folder of 1.5 without weights, its config, vocabulary and a chunk of rows."""
    folder = tmp_path_factory.mktemp("tiny15")
    write_skeleton(folder, "tiny-1.5")
    config = read_config(folder)
    vocabulary = load_vocabulary(folder / config.vlm, config.tokens, config.family)
    nobody = np.zeros(len(SEEDS), bool)
    return config, vocabulary, make_mixed(SEEDS, STEP, nobody, nobody, Tails(config, vocabulary), StreamConfig(noisy=0.0))


@pytest.fixture(scope="module")
def small_pictures():
    """Training pictures of a few pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(material, "RENDER_SIZE", (64, 36))
        patch.setattr(validate, "PICTURE_SIZE", (64, 36))
        yield


@pytest.fixture(scope="module")
def losses(made, small_pictures):
    """The losses over rows of which the first two plan."""
    config, vocabulary, _ = made
    layout = make_layout(config, vocabulary)
    return MixedLosses(fresh_model(config, CPU, 0), layout, make_heads(config, vocabulary, layout.grid), 2, 1, StreamConfig().words)


def test_the_prompts_of_training_are_the_products(made, losses):
    config, vocabulary, chunk = made
    assert config.family is ALPAMAYO_15
    families = richer_families(SEEDS)
    scene = simulate(SEEDS, seconds=5.2, families=families)
    samples, told = sample_batch(scene, STEP, width=64, height=36), navigation(scene, STEP)
    rows = mixed_rows(chunk, losses.layout, CPU)
    hidden_of, asked, navigated, subsets = {}, 0, 0, set()
    for which in range(PLANS + ASKED):
        head, tail = rows.head[:, which], rows.tail[:, which].long()
        patches = patches_of(rows, config)
        hidden, _ = losses.read_rows(losses.model.vision(patches, losses.layout.grid), head, tail)
        for b in range(len(SEEDS)):
            hidden_of[b, which] = hidden[b]
            cameras = tuple(CAMERAS[c] for c in SUBSETS[int(head[b])])
            frames = samples[b].observation.frames[list(SUBSETS[int(head[b])])]
            observation = replace(samples[b].observation, frames=frames, cameras=cameras)
            said = vocabulary.decode(tail[b, : rows.prompt[b, which]].tolist())
            if which < PLANS:
                navigated += "<|route_start|>" in said
                text = said.split("<|route_start|>")[1].split("<|route_end|>")[0] if "<|route_start|>" in said else None
                prompt = build_prompt(observation, vocabulary, config, text)
                assert text in (None, told[b]) or "m" in text
            else:
                asked += 1
                question = said.split("<|question_start|>")[1].split("<|question_end|>")[0]
                assert question in QUESTIONS
                prompt = build_question(observation, vocabulary, config, question)
            subsets.add(int(head[b]))
            begin = int(losses.heads.length[head[b]])
            own = torch.cat([losses.heads.ids[head[b], :begin], tail[b, : rows.prompt[b, which]]])
            assert torch.equal(own, prompt.ids)
            first = begin + int(rows.prompt[b, which])
            assert int(losses.heads.following[head[b]] + rows.prompt[b, which]) == prompt.next_position
            if b < 2:
                grids = (losses.layout.grid,) * (4 * len(cameras))
                part = patches.view(len(SEEDS), 4, -1, patches.shape[-1])[b, list(SUBSETS[int(head[b])])].flatten(0, 1)
                with torch.no_grad():
                    logits, _ = losses.model.prefill(replace(prompt, patches=part, grids=grids))
                torch.testing.assert_close(losses.model.logits(hidden[b, first - 1]), logits[0], atol=1e-4, rtol=1e-4)
    assert asked and navigated and len(subsets) > 1


def patches_of(rows, config):
    """The patches of rows, without jitter."""
    from alpamayo_r1.core.images import normalise, patchify

    return patchify(normalise(rows.frames.flatten(0, 1)), config.vision)


def test_a_step_on_the_same_rows_lowers_every_loss(made, losses):
    chunk, pool = made[2], Pool(8)
    pool.add(mixed_rows(chunk, losses.layout, CPU))
    optimiser = torch.optim.AdamW(losses.parameters(), lr=3e-3)
    seen = []
    for _ in range(16):
        generator = torch.Generator().manual_seed(0)
        rows, noise, t = pool.draw(4, generator), torch.randn(2, 1, 64, 2, generator=generator), torch.rand(2, 1, generator=generator)
        parts = losses(rows, noise, t, generator)
        sum(weight * part for weight, part in zip((1, 1, 1, PATH, 1), parts, strict=True)).backward()
        optimiser.step()
        optimiser.zero_grad()
        seen.append([part.item() for part in parts])
    assert all(last < 0.95 * first for first, last in zip(seen[0], seen[-1], strict=True)), (seen[0], seen[-1])
