"""How well a model of Alpamayo 1.5 follows what it is told and answers what it is asked, on scenes it has not seen, in batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from alpamayo_r1.core.geometry import yaw_of
from alpamayo_r1.core.options import AskOptions, PlanOptions
from alpamayo_r1.core.plan import Reasoning, Velocity, reason, velocity_after
from alpamayo_r1.core.request import prepare_answers
from alpamayo_r1.core.types import CAMERAS, FRAMES
from alpamayo_r1.core.types import F as FUTURE
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.core.vocab import Vocabulary, history_ids, spoken
from alpamayo_r1.train.material import Layout, make_layout
from alpamayo_r1.train.validate import MAX_TOKENS, SEED, Seen, Shown, for_scenes, predict, show_scenes
from alpamayo_r1.world.expert import unicycle
from alpamayo_r1.world.navigation import navigation, route_text
from alpamayo_r1.world.questions import ANSWERS, KINDS, Question, questions
from alpamayo_r1.world.richer import richer_families
from alpamayo_r1.world.scene import Route, SceneBatch
from alpamayo_r1.world.simulate import set_stage

ROUTES_FROM, ASKED_FROM = 812_000, 814_000
"""Seeds of the first scenes at junctions, and of those that are asked about: among the tests' seeds."""

MOMENTS = (51, 75)
"""Steps at which junctions are looked at."""

TURN, STRAIGHT = 0.35, 0.15
"""Radians over 6.4 s that are a turn, as in `metrics.consistency`; and up to which a path goes straight on."""

SURE = 0.7
"""Radians that the expert turns where a turn is expected at all."""


def picked(shown: Shown, rows: Sequence[int]) -> Shown:
    """Some of the scenes shown."""
    at = torch.tensor(list(rows))
    each = len(shown.patches) // len(shown.labels)
    patches = shown.patches.view(len(shown.labels), each, -1)[at.to(shown.patches.device)].flatten(0, 1)
    paths = type(shown.at)(*(getattr(shown.at, name)[at] for name in type(shown.at).__dataclass_fields__))
    return Shown(shown.scene, shown.step, paths, [shown.labels[i] for i in rows], patches)


def read_as(
    model: VLA, vocabulary: Vocabulary, shown: Shown, layouts: Sequence[Layout]
) -> Iterator[tuple[list[int], Layout, Seen, torch.Tensor]]:
    """Reads each scene by its own layout, those of one length together: rows, a layout of that length, what was read, and its ids."""
    by_length: dict[int, list[int]] = {}
    for row, layout in enumerate(layouts):
        by_length.setdefault(len(layout.ids), []).append(row)
    for rows in by_length.values():
        part, layout = picked(shown, rows), layouts[rows[0]]
        ids = torch.stack([layouts[row].ids for row in rows])
        if layout.history.stop:
            ids[:, layout.history] = history_ids(part.at.history_xyz, model.config.tokens)
        ids = ids.to(model.device)
        place = layout.positions[:, None].expand(-1, len(rows), -1).to(model.device)
        image = layout.image.to(model.device).expand(len(rows), -1)
        hidden, kv = model.read(ids, place, image, part.patches, [layout.grid] * (len(rows) * len(CAMERAS) * FRAMES))
        yield rows, layout, Seen(part.scene, part.step, part.at, part.labels, kv, model.logits(hidden[:, -1])), ids


def without(
    model: VLA, vocabulary: Vocabulary, layout: Layout, plain: Layout, seen: Seen, ids: torch.Tensor
) -> Callable[[Reasoning], Velocity]:
    """What gives the velocity as if there were no navigation text; see `plan.velocity_without_navigation`. One sample per scene."""
    start = int((layout.ids == vocabulary.ids["route_start"]).nonzero()[0])
    stop = int((layout.ids == vocabulary.ids["route_end"]).nonzero()[0]) + 1

    def velocity(said: Reasoning) -> Velocity:
        before = [(k[:, :, :start], v[:, :, :start]) for k, v in seen.kv]
        place = plain.positions[:, None, start:].to(model.device).expand(-1, len(ids), -1)
        _, read = model.extend(ids[:, stop:], place, before)
        words = said.ids.to(model.device)
        place = (plain.next_position + torch.arange(words.shape[1], device=model.device)).expand(3, *words.shape)
        _, kv = model.extend(words, place, read)
        return velocity_after(model, kv, len(plain.ids), plain.next_position, said, said.length)

    return velocity


