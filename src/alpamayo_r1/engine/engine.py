"""The fast planner: the results of `plan`, for several scenes at once.

    preprocess -> per scene: vision, prefill -> words for all rows -> flow -> kinematics

Prompts are read once per scene and shared by its samples. Passes of words and the flow are captured graphs on static buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial, wraps

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
from alpamayo_r1.core.types import Answers, Observation, Plan, Trajectory
from alpamayo_r1.core.vision import Grid
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.core.vocab import Vocabulary, spoken
from alpamayo_r1.engine import forward
from alpamayo_r1.engine.arena import Arena, Buffers, Capacity, Said
from alpamayo_r1.engine.drafts import Table
from alpamayo_r1.engine.graphs import Graphs
from alpamayo_r1.engine.memory import Ahead, Known, Seen, early, joined, known_from
from alpamayo_r1.engine.ops.launch import sent
from alpamayo_r1.engine.pixels import Uploader, patches
from alpamayo_r1.engine.words import Rules, Speaker

LAYOUTS = 64
"""Texts of prompts whose ids and positions are kept."""

NO_TOKEN = -1


def on_its_stream(method: Callable) -> Callable:
    """Runs an engine's method on its own stream of the model's GPU, after what was queued before and before what comes after.

    Graphs are captured on that stream too, so that the vendor's libraries keep one workspace, not two. On the CPU: as it is.
    """

    @wraps(method)
    def run(engine: Engine, *arguments, **options):
        if engine.stream is None:
            return method(engine, *arguments, **options)
        with torch.cuda.device_of(engine.model.zero):
            caller = torch.cuda.current_stream()
            engine.stream.wait_stream(caller)
            try:
                with torch.cuda.stream(engine.stream):
                    return method(engine, *arguments, **options)
            finally:
                caller.wait_stream(engine.stream)

    return run


class Engine:
    """A planner that keeps its buffers and graphs between plans. Not for concurrent use.

    The model's weights are fused in place; `plan` (the specification) still runs on the same model.
    graphs: capture CUDA graphs (None: on a GPU). exact_cpu: resize frames by the specification's code, where they are.
    """

    def __init__(self, model: VLA, vocabulary: Vocabulary, *, graphs: bool | None = None, exact_cpu: bool = False):
        self.config, self.vocabulary, self.exact_cpu = model.config, vocabulary, exact_cpu
        self.device, self.dtype = model.device, model.dtype
        with torch.no_grad():  # no inference_mode: the fused weights stay the module's, which others may write to
            self.model = forward.Model(model)
        self.upload = Uploader(self.device)
        self.stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self.graphs = Graphs(self.device.type == "cuda" if graphs is None else graphs, self.stream)
        self.speaker = Speaker(self.model, self.graphs, Table())
        self.arena: Arena | None = None
        self._layouts: dict[tuple, Prompt] = {}
        self._masks: dict[Turn, torch.Tensor] = {}
        self._seen: Seen | None = None

    @on_its_stream
    def plans(self, observations: Sequence[Observation], options: PlanOptions) -> list[Plan]:
        """S futures for each of several observations, all with the same request.

        Raises:
            ValueError, TypeError: as `alpamayo_r1.core.plan.plan`. DoesNotFit: see `reserve`.
        """
        how = prepare(options, self.config, self.vocabulary)
        clock = Stopwatch(self.device)
        with clock("preprocess"):
            notes = [check_observation(one, self.config) for one in observations]  # all first: a look at a GPU's pictures waits for it
        if len(observations) == 1:
            pictures, ahead = self.look(observations[0], clock, notes[0])
            every = [pictures]
        else:
            with clock("preprocess"):
                every, ahead = [self.pictures(one, noted) for one, noted in zip(observations, notes, strict=True)], None
        with clock("preprocess"):
            prompts = [self.prompt(one, options.navigation, seen) for one, seen in zip(observations, every, strict=True)]
        return self.plan_prompts(prompts, [one.history for one in observations], how, clock, ahead)

    @on_its_stream
    def plan_scene(self, observation: Observation, requests: Sequence[PlanOptions]) -> list[Plan]:
        """A plan for each request about one observation, read once up to where the navigation texts part. Requests differ in these alone.

        Raises:
            ValueError, TypeError: as `alpamayo_r1.core.plan.plan`. DoesNotFit: see `reserve`.
        """
        prepared = [prepare(options, self.config, self.vocabulary) for options in requests]
        clock = Stopwatch(self.device)
        with clock("preprocess"):
            notes = check_observation(observation, self.config)
        pictures, ahead = self.look(observation, clock, notes)
        with clock("preprocess"):
            prompts = [self.prompt(observation, options.navigation, pictures) for options in requests]
        return self.plan_prompts(prompts, [observation.history] * len(prompts), prepared[0], clock, ahead) if prompts else []

    @on_its_stream
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

    @on_its_stream
    @torch.inference_mode()
    def pictures(self, observation: Observation, notes: tuple[Note, ...] | None = None) -> Pictures:
        """The patches of an observation, on the device. notes: of its check, where it was checked already."""
        notes = check_observation(observation, self.config) if notes is None else notes
        frames = observation.frames.flatten(0, 1)
        made, grid = self._patches(frames)
        return Pictures(made, (grid,) * len(frames), picture_headers(observation, self.config.family), notes)

    @on_its_stream
    @torch.inference_mode()
    def look(self, observation: Observation, clock: Stopwatch, notes: tuple[Note, ...]) -> tuple[Pictures, Ahead]:
        """The patches of an observation that was checked, and their features: while a GPU sees the first, the host copies the next."""
        made: list[torch.Tensor] = []
        seen: list[list[torch.Tensor]] = []
        grids: list[Grid] = []
        for frames in observation.frames.flatten(0, 1).split(self.model.together):
            with clock("preprocess"):
                some, grid = self._patches(frames)
            with clock("vision"):
                seen.append(forward.encode(self.model, some.to(self.device), (grid,) * len(frames), self.graphs))
            made.append(some)
            grids += [grid] * len(frames)
        with clock("vision"):
            images = joined(seen)
        headers = picture_headers(observation, self.config.family)
        return Pictures(torch.cat(made), tuple(grids), headers, notes), Ahead(lambda: images)

    def prompt(self, observation: Observation, navigation: str | None = None, pictures: Pictures | None = None) -> Prompt:
        """The prompt of one observation, its patches on the device. pictures: where they are made already."""
        pictures = pictures or self.pictures(observation)
        prompt = self._arranged(pictures, planning_chat(pictures, self.config, navigation))
        ids = fuse_history(prompt.ids, observation.history.xyz.cpu(), self.vocabulary, self.config)
        return replace(prompt, ids=ids)

    def _arranged(self, pictures: Pictures, text: str) -> Prompt:
        """A prompt before the history is put in; layouts are kept by their text."""
        key = text, pictures.grids
        if key not in self._layouts:
            if len(self._layouts) >= LAYOUTS:
                self._layouts.clear()
            ids = torch.tensor(self.vocabulary.encode(text))
            self._layouts[key] = arrange(ids, pictures.patches[:0], pictures.grids, self.vocabulary, self.config)
        return replace(self._layouts[key], patches=pictures.patches, notes=pictures.notes)

    @on_its_stream
    @torch.inference_mode()
    def see(self, frames: Sequence[torch.Tensor], clock: Stopwatch) -> list[tuple[torch.Tensor, ...]]:
        """Each picture u8[3, h, w], all of one size, as the language model sees it: image tokens [n, hidden], then DeepStack features."""
        with clock("preprocess"):
            made, grid = self._patches(frames)
        with clock("vision"):
            features = forward.encode(self.model, made.to(self.device), (grid,) * len(frames), self.graphs)
            apart = zip(*(one.chunk(len(frames)) for one in features), strict=True)
            return [tuple(part.clone() for part in of_one) for of_one in apart]  # each on its own, to be forgotten on its own

    @on_its_stream
    @torch.inference_mode()
    def read_ahead(self, prompt: Prompt, pictures: Sequence[Sequence[torch.Tensor]], into: Known) -> None:
        """Reads a prompt's first `into.count` tokens. pictures: features of at least those that stand in them."""
        forward.read_early(self.model, prompt, joined(pictures), into.kv)

    def early(self, prompt: Prompt) -> int:
        """How many tokens of a prompt may be read ahead."""
        return early(prompt, self.model.tile)

    def keys_for(self, count: int) -> Known:
        """Room for the keys and values of so many tokens."""
        text = self.config.text
        shape = 1, text.kv_heads, count, text.head_dim
        layers = ((torch.zeros(shape, device=self.device, dtype=self.dtype) for _ in range(2)) for _ in range(text.layers))
        return Known(tuple((keys, values) for keys, values in layers), count)

    @on_its_stream
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
        arrived = self.stream.record_event() if self.stream is not None else None
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

    @on_its_stream
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
        shared = self._seen.known(first) if self._seen is not None and how.turn == self.config.family.question else None
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
                logits = forward.extend(self.model, prompt, shared, buffers, scene)
        else:
            with clock("vision"):
                images = self._encode(prompt) if ahead is None else ahead.images()
            with clock("prefill"):
                logits = forward.prefill(self.model, prompt, images, buffers, scene, ahead.keys if ahead else None)
        buffers.logits[scene * samples : (scene + 1) * samples].copy_(logits)

    def _sent(self, x: torch.Tensor) -> torch.Tensor:
        return sent(x, self.device)

    def _patches(self, frames: torch.Tensor | Sequence[torch.Tensor]) -> tuple[torch.Tensor, Grid]:
        c = self.config
        return patches(frames, c.vision, (c.min_pixels, c.max_pixels), self.upload, self.dtype, self.exact_cpu)

    def _encode(self, prompt: Prompt) -> list[torch.Tensor]:
        return forward.encode(self.model, prompt.patches.to(self.device), prompt.grids, self.graphs)


def tokens_of(ids: torch.Tensor, length: torch.Tensor) -> tuple[tuple[int, ...], ...]:
    """Each row's ids [R, n] without padding."""
    return tuple(tuple(row[:n].tolist()) for row, n in zip(ids, length, strict=True))
