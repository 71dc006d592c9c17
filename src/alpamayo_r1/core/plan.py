"""The specification of inference: eager, one page, every intermediate named. The fast engine must equal this.

Observation -> prompt + patches -> prefill -> (fork S) -> reasoning -> flow matching -> kinematics -> Plan
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from alpamayo_r1.core.action import initial_speed, to_trajectory
from alpamayo_r1.core.clock import Clock
from alpamayo_r1.core.config import ActionConfig, TokenConfig
from alpamayo_r1.core.family import Turn
from alpamayo_r1.core.flow import integrate
from alpamayo_r1.core.notes import Note, tell
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.prompt import Prompt, build_prompt, to_pictures
from alpamayo_r1.core.request import Request, prepare
from alpamayo_r1.core.sampling import sample_token
from alpamayo_r1.core.transformer import KV
from alpamayo_r1.core.types import Observation, Plan, Trajectory
from alpamayo_r1.core.vla import VLA, Images
from alpamayo_r1.core.vocab import Vocabulary, spoken


class DoesNotFit(MemoryError):
    """A plan that the device's memory cannot hold, said before it starts."""


def plan(model: VLA, vocabulary: Vocabulary, observation: Observation, options: PlanOptions) -> Plan:
    """S futures for one observation.

    Raises:
        ValueError, TypeError: options or an observation that do not fit the model, before any heavy work.
    """
    return plan_scene(model, vocabulary, observation, [options])[0]


def plan_scene(model: VLA, vocabulary: Vocabulary, observation: Observation, requests: Sequence[PlanOptions]) -> list[Plan]:
    """A plan for each request about one observation, whose pictures are encoded once. Raises as `plan`."""
    prepared = [prepare(options, model.config, vocabulary) for options in requests]
    clock = Clock(model.device)
    with clock("preprocess"):
        pictures = to_pictures(observation, model.config)
        prompts = [build_prompt(observation, vocabulary, model.config, options.navigation, pictures) for options in requests]
    if not prompts:
        return []
    with clock("vision"), torch.no_grad():
        images = model.see(prompts[0])
    return [
        plan_prompt(model, vocabulary, prompt, observation.history, how, clock.copy(), images)
        for prompt, how in zip(prompts, prepared, strict=True)
    ]


@torch.no_grad()  # no inference_mode: a Plan's tensors are the caller's, who may change them or differentiate through them
def plan_prompt(
    model: VLA,
    vocabulary: Vocabulary,
    prompt: Prompt,
    history: Trajectory,
    how: Request,
    clock: Clock | None = None,
    images: Images | None = None,
) -> Plan:
    """S futures for one prepared prompt and the history it was made with. images: what is seen in it, where that is known already."""
    clock = clock or Clock(model.device)
    with clock("prefill"):
        logits, prefix = model.prefill(prompt, images)
    with clock("reasoning"):
        said, kv = reason(model, vocabulary, logits.expand(how.samples, -1), fork(prefix, how.samples), prompt.next_position, how)
    with clock("flow"):
        velocity = velocity_after(model, kv, len(prompt), prompt.next_position, said)
        if how.guidance is not None and prompt.navigation is not None:
            without = velocity_without_navigation(model, prompt, prompt.navigation.start, prefix, said)
            velocity = guide(velocity, without, how.guidance)
        actions = denoise(model, velocity, how)
    with clock("kinematics"):
        path = roll_out(model, start_of(history, model.config.action).expand(how.samples), actions)
    tokens = said.tokens()
    words = tuple(spoken(vocabulary, ids, "cot", opened=True) for ids in tokens)
    notes = prompt.notes + note_unfinished(said.ended, how.max_tokens)
    tell(notes, stacklevel=5)
    return Plan(path.xyz, path.rot, words, actions.cpu(), said.ended, clock.timing, tokens, notes)


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
    """Writes R rows of reasoning, or of an answer, token by token until every row has ended (spec section 4).

    logits [R, vocab] of the first token, kv of what each row has read, position of the first token. A row ends at the token that ends its
    turn (`<|traj_future_start|>`), whose keys and values must be in the cache, at `<|im_end|>`, or after how.max_tokens.
    """
    turn = how.turn
    end = torch.tensor([vocabulary.ids[turn.ends]] if turn.ends else [], dtype=torch.long)
    blocked = blocked_tokens(turn, model.config.tokens, logits.device)
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
        ending = torch.isin(token, end)
        over |= ending | (token == vocabulary.eos_token_id)
        last = i + 1 == how.max_tokens or bool(over.all())
        if not last or ending.any():
            logits, kv = model.next_logits(token.to(logits.device), position + i, kv)
        if last:
            break
    ids = torch.stack(said, 1)
    ended = torch.isin(ids, end).any(1)
    return Reasoning(ids, length, length - (~ended).long(), tuple(ended.tolist())), kv


