"""The training loop of the bundled model: one GPU, a budget of minutes, everything drawn from the world on the fly.

loss = cross-entropy of the reasoning (natural rows) + flow-matching error of the actions (all rows) + PATH * that error as a path
     + smooth L1 of a linear read-out of the future from the prompt's last state (natural rows; the read-out is thrown away)

Every quadratic form of the flow's error that depends on what the model sees has the same minimiser, the mean velocity. The error of the
path that the actions add up to weighs slow errors, which carry a car metres off, as much as the many fast ones that cancel.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import nn

from alpamayo_r1.core.checkpoint import build_meta, load_model, save_checkpoint
from alpamayo_r1.core.config import ActionConfig, ModelConfig, VisionConfig, read_config
from alpamayo_r1.core.family import ORDER
from alpamayo_r1.core.files import write_text, written_whole
from alpamayo_r1.core.flow import training_pair
from alpamayo_r1.core.images import normalise, patchify, resize, target_size
from alpamayo_r1.core.prompt import chat_text, images_text, plan_text, question_text, rope_positions
from alpamayo_r1.core.types import CAMERAS, FRAMES
from alpamayo_r1.core.vla import VLA, ActionSpace, Fourier, Images
from alpamayo_r1.core.vocab import Vocabulary, load_vocabulary
from alpamayo_r1.train.feed import Feed
from alpamayo_r1.train.presets import write_skeleton
from alpamayo_r1.train.step import Group, Step
from alpamayo_r1.train.stream import Chunk, StreamConfig, chunks
from alpamayo_r1.world.render import render
from alpamayo_r1.world.view import Metres

RENDER_SIZE = (224, 126)
"""Width and height of training pictures: 16:9 like the clips, then resized like them."""
PATH = 0.02
"""Weight of the path's squared error in 1/m^2."""
ELSEWHERE = (0.3, 0.15, 0.3)
"""Metres along, beside and above that the cameras of other cars are taken to be from the nominal places, at most."""
READOUT = slice(7, 64, 8)
"""Future steps of the auxiliary read-out: 0.8, 1.6 .. 6.4 s."""


@dataclass(frozen=True)
class TrainConfig:
    """A run. `minutes` is the budget; the learning rate falls to zero at its end.

    Scenes are rendered `fresh` at a time into a pool of the latest `pool` scenes, and each is trained on about `reuse` times.
    Numbers count per process.

    Raises:
        ValueError: a batch larger than a round.
    """

    minutes: float = 9.0
    batch: int = 64
    fresh: int = 256
    reuse: int = 4
    pool: int = 8192
    rate: float = 1.5e-3
    decay: float = 0.05
    warmup: int = 100
    draws: int = 4  # flow-matching draws per scene
    seed: int = 0
    workers: int = 12
    compile: bool = True  # torch.compile the blocks of the model and the renderer (on a GPU), which takes a minute
    graphs: bool = True  # replay a step as graphs (on a GPU)
    save_every: float = 90.0  # seconds
    own_pool: int = 12288  # scenes of those that the model drove to itself, where `train` is given a source of them
    own_share: float = 0.5  # of a batch
    elsewhere: float = 0.0  # share of the stream's pieces whose cameras stand elsewhere than the nominal ones
    print_every: int = 10  # rounds
    max_rounds: int = 10**9

    def __post_init__(self):
        if self.reuse * self.fresh < self.batch:
            raise ValueError(
                f"batch is {self.batch}, but a round of {self.fresh} fresh scenes, each used {self.reuse} times, has no more than "
                f"{self.reuse * self.fresh}: lower batch or raise reuse"
            )


@dataclass(frozen=True)
class Layout:
    """The one prompt that all training rows share, up to the 48 history tokens."""

    ids: torch.Tensor  # (T,)
    positions: torch.Tensor  # (3, T)
    next_position: int
    history: slice  # where the history tokens stand; nowhere in a question
    image: torch.Tensor  # (T,) bool
    size: tuple[int, int]  # height, width that the model sees
    grid: tuple[int, int]


