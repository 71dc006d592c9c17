"""The model: vision, language and action expert as one module with the release's parameter names. No loops, no sampling policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import torch
import torch.nn.functional as nnf
from torch import nn

from alpamayo_r1.core.action import Scale
from alpamayo_r1.core.config import ActionConfig, ModelConfig, ProjectionConfig
from alpamayo_r1.core.prompt import Prompt
from alpamayo_r1.core.transformer import KV, Decoder, RMSNorm
from alpamayo_r1.core.vision import Grid, Vision

Images = tuple[torch.Tensor, list[torch.Tensor]]
"""Image tokens [n, hidden] and each DeepStack layer's features, of all pictures of a prompt."""


class Fourier(nn.Module):
    """sqrt(2) [sin(2 pi f u), cos(2 pi f u)] at log-spaced frequencies f from 1 to `max_frequency`; u [...] -> [..., features], in fp32."""

    freqs: torch.Tensor

    def __init__(self, features: int, max_frequency: float):
        super().__init__()
        values = torch.logspace(0, math.log10(max_frequency), features // 2, device="cpu")
        self.register_buffer("freqs", torch.tensor(values.tolist())[None])  # logspace on the meta device would import SymPy, 0.5 s

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        angle = u.float()[..., None] * self.freqs[0].float() * 2 * math.pi
        return math.sqrt(2) * torch.cat([angle.sin(), angle.cos()], -1)


class Trunk(nn.Module):
    """Linear, SiLU, then `layers` times RMSNorm and Linear with SiLU between: 3 * features -> width."""

    def __init__(self, config: ProjectionConfig, width: int):
        super().__init__()
        blocks: list[nn.Module] = [nn.Linear(3 * config.features, config.hidden), nn.SiLU()]
        for i in range(config.layers):
            last = i == config.layers - 1
            blocks += [RMSNorm(config.hidden, 1e-5), nn.Linear(config.hidden, width if last else config.hidden)]
            blocks += [] if last else [nn.SiLU()]
        self.trunk = nn.Sequential(*blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.trunk(x.to(self.trunk.get_parameter("0.weight").dtype))


class ActionIn(nn.Module):
    """Noisy actions and time -> expert tokens (spec section 5)."""

    def __init__(self, config: ProjectionConfig, width: int):
        super().__init__()
        self.sinus = nn.ModuleList(Fourier(config.features, config.max_frequency) for _ in range(2))
        self.timestep_fourier_encoder = Fourier(config.features, config.max_frequency)
        self.encoder = Trunk(config, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """x [R, F, 2] normalised actions, t [R] or [R, F] in 0..1 -> [R, F, width]."""
        t = t.view(x.shape[0], -1).expand(x.shape[:2])
        features = [self.sinus[0](x[..., 0]), self.sinus[1](x[..., 1]), self.timestep_fourier_encoder(t)]
        return self.norm(self.encoder(torch.cat(features, -1)))


class ActionSpace(nn.Module):
    """The four scalars that normalise actions, as buffers: loading in bf16 rounds them, and the original runs with the rounded values."""

    accel_mean: torch.Tensor
    accel_std: torch.Tensor
    curvature_mean: torch.Tensor
    curvature_std: torch.Tensor

    def __init__(self, config: ActionConfig):
        super().__init__()
        for name in ("accel_mean", "accel_std", "curvature_mean", "curvature_std"):
            self.register_buffer(name, torch.tensor(getattr(config, name)))

    def scale(self) -> Scale:
        """The scalars as plain numbers."""
        return Scale((self.accel_mean.item(), self.curvature_mean.item()), (self.accel_std.item(), self.curvature_std.item()))


class Backbone(nn.Module):
    """Vision tower and language model, by the release's names."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.visual = Vision(config.vision)
        self.language_model = Decoder(config.text)


class VLM(nn.Module):
    """The vision-language model: backbone and head, by the release's names."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.model = Backbone(config)
        self.lm_head = nn.Linear(config.text.hidden, self.model.language_model.embed_tokens.num_embeddings, bias=False)


class VLA(nn.Module):
    """Vision-language-action model. `encode`, `prefill`, `next_logits` and `velocity` are the whole of its forward arithmetic."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.vlm = VLM(config)
        self.expert = Decoder(config.expert)
        self.action_in_proj = ActionIn(config.projection, config.expert.hidden)
        self.action_out_proj = nn.Linear(config.expert.hidden, 2)
        self.action_space = ActionSpace(config.action)

    @property
    def vision(self) -> Vision:
        """The vision tower."""
        return self.vlm.model.visual

    @property
    def language(self) -> Decoder:
        """The language model without its head."""
        return self.vlm.model.language_model

    @property
    def device(self) -> torch.device:
        """Where the weights are: the language model's, which every part of a model has."""
        return self.language.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype."""
        return self.language.norm.weight.dtype

    def move_words_to_host(self) -> None:
        """Puts the word table into pinned host memory, where a GPU reads the few rows of a plan in place: exact, 1.3 GB of the 10B's 22."""
        table = self.language.embed_tokens
        table.weight = nn.Parameter(table.weight.detach().cpu().pin_memory(), requires_grad=False)

    def encode(self, patches: torch.Tensor, grids: Sequence[Grid]) -> Images:
        """Patches of all images in order -> image tokens [n, hidden] and DeepStack features, images of one grid batched together."""
        if grids.count(grids[0]) == len(grids):
            return self.vision(patches, grids[0])
        runs = [(grid, len(list(images))) for grid, images in groupby(grids)]
        parts = patches.split([h * w * n for (h, w), n in runs])
        outs = [self.vision(part, grid) for part, (grid, _) in zip(parts, runs, strict=True)]
        deep = [torch.cat(features) for features in zip(*(out[1] for out in outs), strict=True)]
        return torch.cat([out[0] for out in outs]), deep

    def embed(self, ids: torch.Tensor, image: torch.Tensor, features: torch.Tensor, deep: Sequence[torch.Tensor]):
        """Token embeddings [B, T, hidden] with image tokens put in, and DeepStack features spread over the same places.

        ids and image (mask) are [B, T]; features [n, hidden] in the order of the mask.
        """
        x = self.language.embed_tokens(ids)
        place = image[..., None].expand_as(x)
        x = x.masked_scatter(place, features.to(x.dtype))
        return x, [torch.zeros_like(x).masked_scatter(place, d.to(x.dtype)) for d in deep]

    def read(
        self, ids: torch.Tensor, positions: torch.Tensor, image: torch.Tensor, patches: torch.Tensor, grids: Sequence[Grid]
    ) -> tuple[torch.Tensor, list[KV]]:
        """Reads B sequences of one layout: ids and image (mask) [B, T], positions [3, B, T] -> hidden [B, T, hidden], keys and values.

        patches and grids: all images of all sequences, in order.
        """
        return self._read(ids, positions, image, self.encode(patches, grids))

    def _read(self, ids: torch.Tensor, positions: torch.Tensor, image: torch.Tensor, images: Images) -> tuple[torch.Tensor, list[KV]]:
        x, deepstack = self.embed(ids, image, *images)
        return self.language(x, positions, causal=True, deepstack=deepstack)

    def see(self, prompt: Prompt) -> Images:
        """What is seen in a prompt's pictures; prompts about the same pictures may share it.

        One picture after the other: each is seen in the same bits whatever stands beside it, so that a stream may keep what it saw.
        """
        patches = prompt.patches.to(self.device).split([h * w for h, w in prompt.grids])
        seen = [self.encode(part, (grid,)) for part, grid in zip(patches, prompt.grids, strict=True)]
        return torch.cat([tokens for tokens, _ in seen]), [torch.cat(deep) for deep in zip(*(deep for _, deep in seen), strict=True)]

    def prefill(self, prompt: Prompt, images: Images | None = None) -> tuple[torch.Tensor, list[KV]]:
        """Reads one prompt: logits of the next token [1, vocab] and keys and values per layer [1, kv_heads, T, d]. images: `see`'s."""
        ids, positions = prompt.ids[None].to(self.device), prompt.positions[:, None].to(self.device)
        hidden, kv = self._read(ids, positions, ids == prompt.image_id, self.see(prompt) if images is None else images)
        return self.logits(hidden[:, -1]), kv

    def extend(self, ids: torch.Tensor, positions: torch.Tensor, past: Sequence[KV]) -> tuple[torch.Tensor, list[KV]]:
        """Text read after a past: ids [R, n] at positions [3, R, n] -> logits of the next token [R, vocab], and past with what was read."""
        before, n = past[0][0].shape[2], ids.shape[1]
        seen = torch.ones(n, before + n, dtype=torch.bool, device=self.device).tril(before)
        x = self.language.embed_tokens(ids)
        hidden, new = self.language(x, positions, past=past, mask=seen.expand(len(ids), 1, -1, -1))
        return self.logits(hidden[:, -1]), appended(past, new)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states [..., hidden] -> logits [..., vocab]."""
        return self.vlm.lm_head(hidden)

    def next_logits(self, ids: torch.Tensor, position: int, past: Sequence[KV]) -> tuple[torch.Tensor, list[KV]]:
        """One token further: ids [S] at one position -> logits [S, vocab] and past with that token's keys and values."""
        x = self.language.embed_tokens(ids[:, None])
        positions = torch.full((3, *ids.shape, 1), position, device=self.device)
        hidden, new = self.language(x, positions, past=past)
        return self.logits(hidden[:, -1]), appended(past, new)

    def velocity(self, x: torch.Tensor, t: float, past: Sequence[KV], first_position: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The flow's velocity at x [R, F, 2] f32 and time t, given what was seen and said -> [R, F, 2] f32.

        past: keys and values [R, kv_heads, T, d]. first_position [R]: where the first action token stands. mask bool [R, T]: which keys
        a row may see. The F action tokens see each other without causal order.
        """
        rows, steps = x.shape[:2]
        embeds = self.action_in_proj(x, torch.full((rows,), t, device=x.device))
        positions = (first_position[:, None] + torch.arange(steps, device=x.device)).expand(3, -1, -1)
        allowed = nnf.pad(mask, (0, steps), value=True)[:, None, None].expand(-1, -1, steps, -1)
        hidden, _ = self.expert(embeds, positions, past=past, mask=allowed)
        return self.action_out_proj(hidden).float()


def appended(past: Sequence[KV], new: Sequence[KV]) -> list[KV]:
    """Keys and values with further ones behind them, layer by layer."""
    return [(torch.cat([old[0], kv[0]], 2), torch.cat([old[1], kv[1]], 2)) for old, kv in zip(past, new, strict=True)]
