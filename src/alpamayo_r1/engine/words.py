"""The words of a plan: tokens are drawn, and with right drafts several at once.

A pass reads a row's last token and drafts of the next ones, and draws what follows each. What was drawn is said as long as it agrees with
the drafts: token i is a function of its logits and of the row's i-th uniform number alone, so drafts decide how soon it is said, not what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alpamayo_r1.core.request import Request
from alpamayo_r1.engine.arena import Buffers, Said, block_length
from alpamayo_r1.engine.drafts import Table, guesses
from alpamayo_r1.engine.forward import Model, read_words
from alpamayo_r1.engine.graphs import Graphs
from alpamayo_r1.engine.ops.drawing import draw_tokens
from alpamayo_r1.engine.ops.launch import kernels, launch, on_gpu, power

FLAT = 64
"""Passes for which distributions are taken to be flat after one was: drawing from candidates is tried again after them."""


@dataclass(frozen=True)
class Rules:
    """What a turn may say and where it ends.

    end (-1: none) ends a row, and its keys are wanted; eos ends it too; pad stands where nothing is said. whole: the keys of every token
    are wanted, also where a row was cut off.
    """

    blocked: torch.Tensor  # bool[vocab]: never said
    end: int
    eos: int
    pad: int
    whole: bool = False


@dataclass
class Speaker:
    """What writes the words of plans: passes as graphs, and the table of drafts that all plans fill."""

    model: Model
    graphs: Graphs
    table: Table
    wide: int = 0  # passes for which tokens are drawn as from flat distributions, since some were flat

    def speak(
        self, how: Request, rules: Rules, buffers: Buffers, rows: int, positions: int, last: Sequence[Sequence[int]] = ()
    ) -> tuple[Said, int]:
        """Writes the words of the first `rows` rows until all are over, and the others repeat them: what was said, in how many passes.

        last: what each row said a step ago.
        """
        arrived = torch.cuda.Event() if buffers.state.is_cuda else None
        drafting = Drafting(how, rules, buffers, rows, self.table, last) if how.drafts else None
        key = len(buffers.prompt), len(buffers.state), rows, how.sampling, how.turn

        def pass_on(count: int, side: int) -> None:
            wide = self.wide > 0

            def work() -> None:
                if count:
                    read_words(self.model, buffers, count, positions)
                say(buffers, rows, max(count, 1), rules, how, side, wide)

            if drafting is not None and count > 1:
                buffers.block[:rows, 1:count].copy_(buffers.drafts[:rows, : count - 1], non_blocking=True)
                buffers.block.view(-1, rows, buffers.block.shape[1])[1:] = buffers.block[:rows]
            self.graphs.run(("words", *key, count, side, wide), work)
            self.wide -= wide

        pass_on(0, 0)
        passes, ahead = 0, drafting is None and arrived is not None
        while True:
            side = passes % 2 if ahead else 0
            if arrived is not None:
                arrived.record()
            if ahead:  # without drafts the next pass runs while the state travels; the last one makes the keys that are wanted
                pass_on(1, 1 - side)
            if arrived is not None:
                arrived.synchronize()
            if buffers.crowded[1].any():
                self.wide = FLAT
                for flags in buffers.crowded:
                    flags.zero_()
            said = Said.of(buffers.host[side][:rows])
            wanted = said.length if rules.whole else said.length - 1 + said.ended
            if said.over.all() and (ahead or bool((said.cached >= wanted).all())):
                break
            if not ahead:
                pass_on(1 if drafting is None else drafting.block(said), 0)
            passes += 1
        if how.forced is None:
            for ids, length in zip(said.ids, said.length, strict=True):
                self.table.learn(ids[: int(length)].tolist())
        return Said.of(buffers.host[side][:rows].clone()), passes + ahead


class Drafting:
    """The drafts of one plan's rows, pass by pass."""

    def __init__(self, how: Request, rules: Rules, buffers: Buffers, rows: int, table: Table, last: Sequence[Sequence[int]]):
        self.drafts, self.table, self.stop, self.pad = buffers.drafts[:rows], table, (rules.end, rules.eos), rules.pad
        self.longest = block_length(len(buffers.state))
        scenes = rows // how.samples
        self.uniform = how.draws.uniform.tolist() * scenes
        given = how.forced.tolist() * scenes if how.forced is not None else [[]] * rows
        self.known = [list(row) for row in last] or given
        self.before = torch.zeros(rows, dtype=torch.long)
        self.passes = self.idle = 0

    def block(self, said: Said) -> int:
        """Puts drafts behind the last token of every row; how many tokens per row are to be read."""
        gained = said.length - self.before
        self.idle = 0 if bool((gained[said.over == 0] > 1).any()) else self.idle + 1
        self.before, self.passes = said.length.clone(), self.passes + 1
        tired = self.idle > 2 and self.passes % 4
        if self.longest == 1 or tired or bool(said.over.all()):
            return 1
        rows = [
            [] if over else guesses(ids[:n], self.longest - 1, self.table, uniform, known, self.stop)
            for ids, n, over, uniform, known in zip(
                said.ids.tolist(), said.length.tolist(), said.over.tolist(), self.uniform, self.known, strict=True
            )
        ]
        if not any(rows):
            return 1
        self.drafts[:, : self.longest - 1] = torch.tensor([row + [self.pad] * (self.longest - 1 - len(row)) for row in rows])
        return self.longest


