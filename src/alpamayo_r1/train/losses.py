"""What training minimises, and the random weights that it begins with.

loss = cross-entropy of the reasoning (natural rows) + flow-matching error of the actions (all rows) + PATH * that error as a path
     + smooth L1 of a linear read-out of the future from the prompt's last state (natural rows; the read-out is thrown away)

Every quadratic form of the flow's error that depends on what the model sees has the same minimiser, the mean velocity. The error of the
path that the actions add up to weighs slow errors, which carry a car metres off, as much as the many fast ones that cancel.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import nn

from alpamayo_r1.core.checkpoint import build_meta
from alpamayo_r1.core.config import ActionConfig, ModelConfig, VisionConfig
from alpamayo_r1.core.flow import training_pair
from alpamayo_r1.core.images import normalise, patchify
from alpamayo_r1.core.types import CAMERAS, FRAMES
from alpamayo_r1.core.vla import VLA, ActionSpace, Fourier, Images
from alpamayo_r1.train.material import Layout, Rows

PATH = 0.02
"""Weight of the path's squared error in 1/m^2."""
LEFT, RIGHT = CAMERAS.index("camera_cross_left_120fov"), CAMERAS.index("camera_cross_right_120fov")
UNSEEN, STRIP = 0.25, 0.15
"""Share of scenes whose side cameras lack a strip, and the share of a picture's width that it takes at most."""
READOUT = slice(7, 64, 8)
"""Future steps of the auxiliary read-out: 0.8, 1.6 .. 6.4 s."""


def fresh_model(config: ModelConfig, device: torch.device, seed: int) -> VLA:
    """A model with random weights: normal(0, 0.02), residual outputs scaled by depth, norms one, the action head zero."""
    torch.manual_seed(seed)
    model = build_meta(config).to_empty(device=device)
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            residual = name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight", "blocks.linear_fc2.weight"))
            nn.init.normal_(parameter, std=0.02 / (math.sqrt(2 * config.text.layers) if residual else 1))
        else:
            nn.init.constant_(
                parameter, 1.0 if ("norm" in name and name.endswith("weight")) or (".trunk." in name and name.endswith("weight")) else 0.0
            )
    nn.init.zeros_(model.action_out_proj.weight)
    embed_numbers(model, config)
    model.action_space.load_state_dict(ActionSpace(config.action).state_dict())
    for module in model.modules():
        if isinstance(module, Fourier):
            module.freqs.copy_(Fourier(config.projection.features, config.projection.max_frequency).freqs)
    return model


