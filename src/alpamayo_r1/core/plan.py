"""The specification of inference: eager, one page, every intermediate named. The fast engine must equal this.

Observation -> prompt + patches -> prefill -> (fork S) -> reasoning -> flow matching -> kinematics -> Plan
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alpamayo_r1.core.action import initial_speed, to_trajectory
from alpamayo_r1.core.clock import Clock
from alpamayo_r1.core.config import ActionConfig, TokenConfig
from alpamayo_r1.core.flow import integrate
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.prompt import Prompt, build_prompt
from alpamayo_r1.core.request import Request, prepare
from alpamayo_r1.core.sampling import sample_token
from alpamayo_r1.core.transformer import KV
from alpamayo_r1.core.types import Observation, Plan, Trajectory
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.core.vocab import Vocabulary


class DoesNotFit(MemoryError):
    """A plan that the device's memory cannot hold, said before it starts."""


def plan(model: VLA, vocabulary: Vocabulary, observation: Observation, options: PlanOptions) -> Plan:
    """S futures for one observation.

    Raises:
        ValueError, TypeError: options or an observation that do not fit the model, before any heavy work.
    """
    how = prepare(options, model.config, vocabulary)
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
        said, kv = reason(model, vocabulary, logits.expand(how.samples, -1), rows, prompt.next_position, how)
    with clock("flow"):
        actions = denoise(model, kv, len(prompt), prompt.next_position, said, how)
    with clock("kinematics"):
        path = roll_out(model, start_of(history, model.config.action).expand(how.samples), actions)
    tokens = said.tokens()
    words = tuple(vocabulary.between(ids, "cot_start", "cot_end") for ids in tokens)
    return Plan(path.xyz, path.rot, words, actions.cpu(), said.ended, clock.timing, tokens)


def fork(prefix: Sequence[KV], samples: int) -> list[KV]:
    """One prefix for S rows: a view, nothing is copied."""
    return [(k.expand(samples, -1, -1, -1), v.expand(samples, -1, -1, -1)) for k, v in prefix]


@dataclass(frozen=True)
class Reasoning:
    """What R rows said after their prompts.

    `length[r]` tokens belong to row r and the actions stand after them. `seen[r]` of them are in the cache for the expert: all where the
    row ended, all but the last where it did not (the original never reads that one).
    """

    ids: torch.Tensor  # (R, n) i64, padded
    length: torch.Tensor  # (R,) i64
    seen: torch.Tensor  # (R,) i64
    ended: tuple[bool, ...]  # reached <|traj_future_start|>

    def tokens(self) -> tuple[tuple[int, ...], ...]:
        """Each row's ids without padding."""
        return tuple(tuple(ids[:n].tolist()) for ids, n in zip(self.ids, self.length, strict=True))


def reason(
    model: VLA, vocabulary: Vocabulary, logits: torch.Tensor, kv: list[KV], position: int, how: Request
) -> tuple[Reasoning, list[KV]]:
    """Writes R rows of reasoning token by token until every row has ended (spec section 4).

    logits [R, vocab] of the first token, kv of what each row has read, position of the first token. A row ends at
    `<|traj_future_start|>`, whose keys and values must be in the cache, at `<|im_end|>`, or after how.max_tokens.
    """
    ends = torch.tensor([vocabulary.ids["traj_future_start"], vocabulary.eos_token_id])
    blocked = trajectory_mask(model.config.tokens, logits.device)
    uniform = how.draws.uniform.to(logits.device)
    said: list[torch.Tensor] = []
    over = torch.zeros(len(logits), dtype=torch.bool)
    length = torch.zeros(len(logits), dtype=torch.long)
    for i in range(how.max_tokens):
        if how.forced is None:
            chosen = sample_token(logits.float().masked_fill(blocked, -torch.inf), uniform[:, i], how.sampling).cpu()
        else:
            chosen = how.forced[:, i]
        token = torch.where(over, vocabulary.pad_token_id, chosen)
        said.append(token)
        length += ~over
        over |= torch.isin(token, ends)
        last = i + 1 == how.max_tokens or bool(over.all())
        if not last or (token == ends[0]).any():
            logits, kv = model.next_logits(token.to(logits.device), position + i, kv)
        if last:
            break
    ids = torch.stack(said, 1)
    ended = (ids == ends[0]).any(1)
    warn_unfinished(ended, how.max_tokens)
    return Reasoning(ids, length, length - (~ended).long(), tuple(ended.tolist())), kv


def warn_unfinished(ended: torch.Tensor, max_tokens: int) -> None:
    """Warns when rows did not end: ended bool[R]."""
    if not ended.all():
        warnings.warn(
            f"{int((~ended).sum())} of {len(ended)} rows ended without <|traj_future_start|> (max_tokens is {max_tokens}): "
            "their trajectory is conditioned on unfinished reasoning",
            stacklevel=4,
        )


def trajectory_mask(tokens: TokenConfig, device: torch.device) -> torch.Tensor:
    """bool[vocab]: True at trajectory tokens, which reasoning never says."""
    ids = torch.arange(tokens.vocab, device=device)
    return (ids >= tokens.first) & (ids < tokens.first + tokens.count)


def denoise(model: VLA, kv: Sequence[KV], read: int, position: int, said: Reasoning, how: Request) -> torch.Tensor:
    """Flow matching from noise [R, F, 2] to physical actions f32[R, F, 2] (m/s^2, 1/m).

    kv: of `read` prompt tokens and what was said; position: of the first token said.
    """
    keys = torch.arange(kv[0][0].shape[2], device=model.device)
    seen = keys < read + said.seen.to(model.device)[:, None]
    first = position + said.length.to(model.device)

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        return model.velocity(x, t, kv, first, seen)

    noise = how.draws.noise.to(model.device, torch.float32)
    return model.action_space.scale().physical(integrate(velocity, noise, how.steps))


@dataclass(frozen=True)
class Start:
    """Where the kinematics start from: the history's last speed in m/s and height in m, f32[...] on the CPU."""

    speed: torch.Tensor
    height: torch.Tensor

    def expand(self, rows: int) -> Start:
        """One start for several rows."""
        return Start(self.speed.expand(rows), self.height.expand(rows))


def start_of(history: Trajectory, config: ActionConfig) -> Start:
    """The end of a history [..., H]."""
    history = Trajectory(history.xyz.cpu(), history.rot.cpu(), history.dt)
    return Start(initial_speed(history, config), history.xyz[..., -1, 2])


def roll_out(model: VLA, start: Start, actions: torch.Tensor) -> Trajectory:
    """Physical actions [R, F, 2] -> trajectory [R, F] in the ego frame, on the CPU: kinematics.

    Raises:
        ValueError: actions that are not numbers.
    """
    if not actions.isfinite().all():
        raise ValueError(
            f"the model's actions are not finite numbers: its weights are damaged, or too large for {model.dtype}; "
            "fetch the checkpoint again, or load it in bfloat16 or float32"
        )
    return to_trajectory(actions.cpu(), start.speed, start.height, model.config.action.dt)