def say(buffers: Buffers, rows: int, count: int, rules: Rules, how: Request, side: int, wide: bool) -> None:
    """Draws what follows each of `count` tokens read per row, accepts what was drafted rightly, and brings the state to the host.

    side: of the two states on the host, the one to write: the other may still be read. wide: distributions are expected to be flat.
    """
    b, length = buffers, buffers.said.length[:rows]
    at = (length[:, None] + torch.arange(count, device=length.device)).clamp_max(b.uniform.shape[1] - 1)
    uniform = b.uniform[:rows].gather(1, at).flatten()
    drawn = draw_tokens(b.logits[: rows * count], rules.blocked, uniform, how.sampling, None if wide else b.crowded[0])
    accept(drawn.view(rows, count), b, rules)
    for shared in (b.state, b.block):
        shared.view(-1, rows, shared.shape[1])[1:] = shared[:rows]
    b.host[side].copy_(b.state, non_blocking=True)
    b.crowded[1].copy_(b.crowded[0], non_blocking=True)


def accept(drawn: torch.Tensor, buffers: Buffers, rules: Rules) -> None:
    """Takes what was drawn after each token of a block: drawn i64[R, count], count <= K.

    Row r had said `length` tokens, the last of which is block[r, 0]; drawn[r, j] follows block[r, j]. It is said as long as every draft
    before it was drawn too, up to an end or `limit`; forced tokens take its place. Updates the state and block[:, 0]: the token to read
    next, padding where a row is over and none of its keys is wanted any more.
    """
    b, (rows, count) = buffers, drawn.shape
    if on_gpu(drawn):
        numbers = rows, count, b.forced.stride(0), b.state.stride(0), rules.eos, rules.end, rules.pad
        constants = {"ROWS": power(rows), "LONGEST": b.block.stride(0), "EVERY": rules.whole}
        launch(kernels("drawing").accept_kernel, (1,), drawn, b.forced, b.block, b.limit, b.state, *numbers, **constants)
        return
    said, block, forced = Said.of(b.state[:rows]), b.block[:rows], b.forced[:rows]
    was_over, before = said.over.bool(), said.length.clone()
    owed = was_over & (said.ended.bool() | rules.whole) & (said.cached < before)
    going, pending = ~was_over, torch.full_like(before, rules.pad)
    made, ended, over = torch.zeros_like(going), torch.zeros_like(going), torch.zeros_like(going)
    for j in range(count):
        at = (before + j).clamp_max(said.ids.shape[1] - 1)[:, None]
        given = forced.gather(1, at)[:, 0]
        token = torch.where(given >= 0, given, drawn[:, j])
        said.ids.scatter_(1, at, torch.where(going, token, said.ids.gather(1, at)[:, 0])[:, None])
        match = token == block[:, j + 1] if j + 1 < count else torch.zeros_like(going)
        said.length.add_(going)
        pending = torch.where(going, token, pending)
        finished = going & (token == rules.end)
        stops = finished | going & ((token == rules.eos) | (before + j + 1 >= b.limit))
        made |= (stops if rules.whole else finished) & match
        ended, over = ended | finished, over | stops
        going = going & match & ~stops
    said.cached.add_(said.length - before + made.long() + owed.long())
    said.over.logical_or_(over)
    said.ended.logical_or_(ended)
    wanted = over if rules.whole else ended
    block[:, 0] = torch.where(was_over | over & (~wanted | made), rules.pad, pending)
