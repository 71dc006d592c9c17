"""The training of the bundled Alpamayo 1.5: rows that plan with navigation, rows that plan without, and rows that answer.

loss = cross-entropy of the words (natural plans, all answers) + flow and path error of the actions and the read-out (plans); see `loop`
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as nnf
from torch import nn

from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.config import read_config
from alpamayo_r1.core.vla import VLA, Images
from alpamayo_r1.core.vocab import QwenVocabulary, load_vocabulary
from alpamayo_r1.train.loop import Run, TrainConfig, begin_folder, go_on
from alpamayo_r1.train.losses import PATH, FlowLosses, first_speed, fresh_model, path_error, read_out_error
from alpamayo_r1.train.material import Layout, Rows, make_layout, render_rows, rendering
from alpamayo_r1.train.step import Group
from alpamayo_r1.train.stream import StreamConfig, through
from alpamayo_r1.train.texts import ASKED, PLANS, Heads, MixedChunk, MixedStream, make_heads

PLANNED = 0.7
"""Share of a batch that plans; the rest answers."""


@dataclass(frozen=True)
class MixedRows(Rows):
    """Rendered scenes with all their texts; see MixedChunk."""

    head: torch.Tensor
    tail: torch.Tensor
    prompt: torch.Tensor
    said: torch.Tensor


class MixedLosses(FlowLosses):
    """The losses over rows of which the first `plans` plan and the others answer."""

    def __init__(self, model: VLA, layout: Layout, heads: Heads, plans: int, draws: int, words: int):
        super().__init__(model, layout, draws)
        self.heads, self.plans, self.words = heads, plans, words

    def loss(self, rows: MixedRows, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """What is minimised, and its parts f32[5]: language, answers, flow, path in m^2, read-out."""
        plans, device = self.plans, rows.length.device
        noise = torch.randn(plans, self.draws, 64, 2, device=device, generator=generator)
        t = torch.rand(plans, self.draws, device=device, generator=generator)
        with torch.autocast(device.type, torch.bfloat16):
            language, answers, flow, path, readout = parts = self(rows, noise, t, generator)
        return language + answers + flow + PATH * path + readout, torch.stack(parts).detach()

    def texts(self, rows: MixedRows, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """A text of each row at random: head (B,), tail (B, L), prompt, said (B,). The first `plans` rows plan, the others answer."""
        count, device = len(rows.length), rows.length.device
        plan = torch.randint(PLANS, (self.plans,), generator=generator, device=device)
        asked = PLANS + torch.randint(ASKED, (count - self.plans,), generator=generator, device=device)
        row, which = torch.arange(count, device=device), torch.cat([plan, asked])
        head, tail, prompt, said = (getattr(rows, name)[row, which].long() for name in ("head", "tail", "prompt", "said"))
        return head, tail, prompt, said

    def forward(self, given: MixedRows, noise: torch.Tensor, t: torch.Tensor, generator: torch.Generator):
        """The five losses of one batch at noise [P, K, 64, 2] and t [P, K] of its P plans."""
        head, tail, prompt, said = self.texts(given, generator)
        natural, action, future = (getattr(given, name)[: self.plans] for name in ("natural", "action", "future"))
        plans, rows = self.plans, torch.arange(len(head), device=head.device)[:, None]
        hidden, kv = self.read_rows(self.see(given.frames, generator), head, tail)
        start = self.heads.length[head] + prompt  # of the first word
        at = torch.arange(self.words, device=head.device)
        logits = self.model.logits(hidden[rows, start[:, None] - 1 + at])
        target = tail.gather(1, (prompt[:, None] + at).clamp_max(tail.shape[1] - 1))
        nll = nnf.cross_entropy(logits.float().flatten(0, 1), target.flatten(), reduction="none").view_as(target)
        counted = at < said[:, None]
        spoken, answered = counted[:plans] & natural[:, None], counted[plans:]
        language = (nll[:plans] * spoken).sum() / spoken.sum().clamp_min(1)
        answers = (nll[plans:] * answered).sum() / answered.sum().clamp_min(1)
        begun, length = start[:plans], said[:plans]
        first = self.heads.following[head[:plans]] + prompt[:plans] + length
        error = self.flow_error([(k[:plans], v[:plans]) for k, v in kv], begun + length, first, action, noise, t)
        path = path_error(error, first_speed(future, self.model.config.action), self.model.config.action)
        readout = read_out_error(self.readout(hidden[rows[:plans, 0], begun - 1].float()), future, natural)
        return language, answers, error.square().mean(), path, readout

    def read_rows(self, images: Images, head: torch.Tensor, tail: torch.Tensor):
        """Hidden states and keys and values of [head | tail | padding]. All pictures are seen; a row's head says which it has."""
        heads, count = self.heads, len(head)
        at, begin = torch.arange(heads.ids.shape[1] + tail.shape[1], device=head.device)[None], heads.length[head][:, None]
        before, behind = at < begin, (at - begin).clamp(0, tail.shape[1] - 1)

        def of_head(table: torch.Tensor) -> torch.Tensor:
            return nnf.pad(table, (0, tail.shape[1]))[head]

        ids = torch.where(before, of_head(heads.ids), tail.gather(1, behind))
        positions = torch.where(before[:, None], of_head(heads.positions), (heads.following[head][:, None] + at - begin)[:, None])
        source = torch.where(before, of_head(heads.source), -1)
        there = (source >= 0)[..., None]
        features, deep = images

        def spread(values: torch.Tensor) -> torch.Tensor:
            values = values.view(count, -1, values.shape[-1])
            return values.gather(1, source.clamp_min(0)[..., None].expand(-1, -1, values.shape[-1]))

        x = self.model.language.embed_tokens(ids).to(features.dtype)
        x = torch.where(there, spread(features).to(x.dtype), x)
        deepstack = [torch.where(there, spread(d).to(x.dtype), torch.zeros_like(x)) for d in deep]
        return self.model.language(x, positions.transpose(0, 1), causal=True, deepstack=deepstack)