def paths_as_told(
    model: VLA, vocabulary: Vocabulary, shown: Shown, texts: Sequence[str | None], guidance: float | None = None, seed: int = SEED
) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Words, paths xyz [B, 64, 3] and headings [B, 64] of the first sample of each scene, planned with its navigation text."""
    layouts = {text: make_layout(model.config, vocabulary, text) for text in set(texts)}
    plain = make_layout(model.config, vocabulary)
    words, xyz, yaw = [""] * len(texts), torch.zeros(len(texts), FUTURE, 3), torch.zeros(len(texts), FUTURE)
    for rows, layout, seen, ids in read_as(model, vocabulary, shown, [layouts[text] for text in texts]):
        options = PlanOptions(samples=1, seed=seed, max_tokens=MAX_TOKENS)
        guided = guidance is not None and all(texts[row] is not None for row in rows)
        if guided:
            options = replace(options, navigation=texts[rows[0]], guidance=guidance)
        said, path = predict(
            model, vocabulary, layout, seen, options, None, without(model, vocabulary, layout, plain, seen, ids) if guided else None
        )
        for i, row in enumerate(rows):
            words[row], xyz[row], yaw[row] = said[i][0], path.xyz[i, 0], yaw_of(path.rot[i, 0])
    return words, xyz, yaw


def turn_of(yaw: torch.Tensor) -> torch.Tensor:
    """Radians to the left at the end of headings [..., 64] in the ego frame."""
    return torch.remainder(yaw[..., -1] + torch.pi, 2 * torch.pi) - torch.pi


def expert_turn(scene: SceneBatch, step: int, families: Sequence[str]) -> torch.Tensor:
    """Radians (B,) that the expert turns in 6.4 s from where each ego is at a step, had the scene the route of another family."""
    stage = set_stage(scene.seeds, (scene.ego.shape[1] - 1 - FUTURE) / 10, families)
    expert = stage.expert(np.zeros(len(families), np.int64))
    lead_s, lead_v = stage.lead()
    for n in range(step):  # what it remembers
        expert.act(n, scene.ego[:, n].double().numpy(), scene.speed[:, n].double().numpy(), lead_s[:, n], lead_v[:, n])
    pose, speed = scene.ego[:, step].double().numpy(), scene.speed[:, step].double().numpy()
    begin = pose[:, 2].copy()
    for n in range(step, step + FUTURE):
        pose, speed = unicycle(pose, speed, *expert.act(n, pose, speed, lead_s[:, n], lead_v[:, n]))
    return torch.from_numpy((pose[:, 2] - begin + np.pi) % (2 * np.pi) - np.pi)


def taken(route: Route, turn: float, expected: float) -> bool:
    """Whether a path that turns so far takes a route: half of what the expert turns, or straight on."""
    if route == Route.STRAIGHT:
        return abs(turn) < STRAIGHT
    way = 1.0 if route == Route.LEFT else -1.0
    return way * turn > max(TURN, 0.5 * way * expected)


@torch.inference_mode()
def validate_routes(model: VLA, vocabulary: Vocabulary, scenes: int = 128, guidance: float = 1.5, **options: Any) -> dict[str, Any]:
    """Shares of told routes and of swapped ones that are taken, each plainly and with guidance; and of decisions named rightly.

    Of left and right turns those count that the expert takes within 6.4 s; of straight routes all before the junction. Options: render's.
    """
    layout, rows = make_layout(model.config, vocabulary), []
    names = {Route.LEFT: "junction_left", Route.STRAIGHT: "junction_straight", Route.RIGHT: "junction_right"}
    other = {Route.LEFT: Route.RIGHT, Route.RIGHT: Route.LEFT}
    for number, step in enumerate(MOMENTS):
        seeds = range(ROUTES_FROM + number * scenes, ROUTES_FROM + (number + 1) * scenes)
        routes = [(Route.LEFT, Route.RIGHT, Route.STRAIGHT, Route.LEFT, Route.RIGHT)[seed % 5] for seed in seeds]
        shown = show_scenes(model, layout, seeds, step, [names[route] for route in routes], **options)
        scene, told = shown.scene, navigation(shown.scene, step)
        s = scene.road.frenet(scene.ego[:, step : step + 1, :2])[:, 0, 0]
        metres = (scene.road.crossing - s - 3.85).tolist()
        swapped = [route_text(other.get(route, route), m, int(seed) % 4) for route, m, seed in zip(routes, metres, seeds, strict=True)]
        truth = turn_of(yaw_of(shown.at.future_rot))
        would = expert_turn(scene, step, [names[other.get(route, route)] for route in routes])
        found = {}
        for name, texts in (("told", told), ("swapped", swapped)):
            for kind, weight in (("", None), ("_guided", guidance)):
                words, _, yaw = paths_as_told(model, vocabulary, shown, texts, weight)
                found[name + kind] = turn_of(yaw).tolist()
                if name + kind == "told":
                    found["words"] = words
        for i, route in enumerate(routes):
            if route == Route.STRAIGHT and metres[i] < 3:
                continue
            row: dict[str, Any] = {
                "route": route.name.lower(),
                "step": step,
                "seed": seeds[i],
                "said": found["words"][i] == shown.labels[i].text,
            }
            if route == Route.STRAIGHT or abs(truth[i]) > SURE:
                row |= {name: taken(route, found[name][i], float(truth[i])) for name in ("told", "told_guided")}
            if route != Route.STRAIGHT and abs(would[i]) > SURE and abs(truth[i]) < 1.4:
                row |= {name: taken(other[route], found[name][i], float(would[i])) for name in ("swapped", "swapped_guided")}
            rows.append(row)
    return {"rows": rows} | {
        name: {
            route: share([row[name] for row in rows if name in row and route in (row["route"], "all")])
            for route in ("all", "left", "right", "straight")
        }
        for name in ("told", "told_guided", "swapped", "swapped_guided")
    }


def share(values: Sequence[bool]) -> dict[str, float]:
    """How often something holds, and of how many."""
    return {"share": round(sum(values) / len(values), 4) if values else float("nan"), "of": len(values)}


@torch.inference_mode()
def answers(model: VLA, vocabulary: Vocabulary, shown: Shown, asked: Sequence[str]) -> list[str]:
    """The answer to one question about each scene, drawn as by default."""
    layouts = {text: make_layout(model.config, vocabulary, question=text) for text in set(asked)}
    said = [""] * len(asked)
    how = prepare_answers(AskOptions(samples=1, seed=SEED, max_tokens=MAX_TOKENS), model.config, vocabulary)
    for rows, layout, seen, _ in read_as(model, vocabulary, shown, [layouts[text] for text in asked]):
        words, _ = reason(model, vocabulary, seen.logits, seen.kv, layout.next_position, for_scenes(how, len(rows)))
        for row, ids in zip(rows, words.tokens(), strict=True):
            said[row] = spoken(vocabulary, ids, "answer", opened=True)
    return said


def validate_answers(
    model: VLA,
    vocabulary: Vocabulary,
    scenes: int = 256,
    most: int = 96,
    steps: Sequence[int] = (40, 51, 75),
    batch: int = 128,
    **options: Any,
) -> dict[str, Any]:
    """Share of right answers by kind of question, at most `most` of each, its answers as evenly as they come. Options: render's."""
    layout = make_layout(model.config, vocabulary)
    right: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    wrong: Counter[tuple[str, str, str]] = Counter()
    limit = {
        (kind, answer): most // (2 * len(steps)) if i == 0 and len(ANSWERS[kind]) > 2 else most // len(steps)
        for kind in KINDS
        for i, answer in enumerate(ANSWERS[kind])
    }
    for number, step in enumerate(steps):
        left = dict(limit)
        for first in range(0, scenes, batch):
            seeds = np.arange(first, min(first + batch, scenes)) + ASKED_FROM + number * scenes
            shown = show_scenes(model, layout, seeds.tolist(), step, richer_families(seeds), **options)
            put: list[tuple[int, Question]] = []
            for row, some in enumerate(questions(shown.scene, step)):
                for one in some:
                    if left[one.kind, one.answer] > 0:
                        left[one.kind, one.answer] -= 1
                        put.append((row, one))
            for begin in range(0, len(put), batch):
                part = put[begin : begin + batch]
                said = answers(model, vocabulary, picked(shown, [row for row, _ in part]), [one.text for _, one in part])
                for (_, one), text in zip(part, said, strict=True):
                    right[one.kind].append(text == one.answer)
                    if text != one.answer:
                        wrong[one.kind, one.answer, text] += 1
    return {"kinds": {kind: share(values) for kind, values in right.items()}, "wrong": [[*key, n] for key, n in wrong.most_common(20)]}
