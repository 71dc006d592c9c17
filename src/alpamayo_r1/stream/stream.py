"""A stream of plans: each equal to a fresh plan of the same observation in every bit, and sooner.

    take: recognise pictures | read: see the new ones, read the prompt, its beginning ahead | speak: words by the last step's, flow

What is kept between steps is a function of what it was made from alone: a picture's features of its bytes, keys and values of the first
tokens of their ids and pictures. So a step that comes late, twice, out of order or never needs no care, and nothing has to be told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import torch

from alpamayo_r1.core.clock import Clock, Stopwatch
from alpamayo_r1.core.gate.history import check_history
from alpamayo_r1.core.gate.observation import check_observation
from alpamayo_r1.core.gate.pictures import as_pixels, check_cameras, note_flat, note_layout, note_small
from alpamayo_r1.core.images import target_size, to_patches
from alpamayo_r1.core.notes import Note
from alpamayo_r1.core.options import PlanKeywords, PlanOptions, check_draws
from alpamayo_r1.core.plan import plan_prompt
from alpamayo_r1.core.prompt import Pictures, Prompt, build_prompt, picture_headers
from alpamayo_r1.core.request import Request, fresh_seed, prepare
from alpamayo_r1.core.types import FRAMES, Observation, Plan, Trajectory
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.core.vocab import Vocabulary
from alpamayo_r1.stream.album import Album, Picture
from alpamayo_r1.stream.flight import Flight, nothing
from alpamayo_r1.stream.window import STEP_US, Window

if TYPE_CHECKING:
    from alpamayo_r1.engine.engine import Engine
    from alpamayo_r1.engine.memory import Known
    from alpamayo_r1.engine.reader import Reading


@dataclass(frozen=True)
class Reused:
    """What a step did not have to do: pictures that had been seen before, and tokens of the prompt that had been read ahead."""

    pictures: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Scene:
    """What a step is about: an observation without pixels, its pictures by number, camera-major and oldest to newest, and their size."""

    blank: Observation
    numbers: tuple[int, ...]
    size: tuple[int, int]
    notes: tuple[Note, ...]

    @classmethod
    def of(cls, cameras: Sequence[str], numbers: Sequence[int], size: Sequence[int], history: Trajectory, t0_us: int, notes) -> Scene:
        """A scene of as many pictures for each camera."""
        frames = torch.empty(len(cameras), len(numbers) // len(cameras), 3, 0, 0, dtype=torch.uint8)
        height, width = size
        return cls(Observation(frames, tuple(cameras), history, t0_us), tuple(numbers), (height, width), tuple(notes))

    @property
    def each(self) -> int:
        """Pictures per camera."""
        return self.blank.frames.shape[1]


@dataclass(frozen=True)
class Step:
    """A step that was taken: its scene, the pictures of it, and what is asked. copied: none of the caller's pixels are used any more."""

    scene: Scene
    pictures: tuple[Picture, ...]
    options: PlanOptions
    how: Request
    clock: Clock | Stopwatch
    copied: bool = False


@dataclass(frozen=True)
class Coming:
    """What may be read ahead: the next prompt's layout, and its first pictures."""

    prompt: Prompt
    numbers: tuple[int, ...]
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class ReadAhead:
    """Keys and values of a prompt's first tokens, and what they are a function of: the ids and the pictures that stand there."""

    ids: torch.Tensor
    numbers: tuple[int, ...]
    keys: Known

    def fits(self, prompt: Prompt, numbers: Sequence[int], count: int) -> bool:
        """Whether a prompt about these pictures begins with the same `count` tokens."""
        return count == len(self.ids) and self.numbers == tuple(numbers[: FRAMES - 1]) and torch.equal(self.ids, prompt.ids[:count])


