"""The specification of inference: eager, one page, every intermediate named. The fast engine must equal this.

Observation -> prompt + patches -> prefill -> (fork S) -> reasoning -> flow matching -> kinematics -> Plan
"""

from __future__ import annotations

import secrets
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral

import torch

from alpamayo_r1.action import initial_speed, to_trajectory
from alpamayo_r1.config import ActionConfig, ModelConfig, TokenConfig
from alpamayo_r1.flow import integrate
from alpamayo_r1.prompt import Prompt, build_prompt
from alpamayo_r1.sampling import Draws, SamplingConfig, draw, sample_token
from alpamayo_r1.transformer import KV
from alpamayo_r1.types import Observation, Plan, Trajectory
from alpamayo_r1.vla import VLA
from alpamayo_r1.vocab import Vocabulary


@dataclass(frozen=True)
class Reasoning:
    """What S rows said after the prompt.

    `length[s]` tokens belong to row s and the actions stand after them. `seen[s]` of them are in the cache for the expert: all where the
    row ended, all but the last where it did not (the original never reads that one).
    """

    ids: torch.Tensor  # (S, n) i64, padded
    length: torch.Tensor  # (S,) i64
    seen: torch.Tensor  # (S,) i64
    ended: tuple[bool, ...]  # reached <|traj_future_start|>


@dataclass(frozen=True)
class Request:
    """What is asked of a planner, checked: how many futures, with which randomness, said how long, integrated in how many steps."""

    samples: int
    draws: Draws
    sampling: SamplingConfig
    forced: torch.Tensor | None  # (S, max_tokens) i64: reasoning given instead of sampled, padded after its end
    max_tokens: int
    steps: int


def plan(
    model: VLA,
    vocabulary: Vocabulary,
    observation: Observation,
    *,
    samples: int = 1,
    seed: int | None = None,
    noise: torch.Tensor | None = None,
    reasoning: str | Sequence[str] | None = None,
    temperature: float = 0.6,
    top_p: float = 0.98,
    top_k: int | None = None,
    max_tokens: int = 256,
    steps: int | None = None,
) -> Plan:
    """S futures for one observation.

    seed: of all randomness (None: a fresh one). noise f32[S, F, 2] replaces the flow's draw. reasoning: said instead of sampled, one
    text for all rows or one a row. max_tokens: new tokens at most. steps: Euler steps (None: the config's, 10).

    Raises:
        ValueError, TypeError: bad arguments, before any heavy work.
    """
    how = request(
        model.config,
        vocabulary,
        samples=samples,
        seed=seed,
        noise=noise,
        reasoning=reasoning,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        max_tokens=max_tokens,
        steps=steps,
    )
    clock = Clock(model.device)
    with clock("preprocess"):
        prompt = build_prompt(observation, vocabulary, model.config)
    return plan_prompt(model, vocabulary, prompt, observation.history, how, clock)


@torch.no_grad()  # no inference_mode: a Plan's tensors are the caller's, who may change them or differentiate through them
def plan_prompt(model: VLA, vocabulary: Vocabulary, prompt: Prompt, history: Trajectory, how: Request, clock: Clock | None = None) -> Plan:
    """S futures for one prepared prompt and the history it was made with."""
    clock = clock or Clock(model.device)
    with clock("prefill"):
        logits, prefix = model.prefill(prompt)
        rows = fork(prefix, how.samples)
    with clock("reasoning"):
        said, kv = reason(
            model, vocabulary, prompt, logits.expand(how.samples, -1), rows, how.draws, how.sampling, how.forced, how.max_tokens
        )
    with clock("flow"):
        actions = act(model, prompt, said, kv, how.draws.noise, how.steps)
    with clock("kinematics"):
        path = drive(model, start_of(history, model.config.action), actions)
    tokens = tuple(tuple(ids[:n].tolist()) for ids, n in zip(said.ids, said.length, strict=True))
    words = tuple(vocabulary.between(ids, "cot_start", "cot_end") for ids in tokens)
    return Plan(path.xyz, path.rot, words, actions.cpu(), said.ended, clock.timing, tokens)