def note_unfinished(ended: Sequence[bool], max_tokens: int) -> tuple[Note, ...]:
    """A note where rows did not end."""
    if all(ended):
        return ()
    text = (
        f"{len(ended) - sum(ended)} of {len(ended)} rows ended without <|traj_future_start|> (max_tokens is {max_tokens}): "
        "their trajectory is conditioned on unfinished reasoning"
    )
    return (Note("reasoning-unfinished", text),)


def blocked_tokens(turn: Turn, tokens: TokenConfig, device: torch.device) -> torch.Tensor:
    """bool[vocab]: True at tokens that are never said in a turn: trajectory tokens in reasoning, none in an answer."""
    ids = torch.arange(tokens.vocab, device=device)
    return (ids >= tokens.first) & (ids < tokens.first + tokens.count) & turn.blocks_trajectory


Velocity = Callable[[torch.Tensor, float], torch.Tensor]
"""The flow's velocity at x f32[R, F, 2] and time t -> f32[R, F, 2]."""


def velocity_after(model: VLA, kv: Sequence[KV], read: int, position: int, said: Reasoning, seen: torch.Tensor | None = None) -> Velocity:
    """The expert's velocity given `read` prompt tokens and what was said.

    kv: of both; position: of the first token said; seen [R]: how many of the tokens said the expert sees (None: said.seen).
    """
    keys = torch.arange(kv[0][0].shape[2], device=model.device)
    mask = keys < read + (said.seen if seen is None else seen).to(model.device)[:, None]
    first = position + said.length.to(model.device)
    return lambda x, t: model.velocity(x, t, kv, first, mask)


def velocity_without_navigation(model: VLA, prompt: Prompt, start: int, prefix: Sequence[KV], said: Reasoning) -> Velocity:
    """The velocity after the same words, had the prompt no navigation text, which starts at token `start`.

    Attention is causal, so keys and values before the text are those of the prompt with it. Of a row that did not end all words are seen,
    the last one too (spec15 section 4).
    """
    plain = prompt.without_navigation()
    before = [(k[:, :, :start], v[:, :, :start]) for k, v in prefix]
    _, read = model.extend(plain.ids[None, start:].to(model.device), plain.positions[:, None, start:].to(model.device), before)
    ids = said.ids.to(model.device)
    positions = (plain.next_position + torch.arange(ids.shape[1], device=model.device)).expand(3, *ids.shape)
    _, kv = model.extend(ids, positions, fork(read, len(ids)))
    return velocity_after(model, kv, len(plain), plain.next_position, said, said.length)


def guide(guided: Velocity, unguided: Velocity, weight: float) -> Velocity:
    """Classifier-free guidance: v = (1 - w) v_unguided + w v_guided at the same x and t."""
    return lambda x, t: (1 - weight) * unguided(x, t) + weight * guided(x, t)


def denoise(model: VLA, velocity: Velocity, how: Request) -> torch.Tensor:
    """Flow matching from x_0 [R, F, 2] to physical actions f32[R, F, 2] (m/s^2, 1/m)."""
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
