"""The training loop of the bundled model: any number of GPUs, a budget of minutes, everything drawn from the world on the fly."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from alpamayo_r1.core.checkpoint import build_meta, load_model, save_checkpoint
from alpamayo_r1.core.config import read_config
from alpamayo_r1.core.files import write_text, written_whole
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.core.vocab import load_vocabulary
from alpamayo_r1.train.feed import Feed
from alpamayo_r1.train.losses import FlowLosses, Losses, fresh_model
from alpamayo_r1.train.material import Pool, Rows, elsewhere, joined_rows, make_layout, render_rows, rendering
from alpamayo_r1.train.presets import write_skeleton
from alpamayo_r1.train.step import Group, Step
from alpamayo_r1.train.stream import Chunk, StreamConfig, chunks


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


def begin_folder(out: Path, preset: str, group: Group, device: torch.device) -> None:
    """The first process writes a checkpoint folder without weights; the others wait for it."""
    if group.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        write_skeleton(out, preset)
    group.agree(0.0, device)


FALLING = 0.67
"""Share of the budget, its last, in which the rate falls."""


def schedule(step: int, share: float, config: TrainConfig) -> float:
    """Share of the peak rate: a linear rise over `warmup` steps, flat for a third of the budget, then linear to zero at its end."""
    return min(1.0, (step + 1) / config.warmup) * max(0.0, min(1.0, (1 - share) / FALLING))


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


def budget_left(out: Path, minutes: float, rate: float, group: Group, device: torch.device) -> tuple[float, float]:
    """Minutes left of a run that was cut off, the same for all of a group, and the rate that it had come to."""
    left = group.agree(minutes_left(out, minutes), device)
    return left, rate * min(1.0, left / minutes / FALLING)


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