def begin_from(model: VLA, vocabulary: QwenVocabulary, start: Path) -> None:
    """Gives a model the weights of another of its size, the words by their text: a new word starts as the mean of its old pieces."""
    older, words = load_checkpoint(start, dtype=torch.float32)
    state, pieces = older.state_dict(), pieces_of(vocabulary, words)
    for name in ("vlm.model.language_model.embed_tokens.weight", "vlm.lm_head.weight"):
        table = state[name]
        state[name] = torch.stack([table[ids].mean(0) for ids in pieces])
    model.load_state_dict(state)


def pieces_of(vocabulary: QwenVocabulary, older: QwenVocabulary) -> list[list[int]]:
    """For every token of a vocabulary the ids that stand for it in an older one: its own, or those of its text."""
    known = older.backend.get_vocab(with_added_tokens=True)
    tokens = [vocabulary.backend.id_to_token(number) for number in range(len(vocabulary))]
    return [[known[t]] if t in known else older.encode(vocabulary.decode([number])) for number, t in enumerate(tokens)]


def train_mixed(
    out: Path, preset: str, config: TrainConfig, stream: StreamConfig, device: torch.device, resume: Path | None = None
) -> None:
    """Trains a preset of Alpamayo 1.5 and writes `out` as `loop.train` does.

    resume: a state.pt to go on from, or a checkpoint of its size to begin with, of any family and vocabulary.

    Raises:
        ValueError: a state of another preset. CheckpointError, ConfigError: as in `load_model`.
    """
    began = time.monotonic()
    group = Group.join(device)
    begin_folder(out, preset, group, device)
    shape = read_config(out)
    vocabulary = load_vocabulary(out / shape.vlm, shape.tokens, shape.family)
    layout = make_layout(shape, vocabulary)
    heads = make_heads(shape, vocabulary, layout.grid).to(device)
    plans = round(PLANNED * config.batch)
    model = fresh_model(shape, device, config.seed)
    begins = resume is not None and resume.is_dir()
    if resume is not None and begins:
        begin_from(model, vocabulary, resume)
    losses = MixedLosses(model, layout, heads, plans, config.draws, stream.words)
    nn.init.zeros_(losses.readout.weight)
    step, seed = (0, stream.first_seed) if resume is None or begins else go_on(losses, resume, stream.first_seed)
    drawn = MixedStream(replace(stream, first_seed=seed), shape, str(out), group.rank, group.size)
    source = cast("Iterator[MixedChunk]", through(drawn, config.workers))
    fused = config.compile and device.type == "cuda"
    make = rendering(source, config.fresh, lambda chunk: mixed_rows(chunk, layout, device, fused))
    Run(out, losses, config, stream, group, step, seed, began).go(make, None, ("language", "answers", "flow", "path_m2", "readout"))


def mixed_rows(chunk: MixedChunk, layout: Layout, device: torch.device, fused: bool = False) -> MixedRows:
    """Renders the scenes of a chunk and brings all of it to the device. fused: with torch.compile."""
    plain = render_rows(chunk, layout, device, fused)
    shared = (getattr(plain, name) for name in Rows.__dataclass_fields__)
    return MixedRows(*shared, *(getattr(chunk, name).to(device) for name in ("head", "tail", "prompt", "said")))
