"""The training loop of the bundled model: one GPU, a budget of minutes, everything drawn from the world on the fly.

loss = cross-entropy of the reasoning (natural rows) + flow-matching error of the actions (all rows)
     + 0.5 * smooth L1 of a linear read-out of the future from the prompt's last state (natural rows; the read-out is thrown away)
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as nnf
from torch import nn

from alpamayo_r1.checkpoint import build_meta, save_checkpoint
from alpamayo_r1.config import ModelConfig, read_config
from alpamayo_r1.flow import training_pair
from alpamayo_r1.images import normalise, patchify, resize, target_size
from alpamayo_r1.prompt import chat_text, rope_positions
from alpamayo_r1.train.presets import write_skeleton
from alpamayo_r1.train.stream import Chunk, StreamConfig, chunks
from alpamayo_r1.types import CAMERAS, DT, FRAMES
from alpamayo_r1.vla import VLA, ActionSpace, Fourier
from alpamayo_r1.vocab import Vocabulary, load_vocabulary
from alpamayo_r1.world.render import render

RENDER_SIZE = (448, 252)
"""Width and height of training pictures: 16:9 like the clips, then resized like them."""
READOUT = tuple(range(7, 64, 8))
"""Future steps of the auxiliary read-out: 0.8, 1.6 .. 6.4 s."""


@dataclass(frozen=True)
class TrainConfig:
    """A run. `minutes` is the budget; the learning rate falls to zero at its end."""

    minutes: float = 9.0
    batch: int = 128
    rate: float = 1e-3
    muon: bool = False
    decay: float = 0.05
    warmup: int = 200
    draws: int = 4  # flow-matching draws per scene
    seed: int = 0
    workers: int = 12
    compile: bool = True
    log_every: int = 50
    max_steps: int = 10**9


@dataclass(frozen=True)
class Layout:
    """The one prompt that all training rows share, up to the 48 history tokens."""

    ids: torch.Tensor  # (T,)
    positions: torch.Tensor  # (3, T)
    next_position: int
    history: slice  # where the history tokens stand
    image: torch.Tensor  # (T,) bool
    size: tuple[int, int]  # height, width that the model sees
    grid: tuple[int, int]


def make_layout(config: ModelConfig, vocabulary: Vocabulary) -> Layout:
    """The prompt layout for 4 x 4 frames of RENDER_SIZE."""
    height, width = target_size(RENDER_SIZE[1], RENDER_SIZE[0], config.min_pixels, config.max_pixels)
    grid = (height // config.vision.patch, width // config.vision.patch)
    images = len(CAMERAS) * FRAMES
    ids = torch.tensor(vocabulary.encode(chat_text([grid[0] * grid[1] // 4] * images, config.tokens.history_tokens)))
    image_id = vocabulary.id(config.image_token)
    positions, following = rope_positions(ids, [grid] * images, image_id)
    first = int((ids == vocabulary.ids["traj_history"]).nonzero()[0])
    return Layout(ids, positions, following, slice(first, first + config.tokens.history_tokens), ids == image_id, (height, width), grid)


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
    model.action_space.load_state_dict(ActionSpace(config.action).state_dict())
    for module in model.modules():
        if isinstance(module, Fourier):
            module.freqs.copy_(Fourier(config.projection.features, config.projection.max_frequency).freqs)
    return model


class Losses(nn.Module):
    """The model with the throw-away read-out; forward gives the three losses."""

    def __init__(self, model: VLA, layout: Layout, draws: int):
        super().__init__()
        self.model, self.layout, self.draws = model, layout, draws
        self.readout = nn.Linear(model.config.text.hidden, 2 * len(READOUT)).to(model.device)

    def forward(self, patches, ids, positions, image, words, length, natural, action, future, noise, t):
        """All rows of one batch; see Chunk. noise [B, K, 64, 2], t [B, K]."""
        rows, prompt = len(ids), len(self.layout.ids)
        grids = [self.layout.grid] * (rows * len(CAMERAS) * FRAMES)
        hidden, kv = self.model.read(ids, positions, image, patches, grids)
        said = words.shape[1]
        logits = self.model.logits(hidden[:, prompt - 1 : prompt - 1 + said])
        counted = (torch.arange(said, device=ids.device) < length[:, None]) & natural[:, None]
        nll = nnf.cross_entropy(logits.float().flatten(0, 1), words.flatten(), reduction="none").view_as(words)
        language = (nll * counted).sum() / counted.sum().clamp_min(1)
        flow = self.flow(kv, prompt + length, length, action, noise, t)
        guess = self.readout(hidden[:, prompt - 1].float()).view(rows, -1, 2)
        off = nnf.smooth_l1_loss(guess, future[:, list(READOUT), :2] / 10, reduction="none", beta=0.1).mean((1, 2))
        readout = (off * natural).sum() / natural.sum().clamp_min(1)
        return language, flow, readout

    def flow(self, kv, seen, length, action, noise, t):
        """Flow-matching error: K draws per row side by side, each seeing the row's prompt and words and itself."""
        rows, k, steps = noise.shape[:3]
        x, velocity = training_pair(action[:, None], noise, t[..., None, None])
        embeds = self.model.action_in_proj(x.flatten(1, 2), t[..., None].expand(-1, -1, steps).flatten(1))
        keys = torch.arange(kv[0][0].shape[2], device=x.device)
        past = (keys < seen[:, None])[:, None, None].expand(-1, -1, k * steps, -1)
        own = torch.block_diag(*[torch.ones(steps, steps, dtype=torch.bool, device=x.device)] * k).expand(rows, 1, -1, -1)
        place = self.layout.next_position + length[:, None] + torch.arange(steps, device=x.device).repeat(k)
        hidden, _ = self.model.expert(embeds, place.expand(3, -1, -1), past=kv, mask=torch.cat([past, own.bool()], -1))
        error = (self.model.action_out_proj(hidden).float() - velocity.flatten(1, 2)) ** 2
        return error.mean()


