"""Two devices in a row: one sees and reads, the other one speaks and plans; keys travel from one to the other as they are made.

    reader   pictures -> vision -> prefill, layer by layer
                                        | keys and values of each layer, then the last token's final norm
    speaker                             prefix -> words -> flow -> kinematics

Nobody computes anything twice and no sum is made in another order, so that plans have the bits of one device of the same kind. While the
speaker is at one plan, the reader may be at the next one: see `Stream.submit`.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch

from alpamayo_r1.core.clock import Stopwatch
from alpamayo_r1.core.prompt import Prompt
from alpamayo_r1.core.transformer import KV
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.engine import forward, reading
from alpamayo_r1.engine.arena import Buffers, Capacity
from alpamayo_r1.engine.graphs import Graphs, Run, at_once
from alpamayo_r1.engine.lane import Lane, in_turn
from alpamayo_r1.engine.memory import Known
from alpamayo_r1.engine.reader import Features, Reader, Reading


class FarReader(Reader):
    """Sees and reads on a device of its own, from weights of vision and language alone, and goes on while another device speaks."""

    apart: ClassVar[bool] = True

    def __init__(self, vla: VLA, *, graphs: bool | None = None, exact_cpu: bool = False):
        lane = Lane(vla.device)
        with torch.no_grad():
            model = forward.Model(vla)
        graphs_here = Graphs(vla.device.type == "cuda" if graphs is None else graphs, lane.stream)
        super().__init__(model, lane, graphs_here, lambda count: self.keys_for(count).kv, exact_cpu)
        self.courier = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    @in_turn
    @torch.inference_mode()
    def read(self, prompt: Prompt, clock: Stopwatch, pictures: list[Features] | None = None, known: Known | None = None) -> Reading:
        """Reads a prompt into keys and values of its own: on a GPU all work is queued when this returns, none of it waited for."""
        images = self._placed([self._encode(prompt, clock)] if pictures is None else pictures)
        text, room = self.config.text, Capacity(1, 1, 1, len(prompt)).rounded().prompt  # as wide as a prefix is: copied in one piece
        kv = torch.zeros(text.layers, 2, 1, text.kv_heads, room, text.head_dim, device=self.device, dtype=self.dtype)
        made: list[torch.cuda.Event | None] = []
        with clock("prefill"):
            cache = [(keys[:, :, : len(prompt)], values[:, :, : len(prompt)]) for keys, values in kv]
            last = reading.prefill(self.model, prompt, images, cache, known=known, done=lambda: made.append(self._mark())).clone()
        made.append(self._mark())
        if self.courier is not None:
            for tensor in (kv, last):
                tensor.record_stream(self.courier)
        return Travelling(tuple((keys, values) for keys, values in kv), last, tuple(made), self.courier)

    def _run(self, place: int) -> Run:
        """No graphs of prompts: each is read into keys of its own."""
        return at_once

    def _mark(self) -> torch.cuda.Event | None:
        """What says that all work queued so far is done."""
        if self.lane.stream is None:
            return None
        mark = torch.cuda.Event()
        mark.record(self.lane.stream)
        return mark


@dataclass(frozen=True)
class Travelling(Reading):
    """A prompt that is read elsewhere: keys and values [1, Hkv, T, d] of each layer, the last token's final norm, when each is made."""

    kv: tuple[KV, ...]
    last: torch.Tensor  # (1, hidden)
    made: tuple[torch.cuda.Event | None, ...]  # of every layer, then of `last`
    courier: torch.cuda.Stream | None  # where copies are queued: of the reader's device

    def logits(self, speaker: forward.Model, buffers: Buffers, scene: int) -> torch.Tensor:
        """Brings each layer over as soon as it is made. The host waits for nothing."""
        last = torch.empty_like(self.last, device=speaker.vla.device)
        with nullcontext() if self.courier is None else torch.cuda.stream(self.courier):
            for made, layer, prefix in zip(self.made, self.kv, buffers.prefix, strict=False):
                self._await(made)
                for into, own in zip(prefix, layer, strict=True):
                    into[scene, :, : own.shape[2]].copy_(own[0], non_blocking=True)
            self._await(self.made[-1])
            last.copy_(self.last, non_blocking=True)
        return forward.first_logits(speaker, last)

    def _await(self, made: torch.cuda.Event | None) -> None:
        if self.courier is not None and made is not None:
            self.courier.wait_event(made)