def embed_numbers(model: VLA, config: ModelConfig) -> None:
    """Gives neighbouring history bins neighbouring embeddings, random mixtures of waves over the value: no bin is learnt alone."""
    bins, width = config.tokens.history_bins, config.text.hidden
    value = torch.linspace(0, 1, bins, device=model.device)[:, None]
    angle = 2 * math.pi * value * torch.logspace(-0.5, 2.3, width // 2, device=model.device)
    waves = torch.cat([angle.sin(), angle.cos()], 1)
    mixed = 0.02 * waves @ torch.randn(width, width, device=model.device) / math.sqrt(width / 2)
    first = config.tokens.first_history
    with torch.no_grad():
        model.language.embed_tokens.weight[first : first + bins] = mixed


class FlowLosses(nn.Module):
    """The model with the throw-away read-out, what it sees, and the error of its flow."""

    def __init__(self, model: VLA, layout: Layout, draws: int):
        super().__init__()
        self.model, self.layout, self.draws = model, layout, draws
        self.readout = nn.Linear(model.config.text.hidden, 16).to(model.device)
        self.patches = jittered

    def compile(self) -> None:
        """Compiles the pictures' way in and the blocks of the model: the whole of it would take minutes."""
        self.patches = torch.compile(jittered, dynamic=False)
        for block in (*self.model.vision.blocks, *self.model.language.layers, *self.model.expert.layers):
            block.compile(dynamic=False)

    def loss(self, rows: Any, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """What is minimised on a batch, and its parts f32[n]: of who inherits."""
        raise NotImplementedError

    def see(self, frames: torch.Tensor, generator: torch.Generator) -> Images:
        """Image tokens and DeepStack features of pictures u8 (B, I, 3, h, w), whose brightness, contrast and noise differ per scene."""
        device, kind = frames.device, frames.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        drawn = torch.rand(5, len(frames), 1, 1, 1, 1, generator=generator, device=device)
        noise = torch.randn(frames.shape, generator=generator, device=device, dtype=dtype)
        return self.model.vision(self.patches(frames, drawn, noise, self.model.config.vision), self.layout.grid)

    def flow_error(self, kv, seen, first, action, noise, t):
        """The flow's error [B, K, 64, 2]: K draws per row side by side, each seeing the row's prompt and words and itself.

        seen, first [B]: how many keys a row has of prompt and words, and the position that comes after them.
        """
        rows, k, steps = noise.shape[:3]
        x, velocity = training_pair(action[:, None], noise, t[..., None, None])
        embeds = self.model.action_in_proj(x.flatten(1, 2), t[..., None].expand(-1, -1, steps).flatten(1)).to(kv[0][0].dtype)
        keys = torch.arange(kv[0][0].shape[2], device=x.device)
        past = (keys < seen[:, None])[:, None, None].expand(-1, -1, k * steps, -1)
        draw = torch.arange(k * steps, device=x.device) // steps
        own = (draw[:, None] == draw).expand(rows, 1, -1, -1)
        place = first[:, None] + torch.arange(k * steps, device=x.device) % steps
        hidden, _ = self.model.expert(embeds, place.expand(3, -1, -1), past=kv, mask=torch.cat([past, own], -1))
        return (self.model.action_out_proj(hidden).float() - velocity.flatten(1, 2)).view_as(noise)


class Losses(FlowLosses):
    """The model with its read-out on rows of one prompt."""

    ids: torch.Tensor
    positions: torch.Tensor
    image: torch.Tensor

    def __init__(self, model: VLA, layout: Layout, draws: int, words: int):
        super().__init__(model, layout, draws)
        following = (layout.next_position + torch.arange(words)).expand(3, -1)
        fixed = {"ids": layout.ids, "positions": torch.cat([layout.positions, following], 1), "image": layout.image.nonzero()[:, 0]}
        for name, tensor in fixed.items():
            self.register_buffer(name, tensor.to(model.device), persistent=False)

    def loss(self, rows: Rows, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """What is minimised, and its parts f32[4]: language, flow, path in m^2, read-out."""
        count, device = len(rows.length), rows.length.device
        noise = torch.randn(count, self.draws, 64, 2, device=device, generator=generator)
        t = torch.rand(count, self.draws, device=device, generator=generator)
        with torch.autocast(device.type, torch.bfloat16):
            language, flow, path, readout = parts = self(rows, noise, t, generator)
        return language + flow + PATH * path + readout, torch.stack(parts).detach()

    def forward(self, rows: Rows, noise: torch.Tensor, t: torch.Tensor, generator: torch.Generator):
        """The four losses of one batch at noise [B, K, 64, 2] and t [B, K]."""
        prompt, said, length, natural = len(self.ids), rows.words.shape[1], rows.length, rows.natural
        hidden, kv = self.read(rows, generator)
        logits = self.model.logits(hidden[:, prompt - 1 : prompt - 1 + said])
        counted = (torch.arange(said, device=length.device) < length[:, None]) & natural[:, None]
        nll = nnf.cross_entropy(logits.float().flatten(0, 1), rows.words.flatten(), reduction="none").view_as(rows.words)
        language = (nll * counted).sum() / counted.sum().clamp_min(1)
        error = self.flow_error(kv, prompt + length, self.layout.next_position + length, rows.action, noise, t)
        path = path_error(error, first_speed(rows.future, self.model.config.action), self.model.config.action)
        readout = read_out_error(self.readout(hidden[:, prompt - 1].float()), rows.future, natural)
        return language, error.square().mean(), path, readout

    def read(self, rows: Rows, generator: torch.Generator):
        """Hidden states, keys and values of the prompt and the words of rows."""
        count = len(rows.length)
        history = self.layout.history
        prompt = self.ids.expand(count, -1)
        ids = torch.cat([prompt[:, : history.start], rows.history_ids, prompt[:, history.stop :], rows.words], 1)
        features, deep = self.see(rows.frames, generator)
        x = self.model.language.embed_tokens(ids).to(features.dtype)

        def spread(base: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
            return base.index_copy(1, self.image, values.view(count, -1, values.shape[-1]).to(base.dtype))

        zeros = torch.zeros_like(x)
        return self.model.language(
            spread(x, features),
            self.positions[:, None].expand(-1, count, -1),
            causal=True,
            deepstack=[spread(zeros, d) for d in deep],
        )


def read_out_error(guess: torch.Tensor, future: torch.Tensor, natural: torch.Tensor) -> torch.Tensor:
    """Smooth L1 of a read-out [B, 16] of the future [B, 64, 3] at READOUT, over natural rows."""
    off = nnf.smooth_l1_loss(guess.view(len(guess), -1, 2), future[:, READOUT, :2] / 10, reduction="none", beta=0.1).mean((1, 2))
    return (off * natural).sum() / natural.sum().clamp_min(1)


def first_speed(future: torch.Tensor, action: ActionConfig) -> torch.Tensor:
    """Mean speed in m/s over the first step of futures [B, 64, 3]: what history shows, and a twentieth of a second's acceleration."""
    return future[:, 0, :2].norm(dim=-1) / action.dt


def path_error(error: torch.Tensor, speed: torch.Tensor, action: ActionConfig) -> torch.Tensor:
    """Mean squared displacement in m^2 that errors of normalised actions [B, K, 64, 2] add up to for a car at speed [B] m/s.

    along_t = dt sum_{j<=t} dt sum_{i<=j} da_i          across_t = v dt sum_{j<=t} v dt sum_{i<=j} dkappa_i

    v is at least 3 m/s: curvature is learnt at a standstill too, for when the car has started.
    """
    step = speed.clamp_min(3.0)[:, None, None] * action.dt
    along = (error[..., 0] * (action.accel_std * action.dt**2)).cumsum(-1).cumsum(-1)
    across = (error[..., 1] * action.curvature_std * step**2).cumsum(-1).cumsum(-1)
    return (along.square() + across.square()).mean()


def jittered(frames: torch.Tensor, drawn: torch.Tensor, noise: torch.Tensor, vision: VisionConfig) -> torch.Tensor:
    """Pictures u8 (B, I, 3, h, w) as patches, brightness, contrast and noise differing per scene as with cameras and video compression.

    In a share UNSEEN of the scenes the side cameras do not see the strips that are nearest to straight ahead, as other cars' may not.
    drawn: uniform (5, B, 1, 1, 1, 1). noise: normal, of the pictures' shape and of the dtype that the patches shall have.
    """
    gain, lift, grain = 0.9 + 0.2 * drawn[0], 0.12 * drawn[1] - 0.06, 0.03 * drawn[2]
    width, camera = frames.shape[-1], torch.arange(frames.shape[1], device=frames.device)[:, None, None, None] // FRAMES
    across = (torch.arange(width, device=frames.device) + 0.5) / width
    inwards = torch.where(camera == LEFT, 1 - across, torch.where(camera == RIGHT, across, 1.0))
    seen = inwards > drawn[3] * STRIP * (drawn[4] < UNSEEN)
    pixels = torch.where(seen, normalise(frames), 0.0) * gain + lift + grain * noise
    return patchify(pixels.to(noise.dtype).flatten(0, 1), vision)