def prepare(chunk: Chunk, layout: Layout, config: ModelConfig, device: torch.device, compile: bool, generator: torch.Generator):
    """A chunk on the device as the arguments of Losses.forward, but for noise and t: rendered, resized, jittered, cut into patches."""
    scene = chunk.scene.to(device)
    rows = len(chunk.length)
    step = torch.full((rows,), FRAMES - 1, device=device)
    options = {"supersample": 1, "compile": compile, "chunk": min(64, rows)} if device.type == "cuda" else {"supersample": 1}
    frames = render(scene, step, width=RENDER_SIZE[0], height=RENDER_SIZE[1], **options)
    pixels = jitter(normalise(resize(frames.flatten(0, 2), *layout.size)), rows, generator)
    patches = patchify(pixels, config.vision)
    words, length = chunk.words.to(device), chunk.length.to(device)
    ids = layout.ids.to(device).repeat(rows, 1)
    ids[:, layout.history] = chunk.history_ids.to(device)
    ids = torch.cat([ids, words], 1)
    following = layout.next_position + torch.arange(words.shape[1])
    positions = torch.cat([layout.positions, following.expand(3, -1)], 1).to(device)[:, None].expand(-1, rows, -1)
    image = nnf.pad(layout.image, (0, words.shape[1])).to(device).expand(rows, -1)
    rest = (chunk.natural, chunk.action, chunk.future)
    return patches, ids, positions, image, words, length, *(value.to(device) for value in rest)


def jitter(pixels: torch.Tensor, rows: int, generator: torch.Generator) -> torch.Tensor:
    """Brightness, contrast and noise that differ per scene, as cameras and video compression do. pixels [rows * images, 3, h, w]."""
    images = len(pixels) // rows

    def per_scene(low: float, high: float) -> torch.Tensor:
        drawn = low + (high - low) * torch.rand(rows, generator=generator, device=pixels.device)
        return drawn.repeat_interleave(images)[:, None, None, None]

    noisy = pixels * per_scene(0.9, 1.1) + per_scene(-0.06, 0.06)
    return noisy + per_scene(0.0, 0.03) * torch.randn(pixels.shape, generator=generator, device=pixels.device)


def split_rows(chunk: Chunk, batch: int) -> Iterator[Chunk]:
    """A chunk in pieces of `batch` rows."""
    for first in range(0, len(chunk.length) - batch + 1, batch):
        rows = slice(first, first + batch)
        yield Chunk(*(getattr(chunk, name)[rows] for name in Chunk.__dataclass_fields__))


def optimisers(losses: Losses, config: TrainConfig, device: torch.device) -> list[torch.optim.Optimizer]:
    """AdamW on everything, or Muon on the matrices inside the stacks and AdamW on the rest."""
    inner, plain, bare = [], [], []
    for name, parameter in losses.named_parameters():
        stacked = parameter.ndim == 2 and (".layers." in name or ".blocks." in name)
        (inner if stacked and config.muon else plain if parameter.ndim >= 2 else bare).append(parameter)
    groups = [{"params": plain, "weight_decay": config.decay}, {"params": bare, "weight_decay": 0.0}]
    made: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=config.rate, betas=(0.9, 0.95), fused=device.type == "cuda")]
    if inner:
        made.append(torch.optim.Muon(inner, lr=config.rate, weight_decay=config.decay, adjust_lr_fn="match_rms_adamw"))
    return made


