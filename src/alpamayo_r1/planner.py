"""Checkpoint in, planner out: device, dtype and the fast or the plain path are chosen here."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import torch

from alpamayo_r1.core.answer import answer_prompt, ask
from alpamayo_r1.core.card import card_bytes, free_bytes, limit
from alpamayo_r1.core.checkpoint import READS, SPEAKS, load_checkpoint, load_model, precision_of, weight_bytes
from alpamayo_r1.core.config import ModelConfig, read_config
from alpamayo_r1.core.gate.values import check_flag, check_real, check_type
from alpamayo_r1.core.hub import checkpoint_folder
from alpamayo_r1.core.notes import Note, tell
from alpamayo_r1.core.options import AskKeywords, AskOptions, PlanKeywords, PlanOptions, ScenePlanKeywords
from alpamayo_r1.core.plan import DoesNotFit, plan, plan_prompt, plan_scene
from alpamayo_r1.core.precision import PRECISIONS, Precision, precision_named
from alpamayo_r1.core.prompt import Prompt
from alpamayo_r1.core.request import Request, seeded
from alpamayo_r1.core.types import Answers, Observation, Plan, Trajectory
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.core.vocab import Vocabulary

if TYPE_CHECKING:
    from alpamayo_r1.engine.engine import Engine
    from alpamayo_r1.stream import Stream


@dataclass(frozen=True)
class Planner:
    """A loaded model that plans. `engine` is the fast path, None where the specification in plan.py runs.

    The model's dtype is the dtype of the arithmetic, inside `torch.autocast` too.
    """

    model: VLA
    vocabulary: Vocabulary
    engine: Engine | None = None

    @classmethod
    def of(cls, model: VLA, vocabulary: Vocabulary, fast: bool | None = None) -> Planner:
        """The planner of a model where it is: the one place where the fast or the plain path is chosen. fast: as in `load`."""
        return cls(model, vocabulary, make_engine(model, vocabulary) if runs_fast(model.device, fast, model.dtype) else None)

    @classmethod
    def pair(cls, reader: VLA, speaker: VLA, vocabulary: Vocabulary) -> Planner:
        """The planner of one model on two devices: `reader` has at least the weights that see and read, `speaker` those that plan.

        Plans are those of one device of the same kind, to the bit. Raises ValueError where the engine is not there.
        """
        check_pair(speaker.device)
        from alpamayo_r1.engine.engine import Engine
        from alpamayo_r1.engine.pair import FarReader

        return cls(speaker, vocabulary, Engine(speaker, vocabulary, reader=FarReader(reader)))

    @overload
    def plan(self, observation: Observation, options: PlanOptions | None = None, /, **changes: Unpack[PlanKeywords]) -> Plan: ...

    @overload
    def plan(
        self,
        observation: Observation,
        options: PlanOptions | None = None,
        /,
        *,
        navigation: list[str | None],
        **changes: Unpack[ScenePlanKeywords],
    ) -> list[Plan]: ...

    def plan(self, observation: Observation, options: PlanOptions | None = None, /, **changes: Any) -> Plan | list[Plan]:
        """S futures for one observation. options, or their defaults, with some changed by name: `plan(observation, samples=6, seed=42)`.

        navigation: a text, or a list of texts (None: without) for as many plans, which see the pictures once.

        Raises:
            ValueError, TypeError: options or an observation that do not fit, before any heavy work.
        """
        texts = changes.get("navigation")
        if not isinstance(texts, list):
            return self.plans([observation], options, **changes)[0]
        weight = changes.get("guidance", PlanOptions.of(options, {}).guidance)
        options = seeded(PlanOptions.of(options, {**changes, "navigation": None, "guidance": None}))
        requests = [options.updated({"navigation": text, "guidance": weight}) for text in texts]
        with torch.autocast(self.model.device.type, enabled=False):
            if self.engine is not None:
                return self.engine.plan_scene(observation, requests)
            return plan_scene(self.model, self.vocabulary, observation, requests)

    def stream(
        self, options: PlanOptions | None = None, /, *, draws: Literal["kept", "fresh"] = "kept", **changes: Unpack[PlanKeywords]
    ) -> Stream:
        """Plans along a drive: `stream.step(observation)` is `plan(observation, ...)` with the same options, to the bit, and sooner.

        draws "kept": all steps draw from one seed (None: a fresh one). "fresh": step n draws from seed + n. See docs/streaming.md.

        Raises:
            ValueError, TypeError: options that do not fit, or another word for draws.
        """
        from alpamayo_r1.stream import Stream  # here so that a package without stream/ still works

        return Stream(self.model, self.vocabulary, self.engine, seeded(PlanOptions.of(options, changes)), draws)

    def stepper(self, options: PlanOptions) -> Callable[..., Plan]:
        """What plans one observation of a drive after the other, with options changed by name: a stream's step.

        In a copy of the package without the room stream/ it is `plan`, whose plans are the same.
        """
        if find_spec("alpamayo_r1.stream") is None:
            return lambda observation, **changes: self.plan(observation, options, **changes)
        return self.stream(options).step

    @overload
    def plans(
        self, observations: Sequence[Observation], options: PlanOptions | None = None, /, **changes: Unpack[PlanKeywords]
    ) -> list[Plan]: ...

    @overload
    def plans(
        self,
        observations: Sequence[Observation],
        options: PlanOptions | None = None,
        /,
        *,
        navigation: list[str | None],
        **changes: Unpack[ScenePlanKeywords],
    ) -> list[Plan]: ...

    def plans(self, observations: Sequence[Observation], options: PlanOptions | None = None, /, **changes: Any) -> list[Plan]:
        """A plan for each observation, all with one seed (None: one fresh seed for all); the engine takes them at once.

        navigation: one text for all, or a list with one (None: without) for each observation.

        Raises:
            ValueError, TypeError: as `plan`.
        """
        if not isinstance(observations, Sequence):
            raise TypeError(f"observations are of type {type(observations).__name__}, expected a list of them")
        texts, own = changes.get("navigation"), PlanOptions.of(options, {})
        if not isinstance(texts, list):
            texts = [changes.get("navigation", own.navigation)] * len(observations)
        if len(texts) != len(observations):
            raise ValueError(f"navigation has {len(texts)} texts for {len(observations)} observations: give one text, or one for each")
        weight = changes.get("guidance", own.guidance)
        options = seeded(PlanOptions.of(options, {**changes, "navigation": None, "guidance": None}))
        requests = [options.updated({"navigation": text, "guidance": weight}) for text in texts]
        with torch.autocast(self.model.device.type, enabled=False):
            if self.engine is not None:
                return self.engine.plans(observations, requests[0] if requests else options, texts)
            return [plan(self.model, self.vocabulary, *one) for one in zip(observations, requests, strict=True)]

    @overload
    def ask(
        self, observation: Observation, question: str, options: AskOptions | None = None, /, **changes: Unpack[AskKeywords]
    ) -> Answers: ...

    @overload
    def ask(
        self, observation: Observation, question: list[str], options: AskOptions | None = None, /, **changes: Unpack[AskKeywords]
    ) -> list[Answers]: ...

    def ask(
        self, observation: Observation, question: str | list[str], options: AskOptions | None = None, /, **changes: Unpack[AskKeywords]
    ) -> Answers | list[Answers]:
        """S answers to a question about one observation, or to each of several, which see the pictures once.

        options, or their defaults, with some changed by name: `ask(observation, "Describe the scene.", seed=42)`. The car's past is not
        shown. The engine does not read a scene again that it has just planned or been asked about.

        Raises:
            ValueError, TypeError: a model that answers no questions; a question, options or an observation that do not fit.
        """
        options = seeded(AskOptions.of(options, changes))
        questions = [question] if isinstance(question, str) else list(question)
        with torch.autocast(self.model.device.type, enabled=False):
            if self.engine is not None:
                answers = self.engine.ask(observation, questions, options)
            else:
                answers = ask(self.model, self.vocabulary, observation, questions, options)
        return answers[0] if isinstance(question, str) else answers

    def plan_prompt(self, prompt: Prompt, history: Trajectory, how: Request) -> Plan:
        """S futures for one prepared prompt and the history it was made with. Without navigation text there is nothing to guide."""
        if prompt.navigation is None:
            how = replace(how, guidance=None)
        with torch.autocast(self.model.device.type, enabled=False):
            if self.engine is not None:
                return self.engine.plan_prompts([prompt], [history], how)[0]
            return plan_prompt(self.model, self.vocabulary, prompt, history, how)

    def answer_prompt(self, prompt: Prompt, question: str, how: Request) -> Answers:
        """S answers to one prepared prompt; question: what the answers shall say was asked."""
        with torch.autocast(self.model.device.type, enabled=False):
            if self.engine is not None:
                return self.engine.answer_prompts([prompt], [question], how)[0]
            return answer_prompt(self.model, self.vocabulary, prompt, question, how)


def load(
    checkpoint: str | Path = "small",
    *,
    device: str = "auto",
    dtype: torch.dtype | str | None = None,
    fast: bool | None = None,
    word_table: str = "auto",
    precision: str | None = None,
    memory: float | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Planner:
    """Loads "small" (bundled), a checkpoint folder or a Hub repository.

    device "auto": cuda where there is one, else cpu; "cuda:0,cuda:1": one card sees and reads, the other speaks and plans, see
    docs/streaming.md. dtype: a torch.dtype or its name, "bfloat16" or "float32" (None: bf16 on cuda, fp32 on the CPU). fast None: the
    engine on cuda, and in fp32 on the CPU, where it says the specification's words; else plan.py. word_table: "device", "host" (pinned; a
    GPU reads its rows in place: the same plans with 1.3 of the 10B's 22 GB less on the card), "auto": host where the weights take most of
    the card. precision: "bf16", "fp8", "w8", "w4" or "tight", see docs/precision.md; "auto": the first of them that fits, which a note
    says; None: as the checkpoint is stored. memory: GiB of the card that this process behaves as if it had. revision, cache_dir, token,
    local_files_only: as in `huggingface_hub.snapshot_download`.

    Raises:
        ValueError, TypeError: a device that is not here, a dtype that is none, a word_table or precision that there is not, memory that the
            card has not. DoesNotFit: weights and a plan of one sample do not fit the card; says what would.
        ConfigError, CheckpointError, HubError: what is wrong with the checkpoint.
    """
    devices = pick_devices(device)
    where = devices[0]
    dtype = pick_dtype(dtype, where)
    if fast is not None:
        check_flag("fast", fast)
    if len(devices) > 1:
        check_pair(where, fast)
    if not isinstance(word_table, str) or word_table not in WORD_TABLES:
        raise ValueError(f"word_table is {word_table!r}, expected one of {', '.join(WORD_TABLES)}")
    check_type("precision", precision, (str, type(None)), "text, or None")
    if precision not in (None, "auto"):
        precision_named(precision)
    if memory is not None:
        check_real("memory", memory, 0, 1e6)
        for one in devices:
            limit(one, memory)
    if where.type == "cpu":
        note_spinning()
    hub = {"cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
    folder = checkpoint_folder(checkpoint, revision=revision, **hub)
    config = read_config(folder)
    if len(devices) > 1 and where.type == "cuda":
        where = min(devices, key=free_bytes)
    few = chosen(config, precision, where, dtype, as_stored(folder, precision))
    on_host = where.type == "cuda" and (word_table == "host" or (word_table == "auto" and fills(config, few, dtype, where)))
    if len(devices) > 1:
        reads, speaks = devices
        reader = load_model(folder, dtype=dtype, device=reads, precision=few, words_on_host=on_host, parts=READS)
        speaker, vocabulary = load_checkpoint(folder, dtype=dtype, device=speaks, precision=few, words_on_host=on_host, parts=SPEAKS, **hub)
        return Planner.pair(reader, speaker, vocabulary)
    model, vocabulary = load_checkpoint(folder, dtype=dtype, device=where, precision=few, words_on_host=on_host, **hub)
    return Planner.of(model, vocabulary, fast)


WORD_TABLES = ("auto", "device", "host")
MOST_OF_A_CARD = 0.8


def fills(config: ModelConfig, precision: Precision | None, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a model's weights take most of a card's memory."""
    return weight_bytes(config, precision or PRECISIONS["bf16"], dtype) > MOST_OF_A_CARD * card_bytes(device)