class Stream:
    """Plans along one drive, made by `planner.stream(...)`. Steps come from one thread.

    options: of every plan, its seed set. draws "kept": every step draws from the options' seed, so that words and noise change only where
    what is seen does; "fresh": step n (from 0) draws from seed + n. Each step's distribution is the model's either way.

    seed: of the step that came last. reused: what the step that was planned last did not have to do again.
    """

    def __init__(
        self, model: VLA, vocabulary: Vocabulary, engine: Engine | None, options: PlanOptions, draws: Literal["kept", "fresh"] = "kept"
    ):
        check_draws(draws)
        self.model, self.vocabulary, self.engine, self.draws = model, vocabulary, engine, draws
        seed = fresh_seed() if options.seed is None else int(options.seed)
        self.options, self.seed, self.steps = options.updated({"seed": seed}), seed, 0
        self.reused = Reused()
        self._how: Request | None = None
        self._flight = Flight(*threads_of(engine))
        self._doubtful = False  # whether a step failed on its way
        self._album, self._window = Album(), Window()
        self.last_words: tuple[tuple[int, ...], ...] = ()
        self._step: Step | None = None
        self._ahead: ReadAhead | None = None
        self._coming: Coming | None = None
        self._keys: Known | None = None

    def forget(self) -> None:
        """Begins anew: what was kept is let go."""
        self._album.clear()
        self._window.clear()
        self.last_words, self._step, self._ahead, self._coming, self._keys = (), None, None, None, None

    @overload
    def step(self, seen: Observation, /, **changes: Unpack[PlanKeywords]) -> Plan: ...

    @overload
    def step(self, seen: Mapping[str, Any], history: Trajectory, t0_us: int, /, **changes: Unpack[PlanKeywords]) -> Plan: ...

    def step(
        self,
        seen: Observation | Mapping[str, Any],
        history: Trajectory | None = None,
        t0_us: int | None = None,
        /,
        **changes: Unpack[PlanKeywords],
    ) -> Plan:
        """The plan of one step: to the bit `planner.plan(observation, ...)` with the stream's options.

        seen: an observation, or in a live loop the newest picture of each camera by name (a uint8 tensor [3, h, w], an array [h, w, 3] or
        a PIL image) with the history and t0 that go with them. The pictures at t0 - 0.3 s to t0 - 0.1 s are then those of the
        steps before, the nearest in time; a note "stream-gap" says where there is none, and a camera that brought none shows its
        newest. `observation` is what was planned.
        changes: options of this step alone, such as navigation=.

        Raises:
            ValueError, TypeError: as `planner.plan`; pictures of more than one size; a live step without history or t0.
        """
        if self._flight.busy():
            return self._submit(seen, history, t0_us, changes).result()
        try:
            with torch.autocast(self.model.device.type, enabled=False):
                step = self._take(seen, history, t0_us, changes)
                return self._speak(step, *self._read(step))
        except BaseException:
            self.forget()  # what was half done is not gone on with
            raise

    @overload
    def submit(self, seen: Observation, /, **changes: Unpack[PlanKeywords]) -> Future[Plan]: ...

    @overload
    def submit(self, seen: Mapping[str, Any], history: Trajectory, t0_us: int, /, **changes: Unpack[PlanKeywords]) -> Future[Plan]: ...

    def submit(
        self,
        seen: Observation | Mapping[str, Any],
        history: Trajectory | None = None,
        t0_us: int | None = None,
        /,
        **changes: Unpack[PlanKeywords],
    ) -> Future[Plan]:
        """`step` for who does not wait: the plan to come, the same to the bit. Two devices read a step while they speak about the last.

        Plans come in the order of their steps. At most AT_ONCE are on their way: a third call waits until the first of them is there. The
        pictures are the caller's again when this returns. What is wrong with a step its future raises, and no other one.
        """
        return self._submit(seen, history, t0_us, changes)

    def _submit(self, seen: Any, history: Trajectory | None, t0_us: int | None, changes: PlanKeywords) -> Future[Plan]:
        self._flight.wait_for_room()
        try:
            step = self._take(seen, history, t0_us, changes)
            self._keep_copies(step)
            self._album.settle()
        except Exception as problem:
            self.forget()
            failed: Future[Plan] = Future()
            failed.set_exception(problem)
            return failed
        for device in {picture.pixels.device for picture in step.pictures if picture.pixels.is_cuda}:
            torch.cuda.current_stream(device).synchronize()  # other threads' streams know nothing of this one's copies
        step = replace(step, copied=True)
        return self._flight.launch(lambda: self._read(step), lambda found: self._finish(step, found))

    def _finish(self, step: Step, found: Callable[[], tuple[Prompt, Reading | None, Reused]]) -> Plan:
        """Speaks about a step once it is read."""
        try:
            return self._speak(step, *found())
        except BaseException:
            self._doubtful = True
            raise

    @property
    def observation(self) -> Observation | None:
        """What the step that came last planned, its pictures copied; None before the first."""
        if self._step is None:
            return None
        blank = self._step.scene.blank
        frames = torch.stack([picture.pixels for picture in self._step.pictures])
        return replace(blank, frames=frames.unflatten(0, blank.frames.shape[:2]))

    def read_ahead(self) -> int:
        """Reads what is known of the next step's prompt: how many tokens. On a GPU every step does so itself, while nobody waits.

        On the CPU call it where a loop waits for its next pictures. Nothing is read by the specification, after a step whose pictures were
        all new, or twice.
        """
        return self._flight.in_turn(self._read_ahead)

    def _read_ahead(self) -> int:
        coming, self._coming = self._coming, None
        if coming is None or self.engine is None:
            return 0
        self._ahead, reader = None, self.engine.reader
        count, keys = reader.early(coming.prompt), self._keys
        if keys is None or keys.count != count:
            keys = self._keys = reader.keys_for(count)
        reader.read_ahead(coming.prompt, features_of(coming.pictures), keys)
        self._ahead = ReadAhead(coming.prompt.ids[:count], coming.numbers, keys)
        return count

    def _take(self, seen: Any, history: Trajectory | None, t0_us: int | None, changes: PlanKeywords) -> Step:
        """A step as it came: checked, its pictures recognised."""
        if self._doubtful:
            self._doubtful = False
            self.forget()
        options = self.options.updated(changes) if changes else self.options
        if self.draws == "fresh" and "seed" not in changes:
            assert self.options.seed is not None
            options = options.updated({"seed": int(self.options.seed) + self.steps})
        clock = Clock(self.model.device) if self.engine is None else Stopwatch(self.model.device)
        with clock("preprocess"):
            scene = self._whole(seen) if isinstance(seen, Observation) else self._newest(seen, history, t0_us)
            self._album.touch(scene.numbers)
            how = self._request(options)
        step = Step(scene, tuple(map(self._album.__getitem__, scene.numbers)), options, how, clock)
        assert options.seed is not None
        self._step, self.seed, self.steps = step, int(options.seed), self.steps + 1
        return step

    def _keep_copies(self, step: Step) -> None:
        """Begins to copy the pictures of a step; half as many again, which may come back, stay in the album too."""
        self._album.keep(len(step.pictures) * 3 // 2)

    @property
    def overlaps(self) -> bool:
        """Whether a step is read while another one is spoken about, where they are submitted: on two devices."""
        return self.engine is not None and self.engine.reader.apart

    def _read(self, step: Step) -> tuple[Prompt, Reading | None, Reused]:
        """The prompt of a step, its pictures seen; read, or about to be, where there is an engine; what was known of it."""
        numbers, clock = step.scene.numbers, step.clock
        unseen = [one for one in dict(zip(numbers, step.pictures, strict=True)).values() if one.features is None]
        reused = Reused(len(set(numbers)) - len(unseen))
        self._see(unseen, clock)
        if not step.copied:
            self._keep_copies(step)
        prompt = self._prompt(step.scene, step.options)  # while the device sees
        if self.engine is None or not isinstance(clock, Stopwatch):
            return prompt, None, reused
        reader, before = self.engine.reader, self._ahead
        count = reader.early(prompt)
        keys = before.keys if before is not None and before.fits(prompt, numbers, count) else None
        reused = replace(reused, tokens=count if keys else 0)
        reading = reader.read(prompt, clock, features_of(step.pictures), keys)
        follows = count > 0 and reused.pictures > 0 and step.scene.each >= FRAMES
        self._coming = Coming(prompt, numbers[1:FRAMES], step.pictures[1:FRAMES]) if follows else None
        if reader.apart:
            self._read_ahead()
        return prompt, reading, reused

    def _speak(self, step: Step, prompt: Prompt, reading: Reading | None, reused: Reused) -> Plan:
        """The plan of a step that was read."""
        history, how, clock = step.scene.blank.history, step.how, step.clock
        if reading is None or self.engine is None or not isinstance(clock, Stopwatch):
            assert isinstance(clock, Clock)
            tokens, *deep = (torch.cat(features) for features in zip(*features_of(step.pictures), strict=True))
            plan = plan_prompt(self.model, self.vocabulary, prompt, history, how, clock, (tokens, deep))
            self._let_go(step)
        else:
            from alpamayo_r1.engine.reader import Ahead

            def then() -> None:
                if self.model.device.type == "cuda":
                    self._read_ahead()
                self._let_go(step)

            last = self.said_last(how.samples)
            alone = self.engine.reader.apart
            ahead = Ahead(reading, last, (lambda: self._let_go(step)) if alone else then)
            plan = self.engine.plan_prompts([prompt], [history], how, clock, ahead)[0]
        self.last_words, self.reused = plan.tokens, reused
        return plan

    def said_last(self, rows: int) -> tuple[tuple[int, ...], ...]:
        """What each row said a step ago: the first drafts of what it says now; () where there were not as many rows."""
        return self.last_words if len(self.last_words) == rows else ()

    def _let_go(self, step: Step) -> None:
        """Waits until none of the caller's pixels are used any more."""
        if not step.copied:
            self._album.settle()

    def _whole(self, observation: Observation) -> Scene:
        """The scene of an observation, its pictures recognised."""
        notes, frames = check_observation(observation, self.model.config), observation.frames
        numbers = self._album.find(frames.flatten(0, 1).unbind())
        if frames.shape[1] == FRAMES:
            for k in range(FRAMES):
                t_us = observation.t0_us - (FRAMES - 1 - k) * STEP_US
                self._window.put(t_us, dict(zip(observation.cameras, numbers[k::FRAMES], strict=True)))
        return Scene.of(observation.cameras, numbers, frames.shape[-2:], observation.history, observation.t0_us, notes)

    def _newest(self, pictures: Mapping[str, Any], history: Trajectory | None, t0_us: int | None) -> Scene:
        """The scene at t0 out of the newest pictures and those before."""
        c = self.model.config
        frames = check_newest(pictures, history, t0_us)
        assert history is not None and t0_us is not None
        notes = check_history(history, c.tokens.history_tokens // 3)
        t0_us, numbers = int(t0_us), dict(zip(pictures, self._album.find(frames), strict=True))
        size = frames[0].shape[-2:]
        self._window.put(t0_us, numbers)
        order = c.family.cameras
        chosen = self._window.choose(t0_us, order, lambda n: n in self._album and self._album[n].pixels.shape[-2:] == size)
        check_cameras(chosen.cameras, len(chosen.cameras), c.family)
        flat = [note for name, frame in zip(pictures, frames, strict=True) for note in note_flat(frame[None, None], (name,))]
        notes = (*note_layout(len(chosen.cameras), FRAMES, c.family), *note_small(*size), *flat, *notes, *chosen.notes)
        return Scene.of(chosen.cameras, chosen.numbers, size, history, t0_us, notes)

    def _request(self, options: PlanOptions) -> Request:
        """The request of a step; that of the stream's own options is made once."""
        if options is not self.options:
            return prepare(options, self.model.config, self.vocabulary)
        if self._how is None:
            self._how = prepare(options, self.model.config, self.vocabulary)
        return self._how

    def _prompt(self, scene: Scene, options: PlanOptions) -> Prompt:
        """The prompt of a scene, without patches: its pictures are seen already, or apart."""
        c, v = self.model.config, self.model.config.vision
        height, width = target_size(*scene.size, c.min_pixels, c.max_pixels, v.patch * v.merge)
        grids = ((height // v.patch, width // v.patch),) * len(scene.numbers)
        pictures = Pictures(torch.empty(0, v.patch_dim), grids, picture_headers(scene.blank, c.family), scene.notes)
        if self.engine is not None:
            return self.engine.prompt(scene.blank, options.navigation, pictures)
        return build_prompt(scene.blank, self.vocabulary, c, options.navigation, pictures)

    def _see(self, unseen: Sequence[Picture], clock: Clock | Stopwatch) -> None:
        """Gives pictures their features."""
        if not unseen:
            return
        if isinstance(clock, Stopwatch):
            assert self.engine is not None
            found = self.engine.reader.see([one.pixels for one in unseen], clock)
            for one, features in zip(unseen, found, strict=True):
                one.features = features
            return
        c = self.model.config
        for one in unseen:
            with clock("preprocess"):
                patches, grid = to_patches(one.pixels[None], c.vision, c.min_pixels, c.max_pixels)
            with clock("vision"), torch.no_grad():
                tokens, deep = self.model.encode(patches.to(self.model.device), (grid,))
                one.features = (tokens, *deep)


def threads_of(engine: Engine | None) -> list[Callable[[], None]]:
    """What the threads of a stream begin with: one, or one that reads and one that speaks where the engine does so on two devices."""
    if engine is None:
        return [nothing]
    return [engine.reader.lane.settle, engine.lane.settle] if engine.reader.apart else [engine.lane.settle]


def features_of(pictures: Sequence[Picture]) -> list[Sequence[torch.Tensor]]:
    """The features of each picture, which were seen: image tokens, then each DeepStack layer's."""
    return [picture.features for picture in pictures if picture.features is not None]


def check_newest(pictures: Any, history: Any, t0_us: Any) -> list[torch.Tensor]:
    """The newest pictures as u8[3, h, w] each.

    Raises:
        TypeError: no mapping of pictures by camera, no history, or a t0 that is no integer. ValueError: no picture, or two sizes.
    """
    if not isinstance(pictures, Mapping):
        raise TypeError(
            f"a step was given a {type(pictures).__name__}, expected an Observation, or the newest pictures as a mapping from camera names "
            "with history and t0_us behind it"
        )
    if history is None or t0_us is None:
        raise TypeError("a step with the newest pictures needs their history and t0_us too: step(pictures, history, t0_us)")
    if not isinstance(t0_us, Integral) or isinstance(t0_us, bool):
        raise TypeError(f"t0_us is {t0_us!r}, expected microseconds as an integer")
    frames = [as_pixels(picture) for picture in pictures.values()]
    sizes = {tuple(frame.shape[-2:]) for frame in frames}
    if len(sizes) != 1:
        said = "no pictures" if not sizes else f"pictures of {len(sizes)} sizes {sorted(sizes)}"
        raise ValueError(f"a step was given {said}, expected one picture at least, all of one height and width")
    return frames
