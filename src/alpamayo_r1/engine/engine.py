"""The fast planner: the results of `plan`, for several scenes at once.

    preprocess -> per scene: vision, prefill -> words for all rows -> flow -> kinematics

Prompts are read once per scene and shared by its samples. Passes of words and the flow are captured graphs on static buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial

import torch

from alpamayo_r1.core.answer import to_answers
from alpamayo_r1.core.clock import Stopwatch
from alpamayo_r1.core.family import Turn
from alpamayo_r1.core.gate.observation import check_observation
from alpamayo_r1.core.notes import Note, tell
from alpamayo_r1.core.options import AskOptions, PlanOptions
from alpamayo_r1.core.plan import DoesNotFit, blocked_tokens, note_unfinished, roll_out, start_of
from alpamayo_r1.core.prompt import (
    Pictures,
    Prompt,
    arrange,
    asking_chat,
    check_question,
    fuse_history,
    picture_headers,
    planning_chat,
)
from alpamayo_r1.core.request import Request, prepare, prepare_answers
from alpamayo_r1.core.transformer import KV
from alpamayo_r1.core.types import Answers, Observation, Plan, Trajectory
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.core.vocab import Vocabulary, spoken
from alpamayo_r1.engine import forward, reading
from alpamayo_r1.engine.arena import Arena, Buffers, Capacity, Said
from alpamayo_r1.engine.drafts import Table
from alpamayo_r1.engine.graphs import Graphs
from alpamayo_r1.engine.lane import Lane, in_turn
from alpamayo_r1.engine.memory import Known, Seen, known_from, scene_kv
from alpamayo_r1.engine.ops.launch import sent
from alpamayo_r1.engine.reader import Ahead, Features, Reader
from alpamayo_r1.engine.words import Rules, Speaker

LAYOUTS = 64
"""Texts of prompts whose ids and positions are kept."""

NO_TOKEN = -1


class Engine:
    """A planner that keeps its buffers and graphs between plans. Plans of several threads are made one after the other.

    The model's weights are fused in place; `plan` (the specification) still runs on the same model.
    graphs: capture CUDA graphs (None: on a GPU). exact_cpu: resize frames by the specification's code, where they are. reader: who sees
    pictures and reads prompts, None for this device.
    """

    def __init__(
        self, model: VLA, vocabulary: Vocabulary, *, graphs: bool | None = None, exact_cpu: bool = False, reader: Reader | None = None
    ):
        self.config, self.vocabulary = model.config, vocabulary
        self.device, self.dtype = model.device, model.dtype
        with torch.no_grad():  # no inference_mode: the fused weights stay the module's, which others may write to
            self.model = forward.Model(model)
        self.lane = Lane(self.device)
        self.graphs = Graphs(self.device.type == "cuda" if graphs is None else graphs, self.lane.stream)
        self.reader = reader or Reader(self.model, self.lane, self.graphs, self._first_keys, exact_cpu)
        self.speaker = Speaker(self.model, self.graphs, Table())
        self.arena: Arena | None = None
        self._layouts: dict[tuple, Prompt] = {}
        self._masks: dict[Turn, torch.Tensor] = {}
        self._seen: Seen | None = None

    @in_turn
    def plans(
        self, observations: Sequence[Observation], options: PlanOptions, navigation: Sequence[str | None] | None = None
    ) -> list[Plan]:
        """S futures for each of several observations, all with the same request. navigation: each one's own text instead of the request's.

        Raises:
            ValueError, TypeError: as `alpamayo_r1.core.plan.plan`. DoesNotFit: see `reserve`.
        """
        texts = [options.navigation] * len(observations) if navigation is None else navigation
        prepared = [prepare(options.updated({"navigation": text}), self.config, self.vocabulary) for text in {*texts, options.navigation}]
        how = prepared[0]  # they differ in texts alone, and all are checked
        clock = Stopwatch(self.device)
        with clock("preprocess"):
            notes = [check_observation(one, self.config) for one in observations]  # all first: a look at a GPU's pictures waits for it
        if len(observations) == 1:
            pictures, images = self.look(observations[0], clock, notes[0])
            every = [pictures]
        else:
            with clock("preprocess"):
                every, images = [self.pictures(one, noted) for one, noted in zip(observations, notes, strict=True)], None
        with clock("preprocess"):
            prompts = [self.prompt(*one) for one in zip(observations, texts, every, strict=True)]
        ahead = None if images is None else Ahead(self.reader.read(prompts[0], clock, images))
        return self.plan_prompts(prompts, [one.history for one in observations], how, clock, ahead)

    @in_turn
    def plan_scene(self, observation: Observation, requests: Sequence[PlanOptions]) -> list[Plan]:
        """A plan for each request about one observation, read once up to where the navigation texts part. Requests differ in these alone.

        Raises:
            ValueError, TypeError: as `alpamayo_r1.core.plan.plan`. DoesNotFit: see `reserve`.
        """
        if not requests:
            return []
        prepared = [prepare(options, self.config, self.vocabulary) for options in requests]
        clock = Stopwatch(self.device)
        with clock("preprocess"):
            notes = check_observation(observation, self.config)
        pictures, images = self.look(observation, clock, notes)
        with clock("preprocess"):
            prompts = [self.prompt(observation, options.navigation, pictures) for options in requests]
        ahead = Ahead(self.reader.read(prompts[0], clock, images))
        return self.plan_prompts(prompts, [observation.history] * len(prompts), prepared[0], clock, ahead)

    @in_turn
    def ask(self, observation: Observation, questions: Sequence[str], options: AskOptions) -> list[Answers]:
        """S answers to each question about one observation. The last scene that was planned or asked about is not read again.

        Raises:
            ValueError, TypeError: as `alpamayo_r1.core.answer.ask`. DoesNotFit: see `reserve`.
        """
        how = prepare_answers(options, self.config, self.vocabulary)
        for question in questions:
            check_question(question, self.vocabulary)
        clock = Stopwatch(self.device)
        with clock("preprocess"):
            pictures = self.pictures(observation)
            prompts = [self._arranged(pictures, asking_chat(pictures, self.config, question)) for question in questions]
        return self.answer_prompts(prompts, questions, how, clock)

    def pictures(self, observation: Observation, notes: tuple[Note, ...] | None = None) -> Pictures:
        """The patches of an observation, on the device. notes: of its check, where it was checked already."""
        notes = check_observation(observation, self.config) if notes is None else notes
        frames = observation.frames.flatten(0, 1)
        made, grid = self.reader.patches(frames)
        return Pictures(made, (grid,) * len(frames), picture_headers(observation, self.config.family), notes)

    def look(self, observation: Observation, clock: Stopwatch, notes: tuple[Note, ...]) -> tuple[Pictures, list[Features]]:
        """The patches of an observation that was checked, and their features: while a GPU sees the first, the host copies the next."""
        made, grids, images = self.reader.look(observation.frames.flatten(0, 1), clock)
        return Pictures(made, grids, picture_headers(observation, self.config.family), notes), images

    def prompt(self, observation: Observation, navigation: str | None = None, pictures: Pictures | None = None) -> Prompt:
        """The prompt of one observation, its patches on the device. pictures: where they are made already."""
        pictures = pictures or self.pictures(observation)
        prompt = self._arranged(pictures, planning_chat(pictures, self.config, navigation))
        ids = fuse_history(prompt.ids, observation.history.xyz.cpu(), self.vocabulary, self.config)
        return replace(prompt, ids=ids)

    def _arranged(self, pictures: Pictures, text: str) -> Prompt:
        """A prompt before the history is put in; layouts are kept by their text."""
        key = text, pictures.grids
        layout = self._layouts.get(key)
        if layout is None:
            if len(self._layouts) >= LAYOUTS:
                self._layouts.clear()
            ids = torch.tensor(self.vocabulary.encode(text))
            layout = self._layouts[key] = arrange(ids, pictures.patches[:0], pictures.grids, self.vocabulary, self.config)
        return replace(layout, patches=pictures.patches, notes=pictures.notes)

    @in_turn
    @torch.inference_mode()
    def plan_prompts(
        self,
        prompts: list[Prompt],
        histories: Sequence[Trajectory],
        how: Request,
        clock: Stopwatch | None = None,
        ahead: Ahead | None = None,
    ) -> list[Plan]:
        """S futures for each prepared prompt and the history it was made with. prompts: emptied, each forgotten once it is read.

        ahead: what is known of the first prompt already.

        Raises:
            ValueError: not as many histories as prompts; guidance for prompts without a navigation text.
            DoesNotFit: see `reserve`.
        """
        if len(prompts) != len(histories):
            raise ValueError(f"{len(prompts)} prompts and {len(histories)} histories were given, expected one history for each prompt")
        if not prompts:
            return []
        guided, rows = how.guidance is not None, len(prompts) * how.samples
        if guided and any(prompt.navigation is None for prompt in prompts):
            raise ValueError(f"guidance is {how.guidance}, but a prompt has no navigation text: plan that one without guidance")
        clock = clock or Stopwatch(self.device)
        notes = [prompt.notes for prompt in prompts]
        buffers = self._read(prompts, how, clock, ahead)
        with clock("reasoning"):
            said, passes = self._speak(how, buffers, rows, ahead.last if ahead else ())
        with clock("flow"):
            positions, shape = self._positions, (len(buffers.prompt), how.samples)
            flow = partial(forward.flow, self.model, buffers, how.steps, positions, guided)
            self.graphs.run(("flow", *shape, how.steps, guided), flow)
            starts = [start_of(history, self.config.action) for history in histories]  # while the device works
            normalised = buffers.actions[:rows].to("cpu", non_blocking=True)
        arrived = self.lane.stream.record_event() if self.lane.stream is not None else None
        if ahead is not None:
            ahead.then()
        if arrived is not None:
            arrived.synchronize()
        ended = said.ended.bool()
        plans = []
        with (
            clock("kinematics", host=True),
            torch.inference_mode(False),
            torch.no_grad(),
        ):  # a Plan's tensors are the caller's, who may change them
            for scene, start in enumerate(starts):
                own = slice(scene * how.samples, (scene + 1) * how.samples)
                actions = self._scale.physical(normalised[own])
                path = roll_out(self.model.vla, start.expand(how.samples), actions)
                tokens = tokens_of(said.ids[own], said.length[own])
                words = tuple(spoken(self.vocabulary, row, "cot", opened=True) for row in tokens)
                over = tuple(ended[own].tolist())
                known = notes[scene] + note_unfinished(over, how.max_tokens)
                plans.append(Plan(path.xyz, path.rot, words, actions, over, {}, tokens, known, passes))
        timing = clock.timing
        for one in plans:
            tell(one.notes, stacklevel=6)
        return [replace(one, timing=timing) for one in plans]

    @in_turn
    @torch.inference_mode()
    def answer_prompts(
        self, prompts: list[Prompt], questions: Sequence[str], how: Request, clock: Stopwatch | None = None
    ) -> list[Answers]:
        """S answers to each prepared prompt. prompts: emptied, each forgotten once it is read. Raises DoesNotFit: see `reserve`."""
        if not prompts:
            return []
        clock, rows = clock or Stopwatch(self.device), len(prompts) * how.samples
        notes = [prompt.notes for prompt in prompts]
        buffers = self._read(prompts, how, clock)
        with clock("reasoning"):
            said, _ = self._speak(how, buffers, rows)
        tokens, timing = tokens_of(said.ids, said.length), clock.timing
        return [
            to_answers(self.vocabulary, question, tokens[i * how.samples : (i + 1) * how.samples], how, timing, notes[i])
            for i, question in enumerate(questions)
        ]

    @cached_property
    def _scale(self):
        return self.model.vla.action_space.scale()

    def _speak(self, how: Request, buffers: Buffers, rows: int, last: Sequence[Sequence[int]] = ()) -> tuple[Said, int]:
        """Writes every row's words; rows behind the first `rows` hear the same. What was said, in how many passes.

        last: what each row said a step ago.
        """
        turn, v = how.turn, self.vocabulary
        if turn not in self._masks:
            self._masks[turn] = blocked_tokens(turn, self.config.tokens, self.device)
        end = v.ids[turn.ends] if turn.ends else NO_TOKEN
        rules = Rules(self._masks[turn], end, v.eos_token_id, v.pad_token_id, whole=rows < len(buffers.state))
        return self.speaker.speak(how, rules, buffers, rows, self._positions, last)

    @property
    def _positions(self) -> int:
        """Positions that any token of a plan in the arena may have."""
        assert self.arena is not None, "reserve() comes first"
        return self.arena.capacity.prompt + self.arena.capacity.tokens + self.config.action.n_waypoints

    def reserve(self, scenes: int, samples: int, tokens: int, prompt: int) -> Buffers:
        """Buffers for a plan of this size. Larger ones than there are replace them, and all graphs with them.

        New buffers hold the earlier plans too where there is room, else this plan alone.

        Raises:
            DoesNotFit: the device lacks the memory; says what would fit.
        """
        wanted = Capacity(scenes, samples, tokens, prompt).rounded()
        if self.arena is None or not self.arena.capacity.holds(wanted):
            joined = wanted if self.arena is None else wanted.joined(self.arena.capacity)
            self.graphs.clear()
            self.arena = None
            try:
                self.arena = Arena(self.config, joined, self.device, self.dtype)
            except DoesNotFit:
                self._seen = None
                self.arena = Arena(self.config, wanted, self.device, self.dtype)
            self.model.line_ropes(self._positions)
        return self.arena.view(scenes, samples)

    def _first_keys(self, count: int) -> Sequence[KV]:
        """Keys and values of the first tokens of a plan of one scene, in the arena."""
        assert self.arena is not None, "reserve() comes first"
        return scene_kv(self.arena.view(1, 1), 0, count)

    def start(self, prompts: Sequence[Prompt], how: Request, buffers: Buffers) -> None:
        """Sets all rows to the start of their reasoning."""
        scenes, samples, limit = len(prompts), how.samples, how.max_tokens
        buffers.prompt.copy_(self._sent(torch.tensor([len(prompt) for prompt in prompts])))
        buffers.next.copy_(self._sent(torch.tensor([prompt.next_position for prompt in prompts]).repeat_interleave(samples)))
        buffers.uniform[:, :limit].copy_(self._sent(how.draws.uniform).repeat(scenes, 1))
        buffers.noise.copy_(self._sent(how.draws.noise).repeat(scenes, 1, 1))
        buffers.forced.fill_(-1)
        if how.forced is not None:
            buffers.forced[:, :limit].copy_(self._sent(how.forced).repeat(scenes, 1))
        buffers.limit.fill_(limit)
        buffers.state.zero_()
        buffers.said.cached.fill_(-1)

    def _read(self, prompts: list[Prompt], how: Request, clock: Stopwatch, ahead: Ahead | None = None) -> Buffers:
        """Reads all prompts into fresh buffers, and behind them, where there is guidance, the same prompts without navigation.

        prompts: emptied, each forgotten once it is read.
        """
        first, last, scenes = prompts[0], prompts[-1], len(prompts)
        plain = [replace(prompt.without_navigation(), patches=prompt.patches[:0]) for prompt in prompts] if how.guidance is not None else []
        buffers = self.reserve(scenes + len(plain), how.samples, how.max_tokens, max(map(len, prompts)))
        buffers.guidance.fill_(how.guidance or 0)
        self.start([*prompts, *plain], how, buffers)
        shared = None
        if self._seen is not None and how.turn == self.config.family.question:
            with self.reader.lane.turn():
                shared = self._seen.known(first)
        remembered = shared is not None
        for scene in range(scenes):
            prompt = prompts.pop(0)
            if scene and prompt.patches is first.patches:
                shared = known_from(first, prompt, buffers, 0)
            self.read(prompt, how.samples, buffers, scene, clock, shared, None if scene else ahead)
            shared = None
            if plain:
                unguided = known_from(prompt, plain[scene], buffers, scene)
                self.read(plain[scene], how.samples, buffers, scenes + scene, clock, unguided)
        if self.config.family.question is not None and not remembered and len(last.patches):
            self._seen = Seen.of(last, buffers, scenes - 1)
        return buffers

    def read(
        self,
        prompt: Prompt,
        samples: int,
        buffers: Buffers,
        scene: int,
        clock: Stopwatch,
        shared: Known | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        """Encodes and prefills one scene, or what is not known of it yet, and gives its samples their first logits."""
        if shared is not None:
            with clock("prefill"):
                logits = reading.extend(self.model, prompt, shared, buffers, scene)
        else:
            begun = self.reader.read(prompt, clock) if ahead is None else ahead.reading
            logits = begun.logits(self.model, buffers, scene)
        buffers.logits[scene * samples : (scene + 1) * samples].copy_(logits)

    def _sent(self, x: torch.Tensor) -> torch.Tensor:
        return sent(x, self.device)


def tokens_of(ids: torch.Tensor, length: torch.Tensor) -> tuple[tuple[int, ...], ...]:
    """Each row's ids [R, n] without padding."""
    return tuple(tuple(row[:n].tolist()) for row, n in zip(ids, length, strict=True))