def as_stored(folder: Path, precision: str | None) -> Precision | None:
    """What a checkpoint of few bits is stored in, None for others. Raises ValueError where another precision was asked for."""
    stored = precision_of(folder)
    if stored is not None and precision not in (None, "auto", stored.name):
        raise ValueError(
            f"{folder} is stored in {stored.name}, precision is {precision!r}: leave it out, or load the checkpoint that this was made from"
        )
    return stored


def chosen(
    config: ModelConfig, name: str | None, device: torch.device, dtype: torch.dtype, stored: Precision | None = None
) -> Precision | None:
    """What the weights become: the precision of a name, of "auto" the best that fits the device. None: as they are stored.

    stored: of a checkpoint of few bits, which stays as it is. A note says what "auto" took, and where w8 stands in for fp8 on a card
    without products of it.

    Raises:
        DoesNotFit: not even a plan of one sample fits the card.
    """
    if device.type == "cpu" or find_spec("alpamayo_r1.engine") is None:
        return stored or (None if name in (None, "auto") else PRECISIONS[name])
    from alpamayo_r1.engine.ops.eight import has_fp8_products
    from alpamayo_r1.engine.room import most_samples, said_to_fit, what_fits

    tokens, free = PlanOptions.max_tokens, free_bytes(device)
    lacking = () if has_fp8_products(device) else ("fp8",)
    if name == "auto" and stored is None:
        fitting = {one: samples for one, samples in what_fits(config, dtype, tokens, free) if one not in lacking}
        name = next(iter(fitting), "tight")
        text = f"precision auto took {name}: {free / 1e9:.1f} GB are free, room for {fitting.get(name, 1)} samples of {tokens} tokens"
        tell([Note("precision-auto", text)], stacklevel=3)
    if name in lacking and stored is None:
        name, text = "w8", "this card or this PyTorch multiplies no fp8 with a scale per row: the weights become int8 (w8) instead"
        tell([Note("precision-lacking", text)], stacklevel=3)
    few = stored or PRECISIONS[name or "bf16"]
    if not most_samples(config, few, dtype, 64, free):
        raise DoesNotFit(
            f"the weights in {few.name} and a plan of one sample do not fit: {free / 1e9:.1f} GB are free on {device}. What fits: "
            f"{said_to_fit(config, dtype, tokens, free)}; load with precision= one of these, or 'auto'"
        )
    return None if name is None and stored is None else few


