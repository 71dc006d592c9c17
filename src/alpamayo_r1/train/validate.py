"""How well a model drives and speaks on world scenes it has not seen, in batches: minADE, baselines, decisions, steering."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from alpamayo_r1.core.images import normalise, patchify, resize
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.plan import Reasoning, Start, Velocity, denoise, guide, reason, roll_out, start_of, velocity_after
from alpamayo_r1.core.request import Request, force, prepare
from alpamayo_r1.core.sampling import Draws
from alpamayo_r1.core.types import CAMERAS, FRAMES, Trajectory
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.core.vocab import Vocabulary, history_ids, spoken
from alpamayo_r1.metrics.baselines import BASELINES
from alpamayo_r1.metrics.paths import ade, min_ade
from alpamayo_r1.train.material import Layout, make_layout
from alpamayo_r1.world.families import T0_STEP
from alpamayo_r1.world.language import Label, classify, directive_text, labels, opposite
from alpamayo_r1.world.render import render
from alpamayo_r1.world.samples import Paths, paths
from alpamayo_r1.world.scene import SceneBatch
from alpamayo_r1.world.simulate import simulate

TEST_SEEDS = range(800_000, 800_512)
PICTURE_SIZE = (448, 252)
"""Width and height at which test scenes are rendered, before the model resizes them."""
SEED, MAX_TOKENS = 42, 32
"""Seed of every scene's draws, and more tokens than any label of the world takes."""


@dataclass(frozen=True)
class Seen:
    """Scenes as the model reads them: keys and values of the prompt [B, ...], logits of the first word, histories and truth."""

    scene: SceneBatch
    step: int
    at: Paths
    labels: list[Label]
    kv: list[tuple[torch.Tensor, torch.Tensor]]
    logits: torch.Tensor


@dataclass(frozen=True)
class Shown:
    """Scenes at a step of their clock, as any model of one layout may read them."""

    scene: SceneBatch
    step: int
    at: Paths
    labels: list[Label]
    patches: torch.Tensor


def show_scenes(model: VLA, layout: Layout, seeds: Sequence[int], at_step: int, families: Sequence[str] | None = None, **options) -> Shown:
    """Simulates and renders scenes at a step of their clock, ten per second, where the model is. Options: render's."""
    scene = simulate(torch.tensor(list(seeds)), seconds=max(at_step, T0_STEP) / 10 + 0.1, families=families)
    step = torch.full((len(seeds),), at_step)
    frames = render(scene.to(model.device), step.to(model.device), width=PICTURE_SIZE[0], height=PICTURE_SIZE[1], **options)
    return show(model, layout, scene, at_step, frames)


def show(model: VLA, layout: Layout, scene: SceneBatch, at_step: int, frames: torch.Tensor) -> Shown:
    """Scenes at a step with their pictures u8 (B, C, K, 3, h, w) on the model's device, resized and cut into patches."""
    patches = patchify(normalise(resize(frames.flatten(0, 2), *layout.size)), model.config.vision)
    return Shown(scene, at_step, paths(scene, torch.full((len(frames),), at_step)), labels(scene, at_step), patches)


def read_scenes(model: VLA, layout: Layout, shown: Shown) -> Seen:
    """Reads the prompts of scenes."""
    count = len(shown.labels)
    ids = layout.ids.repeat(count, 1)
    ids[:, layout.history] = history_ids(shown.at.history_xyz, model.config.tokens)
    place = layout.positions[:, None].expand(-1, count, -1).to(model.device)
    image = layout.image.to(model.device).expand(count, -1)
    grids = [layout.grid] * (count * len(CAMERAS) * FRAMES)
    hidden, kv = model.read(ids.to(model.device), place, image, shown.patches, grids)
    return Seen(shown.scene, shown.step, shown.at, shown.labels, kv, model.logits(hidden[:, -1]))


def predict(
    model: VLA,
    vocabulary: Vocabulary,
    layout: Layout,
    seen: Seen,
    options: PlanOptions,
    texts: Sequence[str] | None = None,
    unguided: Callable[[Reasoning], Velocity] | None = None,
) -> tuple[list[list[str]], Trajectory]:
    """Words [B][S] and paths [B, S, 64] of B scenes read by `read_scenes`, each with the same draws.

    texts: said instead, one per scene. unguided: the velocity without navigation after what was said, for options.guidance.
    """
    scenes, samples = len(seen.labels), options.samples
    kv = [(k.repeat_interleave(samples, 0), v.repeat_interleave(samples, 0)) for k, v in seen.kv]
    logits = seen.logits.repeat_interleave(samples, 0)
    how = for_scenes(prepare(options, model.config, vocabulary), scenes)
    if texts is not None:
        how = replace(how, forced=force(vocabulary, texts, how.turn, "reasoning=", options.max_tokens).repeat_interleave(samples, 0))
    said, kv = reason(model, vocabulary, logits, kv, layout.next_position, how)
    velocity = velocity_after(model, kv, len(layout.ids), layout.next_position, said)
    if unguided is not None and how.guidance is not None:
        velocity = guide(velocity, unguided(said), how.guidance)
    actions = denoise(model, velocity, how)
    start = start_of(Trajectory(seen.at.history_xyz, seen.at.history_rot), model.config.action)
    start = Start(start.speed.repeat_interleave(samples), start.height.repeat_interleave(samples))
    path = roll_out(model, start, actions)
    path = Trajectory(path.xyz.unflatten(0, (scenes, samples)), path.rot.unflatten(0, (scenes, samples)))
    words = [spoken(vocabulary, row, "cot", opened=True) for row in said.tokens()]
    return [words[i : i + samples] for i in range(0, len(words), samples)], path


