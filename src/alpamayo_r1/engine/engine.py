"""The fast planner: the results of `plan`, for several scenes at once.

    preprocess -> per scene: vision, prefill -> [sample | decode]* for all rows -> flow -> kinematics

Prompts are read once a scene and shared by its samples. Sampling, decoding and the flow are captured graphs on static buffers. A token's
end flags reach the host while its forward pass runs, so the host never makes the device wait, and no token is decoded in vain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, wraps

import torch

from alpamayo_r1.core.clock import Stopwatch
from alpamayo_r1.core.options import PlanOptions, Sampling
from alpamayo_r1.core.plan import DoesNotFit, roll_out, start_of, trajectory_mask, warn_unfinished
from alpamayo_r1.core.prompt import Prompt, chat_text, check_observation, fuse_history, rope_positions
from alpamayo_r1.core.request import Request, prepare
from alpamayo_r1.core.types import Observation, Plan, Trajectory
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.core.vocab import Vocabulary
from alpamayo_r1.engine import forward
from alpamayo_r1.engine.arena import Arena, Buffers, Capacity
from alpamayo_r1.engine.graphs import Graphs
from alpamayo_r1.engine.ops import draw_tokens
from alpamayo_r1.engine.pixels import Uploader, patches


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
        self.arena: Arena | None = None
        self._layouts: dict[tuple, tuple[torch.Tensor, torch.Tensor, int]] = {}

    @on_its_stream
    def plans(self, observations: Sequence[Observation], options: PlanOptions) -> list[Plan]:
        """S futures for each of several observations, all with the same request.

        Raises:
            ValueError, TypeError: as `alpamayo_r1.core.plan.plan`. DoesNotFit: see `reserve`.
        """
        how = prepare(options, self.config, self.vocabulary)
        if not observations:
            return []
        clock = Stopwatch(self.device)
        with clock("preprocess"):
            prompts = [self.prompt(one) for one in observations]
        return self.plan_prompts(prompts, [one.history for one in observations], how, clock)

    @on_its_stream
    @torch.inference_mode()
    def prompt(self, observation: Observation) -> Prompt:
        """The prompt of one observation, its patches on the device; token layouts are kept by image grid."""
        c = self.config
        check_observation(observation, c)
        frames = observation.frames.flatten(0, 1)
        made, grid = patches(frames, c.vision, (c.min_pixels, c.max_pixels), self.upload, self.dtype, self.exact_cpu)
        grids = (grid,) * len(frames)
        ids, positions, following = self._layout(grids)
        ids = fuse_history(ids, observation.history.xyz.cpu(), self.vocabulary, c)
        return Prompt(ids, positions, following, made, grids, self.vocabulary.id(c.image_token))

    def _layout(self, grids: tuple[tuple[int, int], ...]) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Ids before the history is put in, positions and next position of a prompt with these image grids."""
        if grids not in self._layouts:
            c = self.config
            text = chat_text([h * w // c.vision.merge**2 for h, w in grids], c.tokens.history_tokens)
            ids = torch.tensor(self.vocabulary.encode(text))
            self._layouts[grids] = ids, *rope_positions(ids, grids, self.vocabulary.id(c.image_token), c.vision.merge)
        return self._layouts[grids]

    @on_its_stream
    @torch.inference_mode()
    def plan_prompts(
        self, prompts: list[Prompt], histories: Sequence[Trajectory], how: Request, clock: Stopwatch | None = None
    ) -> list[Plan]:
        """S futures for each prepared prompt and the history it was made with. prompts: emptied, each forgotten once it is read.

        Raises:
            ValueError: not as many histories as prompts.
            DoesNotFit: see `reserve`.
        """
        if len(prompts) != len(histories):
            raise ValueError(f"{len(prompts)} prompts and {len(histories)} histories were given, expected one history for each prompt")
        clock = clock or Stopwatch(self.device)
        buffers = self.reserve(len(prompts), how.samples, how.max_tokens, max(map(len, prompts)))
        self.start(prompts, how, buffers)
        for scene in range(len(histories)):
            self.read(prompts.pop(0), how.samples, buffers, scene, clock)
        with clock("reasoning"):
            said = self.reason(how, buffers, len(histories))
        with clock("flow"):
            positions = self._positions
            self.graphs.run(("flow", *said, how.steps), lambda: forward.flow(self.model, buffers, how.steps, positions))
            starts = [start_of(history, self.config.action) for history in histories]  # while the device works
            found = (buffers.actions, buffers.ids, buffers.length, buffers.ended)
            normalised, ids, length, ended = (x.to("cpu", non_blocking=True) for x in found)
        if self.stream is not None:
            self.stream.synchronize()
        warn_unfinished(ended, how.max_tokens)
        plans = []
        with clock("kinematics"), torch.inference_mode(False), torch.no_grad():  # a Plan's tensors are the caller's, who may change them
            for scene, start in enumerate(starts):
                rows = slice(scene * how.samples, (scene + 1) * how.samples)
                actions = self._scale.physical(normalised[rows])
                path = roll_out(self.model.vla, start.expand(how.samples), actions)
                tokens = tuple(tuple(row[:n].tolist()) for row, n in zip(ids[rows], length[rows], strict=True))
                words = tuple(self.vocabulary.between(row, "cot_start", "cot_end") for row in tokens)
                plans.append(Plan(path.xyz, path.rot, words, actions, tuple(ended[rows].tolist()), {}, tokens))
        timing = clock.timing
        return [replace(one, timing=timing) for one in plans]

    @cached_property
    def _scale(self):
        return self.model.vla.action_space.scale()

    @cached_property
    def _blocked(self) -> torch.Tensor:
        return trajectory_mask(self.config.tokens, self.device)

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
                self.arena = Arena(self.config, wanted, self.device, self.dtype)
            self.model.line_ropes(self._positions)
        return self.arena.view(scenes, samples)

    def start(self, prompts: Sequence[Prompt], how: Request, buffers: Buffers) -> None:
        """Sets all rows to the start of their reasoning."""
        scenes, samples, limit = len(prompts), how.samples, how.max_tokens
        buffers.prompt.copy_(torch.tensor([len(prompt) for prompt in prompts]))
        buffers.next.copy_(torch.tensor([prompt.next_position for prompt in prompts]).repeat_interleave(samples))
        buffers.uniform[:, :limit].copy_(how.draws.uniform.repeat(scenes, 1))
        buffers.noise.copy_(how.draws.noise.repeat(scenes, 1, 1))
        buffers.forced.fill_(-1)
        if how.forced is not None:
            buffers.forced[:, :limit].copy_(how.forced.repeat(scenes, 1))
        for state in (buffers.step, buffers.length, buffers.over, buffers.ended):
            state.zero_()

    def read(self, prompt: Prompt, samples: int, buffers: Buffers, scene: int, clock: Stopwatch) -> None:
        """Encodes and prefills one scene, and gives its samples their first logits."""
        with clock("vision"):
            embedded = self.model.vla.vision.patch_embed(prompt.patches.to(self.device))
            prompt = replace(prompt, patches=embedded.new_empty(0))  # gives their memory back
            images = forward.encode(self.model, embedded, prompt.grids)
            del embedded
        with clock("prefill"):
            logits = forward.prefill(self.model, prompt, images, buffers, scene)
            buffers.logits[scene * samples : (scene + 1) * samples].copy_(logits)

    def reason(self, how: Request, buffers: Buffers, scenes: int) -> tuple[int, int]:
        """Writes every row's reasoning token by token until all rows are over; returns the shape that keys the graphs."""
        shape = (scenes, how.samples)
        sampled = torch.cuda.Event() if self.device.type == "cuda" else None
        positions = self._positions
        for i in range(how.max_tokens):
            self.graphs.run(("sample", *shape, how.sampling), lambda: self.say(how.sampling, buffers))
            if sampled is not None:
                sampled.record()
            last = i + 1 == how.max_tokens
            if not last:
                self.graphs.run(("decode", *shape), lambda: forward.decode(self.model, buffers, positions))
            if sampled is not None:
                sampled.synchronize()
            everyone_over, just_ended = buffers.flags.tolist()
            if last and just_ended:
                self.graphs.run(("decode", *shape), lambda: forward.decode(self.model, buffers, positions))
            if everyone_over:
                break
        return shape

    def say(self, sampling: Sampling, buffers: Buffers) -> None:
        """Chooses every row's next token and notes who is over."""
        b, v = buffers, self.vocabulary
        uniform = b.uniform.index_select(1, b.step)[:, 0]
        forced = b.forced.index_select(1, b.step)[:, 0]
        sampled = draw_tokens(b.logits, self._blocked, uniform, sampling)
        token = torch.where(forced >= 0, forced, sampled).masked_fill(b.over, v.pad_token_id)
        b.token.copy_(token)
        b.ids.index_copy_(1, b.step, token[:, None])
        b.length.add_(~b.over)
        ended = token == v.ids["traj_future_start"]
        b.ended.logical_or_(ended)
        b.over.logical_or_(ended | (token == v.eos_token_id))
        b.flags.copy_(torch.stack([b.over.all(), ended.any()]), non_blocking=True)