@cache
def note_spinning() -> None:
    """Warns once (NoteWarning "threads-spin") where OpenMP's threads spin while they wait.

    `import alpamayo_r1` asks them to sleep, by OMP_WAIT_POLICY, unless torch is there already, which has read it by then.
    """
    settled = any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"))
    if settled or torch.get_num_threads() == 1:
        return
    text = (
        "torch was imported before alpamayo_r1, so that its threads spin while they wait: on busy cores a plan takes 6 to 30 s instead of "
        "0.7. Import alpamayo_r1 before torch, or set OMP_WAIT_POLICY=PASSIVE before Python starts (ACTIVE says that you know)"
    )
    tell([Note("threads-spin", text)], stacklevel=3)


def runs_fast(device: torch.device, fast: bool | None = None, dtype: torch.dtype = torch.float32) -> bool:
    """Whether the engine plans: as told, or (None) where it is faster and says the specification's words: on CUDA, and in fp32 on the CPU.

    Where Triton is missing on CUDA a warning says so and the specification plans.
    """
    if fast is not None:
        return fast
    if device.type != "cuda":
        return dtype == torch.float32 and find_spec("alpamayo_r1.engine") is not None
    if find_spec("triton") is None:
        warnings.warn(
            "Triton is not installed, so the specification plans, several times slower than the engine: pip install triton (Linux) or "
            "triton-windows; fast=False says that you know",
            stacklevel=2,
        )
        return False
    return True