def for_scenes(how: Request, scenes: int) -> Request:
    """The same request to each of several scenes, rows scene by scene."""
    draws = Draws(how.draws.noise.repeat(scenes, 1, 1), how.draws.uniform.repeat(scenes, 1))
    return replace(how, samples=how.samples * scenes, draws=draws)


@torch.inference_mode()
def validate(
    model: VLA,
    vocabulary: Vocabulary,
    *,
    seeds: Sequence[int] = TEST_SEEDS,
    samples: int = 6,
    batch: int = 64,
    t0: float = T0_STEP / 10,
    **options,
) -> dict[str, Any]:
    """Mean ADE of the first sample, minADE of all, baselines, decisions by family, malformed words, steering; all at t0 seconds.

    Options: render's.
    """
    layout = make_layout(model.config, vocabulary)
    rows: list[dict[str, Any]] = []
    for first in range(0, len(seeds), batch):
        shown = show_scenes(model, layout, seeds[first : first + batch], round(10 * t0), **options)
        rows += judge(model, vocabulary, layout, read_scenes(model, layout, shown), samples)
    return {"t0_s": round(10 * t0) / 10} | summary(rows)


def judge(model: VLA, vocabulary: Vocabulary, layout: Layout, seen: Seen, samples: int) -> list[dict[str, Any]]:
    """One row of figures per scene."""
    asked = PlanOptions(samples=samples, seed=SEED, max_tokens=MAX_TOKENS)
    words, path = predict(model, vocabulary, layout, seen, asked)
    truth = seen.at.future_xyz
    errors = ade(path.xyz, truth).value
    best = min_ade(path.xyz, truth).value
    history = Trajectory(seen.at.history_xyz, seen.at.history_rot)
    bases = {name: ade(f(history).xyz[:, None], truth).value[:, 0] for name, f in BASELINES.items()}
    orders = [opposite(label) for label in seen.labels]
    texts = [directive_text(o, seen.scene, i, seen.step) for i, o in enumerate(orders)]
    one = replace(asked, samples=1)
    _, steered = predict(model, vocabulary, layout, seen, one, texts)
    _, natural = predict(model, vocabulary, layout, seen, one, [label.text for label in seen.labels])
    rows = []
    for i, label in enumerate(seen.labels):
        meanings = [classify(text) for text in words[i]]
        rows.append(
            {
                "family": label.family,
                "ade": errors[i, 0].item(),
                "min_ade": best[i].item(),
                **{name: values[i].item() for name, values in bases.items()},
                "decision": sum(m is not None and m[0] == label.decision for m in meanings) / samples,
                "cause": sum(m == (label.decision, label.cause) for m in meanings) / samples,
                "malformed": sum(m is None for m in meanings) / samples,
                "order": orders[i],
                "steered": moved(orders[i], natural.xyz[i, 0], steered.xyz[i, 0]),
            }
        )
    return rows


def moved(order: str, natural: torch.Tensor, steered: torch.Tensor) -> bool:
    """Whether a path [64, 3] moved from the natural one the way an order says.

    nudge: its largest sideways difference is over 0.3 m on that side; stop: it ends at least 2 m shorter; proceed: 2 m longer.
    """
    difference = (steered - natural)[:, 1]
    side = difference[difference.abs().argmax()].item()
    length = [path[:, :2].diff(dim=0).norm(dim=-1).sum().item() for path in (natural, steered)]
    return {
        "nudge_left": side > 0.3,
        "nudge_right": side < -0.3,
        "stop": length[1] < length[0] - 2,
        "proceed": length[1] > length[0] + 2,
    }[order]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over scenes, by family, and the steering share by order."""
    keys = ("ade", "min_ade", *BASELINES, "decision", "cause", "malformed", "steered")

    def means(some: list[dict[str, Any]]) -> dict[str, float]:
        return {key: sum(float(row[key]) for row in some) / len(some) for key in keys} | {"scenes": len(some)}

    families = sorted({row["family"] for row in rows})
    orders = sorted({row["order"] for row in rows})
    return {
        **means(rows),
        "by_family": {name: means([row for row in rows if row["family"] == name]) for name in families},
        "steered_by_order": {name: means([row for row in rows if row["order"] == name])["steered"] for name in orders},
    }


def table(result: dict[str, Any]) -> str:
    """The summary as text."""
    head = f"{'family':<14}{'scenes':>7}{'ADE':>8}{'minADE':>8}{'CV':>8}{'CTRA':>8}{'decision':>10}{'malformed':>10}{'steered':>9}"
    rows = [("all", result), *result["by_family"].items()]
    names = tuple(BASELINES)
    lines = [
        f"{name:<14}{r['scenes']:>7}{r['ade']:>8.3f}{r['min_ade']:>8.3f}{r[names[0]]:>8.2f}{r[names[1]]:>8.2f}"
        f"{r['decision']:>10.3f}{r['malformed']:>10.4f}{r['steered']:>9.2f}"
        for name, r in rows
    ]
    return "\n".join(
        [f"t0 = {result['t0_s']} s; figures of another t0 differ", head, *lines, f"steered by order: {result['steered_by_order']}"]
    )


def rounded(result: dict[str, Any], digits: int = 4) -> dict[str, Any]:
    """The summary with rounded numbers, for JSON."""
    return {
        key: rounded(value, digits) if isinstance(value, dict) else round(value, digits) if isinstance(value, float) else value
        for key, value in result.items()
    }