def make_layout(config: ModelConfig, vocabulary: Vocabulary, navigation: str | None = None, question: str | None = None) -> Layout:
    """The prompt layout for 4 x 4 frames of RENDER_SIZE: to plan, with a navigation text or without, or to answer a question."""
    height, width = target_size(RENDER_SIZE[1], RENDER_SIZE[0], config.min_pixels, config.max_pixels)
    grid = (height // config.vision.patch, width // config.vision.patch)
    images = len(CAMERAS) * FRAMES
    family = config.family
    headers = family.headers([ORDER.index(camera) for camera in CAMERAS for _ in range(FRAMES)]) if family.names is not None else ()
    pictures = images_text([grid[0] * grid[1] // 4] * images, headers)
    if question is not None:
        text = chat_text(pictures, question_text(question), family.answering(), family)
    else:
        text = chat_text(pictures, plan_text(config.tokens.history_tokens, family, navigation), family.planning, family)
    ids = torch.tensor(vocabulary.encode(text))
    image_id = vocabulary.id(config.image_token)
    positions, following = rope_positions(ids, [grid] * images, image_id)
    places = (ids == vocabulary.ids["traj_history"]).nonzero()[:, 0].tolist()
    history = slice(places[0], places[0] + len(places)) if places else slice(0, 0)
    return Layout(ids, positions, following, history, ids == image_id, (height, width), grid)


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

    def see(self, frames: torch.Tensor, generator: torch.Generator) -> Images:
        """Image tokens and DeepStack features of pictures u8 (B, I, 3, h, w), whose brightness, contrast and noise differ per scene."""
        device, kind = frames.device, frames.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        drawn = torch.rand(3, len(frames), 1, 1, 1, 1, generator=generator, device=device)
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


@dataclass(frozen=True)
class Rows:
    """Rendered scenes on the device, as the model's resolution sees them; see Chunk."""

    frames: torch.Tensor  # (N, 16, 3, h, w) u8
    history_ids: torch.Tensor
    words: torch.Tensor
    length: torch.Tensor
    natural: torch.Tensor
    action: torch.Tensor
    future: torch.Tensor

    def map(self, f) -> Rows:
        """f on every tensor."""
        return type(self)(*(f(getattr(self, name)) for name in self.__dataclass_fields__))


def begin_folder(out: Path, preset: str, group: Group, device: torch.device) -> None:
    """The first process writes a checkpoint folder without weights; the others wait for it."""
    if group.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        write_skeleton(out, preset)
    group.agree(0.0, device)


C = TypeVar("C", bound=Chunk)
R = TypeVar("R", bound=Rows)


def render_rows(chunk: Chunk, layout: Layout, device: torch.device, fused: bool = False, aside: Mapping[str, Metres] | None = None) -> Rows:
    """Renders the scenes of a chunk and brings all of it to the device. fused: with torch.compile. aside: as in `render_at`."""
    scene, rows = chunk.scene.to(device), len(chunk.length)
    step = torch.full((rows,), FRAMES - 1, device=device)
    whole = rows if device.type == "cuda" else None
    how = {"supersample": 1, "chunk": whole, "compile": fused, "dense": False, "aside": aside}
    frames = render(scene, step, width=RENDER_SIZE[0], height=RENDER_SIZE[1], **how)
    return rows_of(frames, chunk, layout, device)


def rows_of(frames: torch.Tensor, chunk: Chunk, layout: Layout, device: torch.device) -> Rows:
    """Pictures u8 (B, C, K, 3, h, w) on the device with the rest of a chunk."""
    frames = resize(frames.flatten(0, 2), *layout.size).unflatten(0, (len(chunk.length), -1))
    rest = ("history_ids", "words", "length", "natural", "action", "future")
    return Rows(frames, *(getattr(chunk, name).to(device) for name in rest))


class Pool:
    """The latest scenes, as a ring."""

    def __init__(self, size: int):
        self.size, self.written = size, 0
        self.rows: Rows | None = None

    def add(self, new: Rows) -> None:
        """Writes rows over the oldest ones."""
        count = len(new.length)
        if self.rows is None:
            self.rows = new.map(lambda x: torch.empty(self.size, *x.shape[1:], dtype=x.dtype, device=x.device))
        at = (torch.arange(count, device=new.length.device) + self.written) % self.size
        for name in new.__dataclass_fields__:
            getattr(self.rows, name)[at] = getattr(new, name)
        self.written += count

    def draw(self, count: int, generator: torch.Generator) -> Rows:
        """Random rows. Raises ValueError where there are none."""
        if self.rows is None:
            raise ValueError("the pool is empty, expected rows: add some first")
        at = torch.randint(min(self.written, self.size), (count,), generator=generator, device=generator.device)
        return self.rows.map(lambda x: x[at])


def joined_rows(a: Rows, b: Rows) -> Rows:
    """Both in one."""
    return Rows(*(torch.cat([getattr(a, name), getattr(b, name)]) for name in Rows.__dataclass_fields__))


def jittered(frames: torch.Tensor, drawn: torch.Tensor, noise: torch.Tensor, vision: VisionConfig) -> torch.Tensor:
    """Pictures u8 (B, I, 3, h, w) as patches, brightness, contrast and noise differing per scene as with cameras and video compression.

    drawn: uniform (3, B, 1, 1, 1, 1). noise: normal, of the pictures' shape and of the dtype that the patches shall have.
    """
    gain, lift, grain = 0.9 + 0.2 * drawn[0], 0.12 * drawn[1] - 0.06, 0.03 * drawn[2]
    pixels = normalise(frames) * gain + lift + grain * noise
    return patchify(pixels.to(noise.dtype).flatten(0, 1), vision)


def split_rows(chunk: C, count: int) -> Iterator[C]:
    """A chunk in pieces of `count` rows. Raises ValueError for one with fewer."""
    if count > len(chunk.length):
        raise ValueError(f"a chunk of the stream has {len(chunk.length)} scenes, but {count} are rendered at a time: raise its chunk")
    for first in range(0, len(chunk.length) - count + 1, count):
        rows = slice(first, first + count)
        yield type(chunk)(*(getattr(chunk, name)[rows] for name in chunk.__dataclass_fields__))


def schedule(step: int, share: float, config: TrainConfig) -> float:
    """Share of the peak rate: a linear rise over `warmup` steps, flat for a third of the budget, then linear to zero at its end."""
    return min(1.0, (step + 1) / config.warmup) * max(0.0, min(1.0, (1 - share) / 0.67))


Source = Callable[[VLA, float], Rows | None]
"""Further rows for the model as it is now and the share of the budget that is used; None: none yet."""


def train(
    out: Path,
    preset: str,
    config: TrainConfig,
    stream: StreamConfig,
    device: torch.device,
    resume: Path | None = None,
    own: Source | None = None,
) -> None:
    """Trains a preset and writes `out`: the checkpoint in bf16, `train.jsonl` with the curves, `state.pt` to go on from.

    own: asked for rows time and again, from the first ones on a share of every batch (`drive.teach` drives the model for them).
    Under torchrun every process takes one GPU and the first one writes.
    """
    began = time.monotonic()
    group = Group.join(device)
    begin_folder(out, preset, group, device)
    shape = read_config(out)
    vocabulary = load_vocabulary(out / shape.vlm, shape.tokens, shape.family)
    layout = make_layout(shape, vocabulary)
    losses = Losses(fresh_model(shape, device, config.seed), layout, config.draws, stream.words)
    step, seed = (0, stream.first_seed) if resume is None else go_on(losses, resume, stream.first_seed)
    source = chunks(replace(stream, first_seed=seed), shape, str(out), config.workers, group.rank, group.size)
    fused = config.compile and device.type == "cuda"
    lessons = None if own is None else Feed(lambda share: own(losses.model, share), device)
    draw = np.random.default_rng([config.seed, group.rank, step])

    def render_piece(chunk: Chunk) -> Rows:
        return render_rows(chunk, layout, device, fused, elsewhere(draw) if draw.random() < config.elsewhere else None)

    run = Run(out, losses, config, stream, group, step, seed, began)
    run.go(rendering(source, config.fresh, render_piece), lessons, ("language", "flow", "path_m2", "readout"))


def elsewhere(draw: np.random.Generator) -> dict[str, Metres]:
    """How far the cameras of another car, whose pictures are re-rendered for the nominal rig, stand from its places."""
    return {name: tuple(draw.uniform(-1, 1, 3) * ELSEWHERE) for name in CAMERAS}


def rendering(source: Iterator[C], count: int, render_all: Callable[[C], R]) -> Callable[[], tuple[R, float]]:
    """Renders the next `count` scenes of a stream per call, and says how many seconds it waited for them."""
    pieces = (part for chunk in source for part in split_rows(chunk, count))

    def make() -> tuple[R, float]:
        begin = time.monotonic()
        piece = next(pieces)
        waited = time.monotonic() - begin
        return render_all(piece), waited

    return make


class Run:
    """A run of the losses' training in rounds: a piece of the stream is rendered into the pool, then steps are taken on the pools' rows.

    The model's own rows come from a thread whenever they are ready; the rounds of all processes are alike.
    """

    def __init__(
        self, out: Path, losses: FlowLosses, config: TrainConfig, stream: StreamConfig, group: Group, step: int, seed: int, began: float
    ):
        self.out, self.losses, self.config, self.stream, self.group, self.began = out, losses, config, stream, group, began
        self.step, self.first_step, self.seed = step, step, seed
        self.device = losses.model.device
        torch.backends.cuda.matmul.allow_tf32 = True
        if config.compile and self.device.type == "cuda":
            losses.compile()
        self.generator = torch.Generator(device=self.device).manual_seed(config.seed + 1000 * group.rank + step)
        self.learn = Step(losses, losses.loss, group, self.generator, config.decay, config.graphs)
        self.pool, self.driven = Pool(config.pool), Pool(config.own_pool)

    def go(self, make: Callable[[], tuple[Rows, float]], lessons: Feed[Rows] | None, names: Sequence[str]) -> None:
        """Trains until the budget is used. make: `rendering`'s. names: of the losses' parts."""
        config, saved = self.config, 0.0
        log = (self.out / "train.jsonl").open("a", encoding="utf-8", newline="\n") if self.group.rank == 0 else None
        steps = round(config.reuse * config.fresh / (config.batch * (1 if lessons is None else 1 - config.own_share)))
        for number in range(config.max_rounds):
            begin = time.monotonic()
            share = max(self.group.agree(begin - self.began, self.device) / (60 * config.minutes), number / config.max_rounds)
            if share >= 1:
                break
            rows, waited = make()
            self.pool.add(rows)
            self.seed += config.fresh * self.group.size
            self._take(lessons, share)
            rendered = time.monotonic()
            sums, rate = self._learn(steps, share)
            if number == 0 and lessons is not None:
                lessons.start()  # after a step was recorded: whoever waits for all of a device's work ends a recording
            if log is None:
                continue
            means, now = sums.tolist(), time.monotonic()
            line = {"step": self.step, "seconds": now - self.began} | dict(zip((*names, "gradient"), means, strict=True))
            line |= {"rate": rate, "rows": self.pool.written, "own_rows": self.driven.written, "wait_s": waited}
            line |= {"render_s": rendered - begin - waited, "train_s": now - rendered}
            log.write(json.dumps({key: round(value, 5) for key, value in line.items()}) + "\n")
            log.flush()
            if number % config.print_every == 0:
                print(" ".join(f"{key} {value:.4g}" for key, value in line.items()), flush=True)
            if now - self.began - saved > config.save_every:
                self._save()
                saved = now - self.began
        if lessons is not None:
            lessons.stop()
        if log is not None:
            self._save()
            log.close()

    def _take(self, lessons: Feed[Rows] | None, share: float) -> None:
        """Puts the model's own rows into their pool, where some are ready."""
        if lessons is None:
            return
        lessons.share = share
        own = lessons.take()
        if own is not None:
            self.driven.add(own)

    def _learn(self, steps: int, share: float) -> tuple[torch.Tensor, float]:
        """A round of steps: the means of the losses' parts and of the gradient's norm, and the rate."""
        config, sums, rate = self.config, [], 0.0
        mine = round(config.own_share * config.batch) if self.driven.written else 0
        for _ in range(steps):
            rate = config.rate * schedule(self.step - self.first_step, share, config)
            rows = self.pool.draw(config.batch - mine, self.generator)
            if mine:
                rows = joined_rows(rows, self.driven.draw(mine, self.generator))
            sums.append(self.learn(rows, rate))
            self.step += 1
        return torch.stack(sums).mean(0), rate

    def _save(self) -> None:
        seconds = time.monotonic() - self.began
        finish(self.out, self.losses, self.config, self.stream, self.step, self.seed, seconds, self.group)


def go_on(losses: FlowLosses, resume: Path, first_seed: int) -> tuple[int, int]:
    """Loads what a run left: its `state.pt`, or a checkpoint folder (weights only). Returns the step and the next seed.

    Raises:
        ValueError: a file that is no state of this preset; nothing in it is executed. CheckpointError, ConfigError: as in `load_model`.
    """
    if resume.is_dir():
        losses.model.load_state_dict(load_model(resume, dtype=torch.float32).state_dict())
        nn.init.zeros_(losses.readout.weight)  # its first, random gradients shall not disturb what the weights know
        run = json.loads((resume / "run.json").read_text(encoding="utf-8")) if (resume / "run.json").is_file() else {}
        return 0, max(first_seed, run.get("next_seed", first_seed))
    try:
        state = torch.load(resume, map_location=losses.model.device, weights_only=True)
        step, next_seed = int(state["step"]), int(state["next_seed"])
        losses.load_state_dict(state["losses"])
    except OSError:
        raise
    except Exception as error:  # the many ways in which torch.load and load_state_dict refuse
        raise ValueError(
            f"{resume} is no state that `train` left for this preset ({type(error).__name__} {str(error)[:120].strip()}): give the "
            "state.pt of a run with the same --preset, or a checkpoint folder"
        ) from None
    return step, next_seed


def minutes_left(out: Path, minutes: float) -> float:
    """What is left of so many minutes of a run in a folder after those of an earlier call that was cut off."""
    if not (out / "state.pt").is_file():
        return minutes
    return minutes - json.loads((out / "run.json").read_text(encoding="utf-8"))["seconds"] / 60


def finish(
    out: Path, losses: FlowLosses, config: TrainConfig, stream: StreamConfig, step: int, seed: int, seconds: float, group: Group
) -> None:
    """Writes the state to go on from (whole or not at all), the checkpoint in bf16, shards of at most 15 MB, and the run's settings."""
    with written_whole(out / "state.pt") as beside, beside.open("wb") as file:
        torch.save({"losses": losses.state_dict(), "step": step, "next_seed": seed}, file)
    model = losses.model
    stored = build_meta(model.config).to_empty(device="cpu").to(torch.bfloat16)
    stored.load_state_dict(model.state_dict())
    save_checkpoint(out, stored, (out / "config.json").read_text(encoding="utf-8"), shard_bytes=15 * 2**20)
    run = {"train": asdict(config), "stream": asdict(stream), "processes": group.size, "steps": step, "next_seed": seed}
    write_text(out / "run.json", json.dumps(run | {"seconds": round(seconds, 1)}, indent=2) + "\n")