def make_engine(model: VLA, vocabulary: Vocabulary) -> Engine:
    """The fast path; imported here so that a package without engine/ still works."""
    from alpamayo_r1.engine.engine import Engine

    return Engine(model, vocabulary)


def pick_device(name: str) -> torch.device:
    """ "auto", "cpu", "cuda" or "cuda:1" -> a device that is here. Raises ValueError where there is none of that name."""
    if isinstance(name, str) and "," in name:
        raise ValueError(f"device is {name!r}: two devices share the work of plans alone, give one here")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name) if isinstance(name, str) else None
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {name!r}, expected 'auto', 'cpu', 'cuda' or 'cuda:N'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device is {name!r}, but this machine has {torch.cuda.device_count()} CUDA devices: use 'cpu' or 'auto'")
    return device


def pick_devices(name: str) -> tuple[torch.device, ...]:
    """The device of a name as `pick_device` takes it, or of "cuda:0,cuda:1" the two: the one that reads, the one that speaks.

    Raises:
        ValueError: a device that is not here, more than two, twice the same card, a card and the CPU, a card without its number.
    """
    names = name.split(",") if isinstance(name, str) else [name]
    if len(names) == 1:
        return (pick_device(name),)
    example = "expected two cards such as 'cuda:0,cuda:1': the first sees and reads, the second speaks and plans"
    if len(names) > 2:
        raise ValueError(f"device is {name!r}, {len(names)} devices: {example}")
    reads, speaks = (pick_device(one.strip()) for one in names)
    if "auto" in map(str.strip, names) or reads.type != speaks.type or (reads.type == "cuda" and None in (reads.index, speaks.index)):
        raise ValueError(f"device is {name!r}: {example}")
    if reads.type == "cuda" and reads == speaks:
        raise ValueError(f"device is {name!r}, twice the same card: {example}, or {names[0].strip()!r} for one card")
    return reads, speaks