def request(
    config: ModelConfig,
    vocabulary: Vocabulary,
    *,
    samples: int,
    seed: int | None,
    noise: torch.Tensor | None,
    reasoning: str | Sequence[str] | None,
    temperature: float,
    top_p: float,
    top_k: int | None,
    max_tokens: int,
    steps: int | None,
) -> Request:
    """The arguments of `plan` as a Request. Raises TypeError where one is of another type, ValueError where it is out of its range."""
    check_count("samples", samples)
    check_count("max_tokens", max_tokens)
    if steps is not None:
        check_count("steps", steps, f"None (the config's {config.flow_steps}) or ")
    if seed is not None and not isinstance(seed, Integral):
        raise TypeError(f"seed is {seed!r}, expected None (a fresh one) or an integer")
    sampling = SamplingConfig(temperature, top_p, top_k)
    texts = as_texts(reasoning, samples)
    forced = None if texts is None else force(vocabulary, texts, max_tokens)
    draws = make_draws(seed, noise, samples, config.action.n_waypoints, max_tokens)
    return Request(samples, draws, sampling, forced, max_tokens, steps or config.flow_steps)


def check_count(name: str, count: int, other: str = "") -> None:
    """Raises unless an argument is an integer of at least 1; other: what else it may be."""
    if not isinstance(count, Integral):
        raise TypeError(f"{name} is {count!r}, expected {other}an integer of at least 1")
    if count < 1:
        raise ValueError(f"{name} is {count}, expected {other}at least 1")


def fork(prefix: Sequence[KV], samples: int) -> list[KV]:
    """One prefix for S rows: a view, nothing is copied."""
    return [(k.expand(samples, -1, -1, -1), v.expand(samples, -1, -1, -1)) for k, v in prefix]


def reason(
    model: VLA,
    vocabulary: Vocabulary,
    prompt: Prompt,
    logits: torch.Tensor,
    kv: list[KV],
    draws: Draws,
    sampling: SamplingConfig,
    forced: torch.Tensor | None,
    max_tokens: int,
) -> tuple[Reasoning, list[KV]]:
    """Writes S rows of reasoning token by token until every row has ended (spec section 4).

    A row ends at `<|traj_future_start|>`, whose keys and values must be in the cache, at `<|im_end|>`, or after max_tokens.
    """
    ends = torch.tensor([vocabulary.ids["traj_future_start"], vocabulary.eos_token_id])
    blocked = trajectory_mask(model.config.tokens, logits.device)
    uniform = draws.uniform.to(logits.device)
    said: list[torch.Tensor] = []
    over = torch.zeros(len(logits), dtype=torch.bool)
    length = torch.zeros(len(logits), dtype=torch.long)
    for i in range(max_tokens):
        chosen = (
            sample_token(logits.float().masked_fill(blocked, -torch.inf), uniform[:, i], sampling).cpu() if forced is None else forced[:, i]
        )
        token = torch.where(over, vocabulary.pad_token_id, chosen)
        said.append(token)
        length += ~over
        over |= torch.isin(token, ends)
        last = i + 1 == max_tokens or bool(over.all())
        if not last or (token == ends[0]).any():
            logits, kv = model.next_logits(token.to(logits.device), prompt.next_position + i, kv)
        if last:
            break
    ids = torch.stack(said, 1)
    ended = (ids == ends[0]).any(1)
    warn_unfinished(ended, max_tokens)
    return Reasoning(ids, length, length - (~ended).long(), tuple(ended.tolist())), kv


def warn_unfinished(ended: torch.Tensor, max_tokens: int) -> None:
    """Warns when rows did not end: ended bool[S]."""
    if not ended.all():
        warnings.warn(
            f"{int((~ended).sum())} of {len(ended)} rows ended without <|traj_future_start|> (max_tokens is {max_tokens}): "
            "their trajectory is conditioned on unfinished reasoning",
            stacklevel=4,
        )


def force(vocabulary: Vocabulary, texts: Sequence[str], max_tokens: int) -> torch.Tensor:
    """Given reasoning as ids [S, max_tokens], padded after its end. Raises ValueError where it is too long, or not plain words."""
    rows = [vocabulary.reasoning_ids(text) for text in texts]
    longest = max(map(len, rows))
    if longest > max_tokens:
        raise ValueError(f"reasoning= takes {longest} tokens, but max_tokens is {max_tokens}: raise max_tokens or shorten the text")
    return torch.tensor([row + [vocabulary.pad_token_id] * (max_tokens - len(row)) for row in rows])