def schedule(step: int, elapsed: float, config: TrainConfig) -> float:
    """Share of the peak rate: a linear rise over `warmup` steps, flat to a third of the budget, then linear to zero at its end."""
    share = max(elapsed / (60 * config.minutes), step / config.max_steps)
    return min(1.0, (step + 1) / config.warmup) * max(0.0, min(1.0, (1 - share) / 0.67))


def train(out: Path, preset: str, config: TrainConfig, stream: StreamConfig, device: torch.device, resume: Path | None = None) -> VLA:
    """Trains a preset and writes `out`: the checkpoint in bf16, `train.jsonl` with the curves, `state.pt` to go on from."""
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    write_skeleton(out, preset)
    shape = read_config(out)
    vocabulary = load_vocabulary(out / shape.vlm, shape.tokens)
    layout = make_layout(shape, vocabulary)
    losses = Losses(fresh_model(shape, device, config.seed), layout, config.draws)
    step, seed = 0, stream.first_seed
    if resume is not None:
        state = torch.load(resume, map_location=device)
        losses.load_state_dict(state["losses"])
        step, seed = state["step"], state["next_seed"]
    torch.backends.cuda.matmul.allow_tf32 = True
    optimiser = optimisers(losses, config, device)
    generator = torch.Generator(device=device).manual_seed(config.seed + step)
    if config.compile:
        for block in (*losses.model.vision.blocks, *losses.model.language.layers, *losses.model.expert.layers):
            block.compile(dynamic=False)
    source = chunks(StreamConfig(**{**asdict(stream), "first_seed": seed}), shape, str(out), config.workers)
    log = (out / "train.jsonl").open("a")
    print(f"{sum(p.numel() for p in losses.model.parameters()) / 1e6:.2f} M parameters, prompt of {len(layout.ids)} tokens", flush=True)
    first, sums, marked, elapsed = step, torch.zeros(4, device=device), time.monotonic(), 0.0
    while elapsed < 60 * config.minutes and step - first < config.max_steps:
        chunk = next(source)
        for part in split_rows(chunk, config.batch):
            rate = config.rate * schedule(step - first, elapsed, config)
            for one in optimiser:
                for group in one.param_groups:
                    group["lr"] = rate
            arguments = prepare(part, layout, shape, device, config.compile, generator)
            noise = torch.randn(config.batch, config.draws, 64, 2, device=device, generator=generator)
            t = torch.rand(config.batch, config.draws, device=device, generator=generator)
            with torch.autocast(device.type, torch.bfloat16):
                language, flow, readout = losses(*arguments, noise, t)
                loss = language + flow + 0.5 * readout
            loss.backward()
            norm = nn.utils.clip_grad_norm_(losses.parameters(), 1.0)
            for one in optimiser:
                one.step()
                one.zero_grad(set_to_none=True)
            sums += torch.stack([language.detach(), flow.detach(), readout.detach(), norm])
            step += 1
            seed += config.batch
            if step % config.log_every == 0:
                means = (sums / config.log_every).tolist()
                now = time.monotonic()
                elapsed = now - began
                line = {
                    "step": step,
                    "seconds": round(elapsed, 1),
                    "language": means[0],
                    "flow": means[1],
                    "readout": means[2],
                    "gradient": means[3],
                    "rate": rate,
                    "scenes_per_s": config.batch * config.log_every / (now - marked),
                }
                log.write(json.dumps(line) + "\n")
                log.flush()
                print(" ".join(f"{k} {v:.4g}" for k, v in line.items()), flush=True)
                sums.zero_()
                marked = now
            elapsed = time.monotonic() - began
            if elapsed >= 60 * config.minutes or step - first >= config.max_steps:
                break
    torch.save({"losses": losses.state_dict(), "step": step, "next_seed": seed}, out / "state.pt")
    model = losses.model.eval()
    finish(out, model, config, stream, step - first, elapsed)
    return model


def finish(out: Path, model: VLA, config: TrainConfig, stream: StreamConfig, steps: int, elapsed: float) -> None:
    """Writes the checkpoint in bf16, shards of at most 15 MB, and the run's settings."""
    stored = build_meta(model.config).to_empty(device="cpu").to(torch.bfloat16)
    stored.load_state_dict(model.state_dict())
    save_checkpoint(out, stored, (out / "config.json").read_text(), shard_bytes=15 * 2**20)
    run = {"train": asdict(config), "stream": asdict(stream), "steps": steps, "seconds": round(elapsed, 1), "dt": DT}
    (out / "run.json").write_text(json.dumps(run, indent=2) + "\n")