def check_pair(device: torch.device, fast: bool | None = None) -> None:
    """Raises ValueError where two devices cannot share the work: without the engine, or its part for two."""
    if fast is False:
        raise ValueError("fast is False, but two devices share the work of the engine alone: leave fast out, or give one device")
    if find_spec("alpamayo_r1.engine") is None or find_spec("alpamayo_r1.engine.pair") is None:
        raise ValueError("two devices need engine/pair.py, which this copy of the package lacks: give one device, or install the whole")
    if device.type == "cuda" and find_spec("triton") is None:
        raise ValueError("two cards need Triton, which is not installed: pip install triton (Linux) or triton-windows, or give one card")


DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.bfloat16, torch.float32, torch.float16, torch.float64)}
"""What the model's arithmetic may be, by name."""


def pick_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """A dtype or its name -> the dtype; None: bf16 on cuda, fp32 elsewhere.

    Raises:
        ValueError: no floating-point type by that name. TypeError: neither a dtype nor text.
    """
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if not isinstance(dtype, torch.dtype | str):
        raise TypeError(f"dtype is {dtype!r}, expected a torch.dtype or one of {', '.join(DTYPES)}")
    wanted = DTYPES.get(dtype.removeprefix("torch.")) if isinstance(dtype, str) else dtype
    if wanted is None or wanted not in DTYPES.values():
        raise ValueError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    return wanted