def trajectory_mask(tokens: TokenConfig, device: torch.device) -> torch.Tensor:
    """bool[vocab]: True at trajectory tokens, which reasoning never says."""
    ids = torch.arange(tokens.vocab, device=device)
    return (ids >= tokens.first) & (ids < tokens.first + tokens.count)


def act(model: VLA, prompt: Prompt, said: Reasoning, kv: Sequence[KV], noise: torch.Tensor, steps: int) -> torch.Tensor:
    """Flow matching from noise [S, F, 2] to physical actions f32[S, F, 2] (m/s^2, 1/m)."""
    keys = torch.arange(kv[0][0].shape[2], device=model.device)
    seen = keys < len(prompt) + said.seen.to(model.device)[:, None]
    first = prompt.next_position + said.length.to(model.device)

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        return model.velocity(x, t, kv, first, seen)

    return model.action_space.scale().physical(integrate(velocity, noise.to(model.device, torch.float32), steps))


@dataclass(frozen=True)
class Start:
    """Where the kinematics start from: the history's last speed in m/s and height in m, f32 scalars on the CPU."""

    speed: torch.Tensor
    height: torch.Tensor


def start_of(history: Trajectory, config: ActionConfig) -> Start:
    """The end of a history [H]."""
    history = Trajectory(history.xyz.cpu(), history.rot.cpu(), history.dt)
    return Start(initial_speed(history, config), history.xyz[-1, 2])


def drive(model: VLA, start: Start, actions: torch.Tensor) -> Trajectory:
    """Physical actions [S, F, 2] -> trajectory [S, F] in the ego frame, on the CPU: kinematics.

    Raises:
        ValueError: actions that are not numbers.
    """
    if not actions.isfinite().all():
        raise ValueError(
            f"the model's actions are not finite numbers: its weights are damaged, or too large for {model.dtype}; "
            "fetch the checkpoint again, or load it in bfloat16 or float32"
        )
    samples = len(actions)
    return to_trajectory(actions.cpu(), start.speed.expand(samples), start.height.expand(samples), model.config.action.dt)


def as_texts(reasoning: str | Sequence[str] | None, samples: int) -> tuple[str, ...] | None:
    """One text per row, or None."""
    if reasoning is None:
        return None
    texts = (reasoning,) * samples if isinstance(reasoning, str) else tuple(reasoning)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"reasoning holds {text!r}, expected text: one for all samples, or one per sample")
    if len(texts) != samples:
        raise ValueError(f"reasoning has {len(texts)} texts for {samples} samples: give one text, or one per sample")
    return texts


def fresh_seed() -> int:
    """A seed that was not asked for."""
    return secrets.randbits(31)


def make_draws(seed: int | None, noise: torch.Tensor | None, samples: int, waypoints: int, max_tokens: int) -> Draws:
    """The randomness of a plan: from the seed, the noise replaced where it is given."""
    draws = draw(fresh_seed() if seed is None else seed, samples, waypoints, max_tokens)
    if noise is None:
        return draws
    if not isinstance(noise, torch.Tensor):
        raise TypeError(f"noise is of type {type(noise).__name__}, expected a tensor of shape ({samples}, {waypoints}, 2)")
    if noise.shape != (samples, waypoints, 2):
        raise ValueError(f"noise has shape {tuple(noise.shape)}, expected ({samples}, {waypoints}, 2)")
    if not noise.isfinite().all():
        raise ValueError("noise holds NaN or infinity, expected draws of N(0, 1)")
    return Draws(noise.float(), draws.uniform)


class Clock:
    """Milliseconds by stage; waits for the device so that a stage's time is its own."""

    def __init__(self, device: torch.device):
        self.device, self.timing = device, {}

    @contextmanager
    def __call__(self, stage: str):
        start = self._now()
        yield
        self.timing[stage] = self.timing.get(stage, 0.0) + 1e3 * (self._now() - start)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def total_ms(timing: Mapping[str, float]) -> float:
    """The sum over stages."""
    return sum(timing.values())
