"""What the original's classes have in common: loading, devices, the caller's batch as single scenes, plans as tensors. No arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np
import torch

from alpamayo_r1.core.checkpoint import load_checkpoint, resave, weights_dtype
from alpamayo_r1.core.config import read_config, read_json
from alpamayo_r1.core.family import KINDS, R1, Family
from alpamayo_r1.core.gate.batch import check_tokens, tensor
from alpamayo_r1.core.gate.history import check_history
from alpamayo_r1.core.gate.values import check_tensors, check_texts, check_type, path_of
from alpamayo_r1.core.hub import checkpoint_folder
from alpamayo_r1.core.options import PlanOptions, check_count, check_finite
from alpamayo_r1.core.prompt import Prompt, arrange, assemble
from alpamayo_r1.core.request import prepare
from alpamayo_r1.core.types import Trajectory
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.core.vocab import QwenVocabulary, Vocabulary, spoken
from alpamayo_r1.models.tokenizer import Tokenizer
from alpamayo_r1.planner import Planner, pick_device

HINTS = {
    "torch_dtype": "say dtype=",
    "device_map": "say device=, or .to(device)",
    "attn_implementation": "attention is PyTorch's own on every device; leave it out",
    "trust_remote_code": "nothing that a checkpoint names is ever run; leave it out",
    "max_new_tokens": "say max_generation_length=",
    "num_inference_steps": 'say diffusion_kwargs={"inference_step": n}',
}
"""What to say instead of arguments that this package does not know."""


@dataclass(frozen=True)
class ActionSpaceShape:
    """The shape of one action: `waypoints` steps of (acceleration, curvature)."""

    waypoints: int

    def get_action_space_dims(self) -> tuple[int, int]:
        """(64, 2)."""
        return self.waypoints, 2


class Pretrained:
    """A checkpoint with its tokenizer. `config` holds the values of the released config.json as attributes."""

    FAMILY: ClassVar[Family] = R1

    def __init__(self, model: VLA, vocabulary: QwenVocabulary, folder: Path, fast: bool | None = None):
        self.model, self.vocabulary, self.folder, self.fast = model, vocabulary, folder, fast
        self._planner: Planner | None = None
        self.config = SimpleNamespace(**read_json(folder / "config.json"))
        self.tokenizer = Tokenizer(vocabulary, model.config)
        self.action_space = ActionSpaceShape(model.config.action.n_waypoints)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str = "cpu",
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        fast: bool | None = None,
        **unknown: Any,
    ) -> Self:
        """A checkpoint folder, "small" (bundled), or a repository on the Hub such as "nvidia/Alpamayo-R1-10B".

        dtype: None or "auto" for the config's. device: the weights go straight there, without a copy on the CPU. fast: the engine or the
        specification; None is the engine on CUDA, and on the CPU in float32.

        Raises:
            ConfigError, CheckpointError, HubError: what is wrong and what to do. TypeError: an unknown argument.
        """
        refuse("from_pretrained", unknown)
        hub = {"cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
        folder = checkpoint_folder(pretrained_model_name_or_path, revision=revision, **hub)
        check_family(read_config(folder).family, cls.FAMILY)
        model, vocabulary = load_checkpoint(folder, dtype=as_dtype(dtype), device=pick_device(str(device)), **hub)
        return cls(model, vocabulary, folder, fast)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes the checkpoint as it is laid out where it came from; unchanged weights give the same bytes."""
        resave(self.folder, path_of("save_directory", save_directory), self.model)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype."""
        return self.model.dtype

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Moves or casts the weights in place, as nn.Module.to."""
        self._planner = None
        self.model.to(*args, **kwargs)
        return self

    @property
    def planner(self) -> Planner:
        """The planner of the model where it is now."""
        if self._planner is None:
            self._planner = Planner.of(self.model, self.vocabulary, self.fast)
        return self._planner

    def eval(self) -> Self:
        """Evaluation mode, which it always is in."""
        self.model.eval()
        return self

    def parameters(self):
        """The weights."""
        return self.model.parameters()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The weights and buffers by the release's names."""
        return self.model.state_dict()

    def _sample(
        self,
        data: Mapping[str, Any],
        shared: PlanOptions,
        rows: tuple[int, int],
        noise: torch.Tensor | None,
        reasoning: Sequence[str] | None,
        guidance: float | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, np.ndarray]]:
        """B scenes, rows = (sets, S) each; noise and reasoning have a row for each of B * sets * S.

        guidance: weight of the navigation text that prompts may hold; it is beside the options, since the text is in the data.
        """
        if guidance is not None:
            check_finite("inference_guidance_weight", guidance)
        scenes = read_scenes(data, self.model, self.vocabulary)
        shape = (len(scenes), *rows)
        check_rows(shape, noise, reasoning)
        each = prod(rows)
        shared = replace(shared, samples=each, seed=self._seed(shared.seed))
        parts = [None] * len(scenes) if noise is None else noise.split(each)
        texts = [None] * len(scenes) if reasoning is None else [reasoning[i : i + each] for i in range(0, len(reasoning), each)]
        requests = [
            replace(prepare(replace(shared, noise=part, reasoning=said), self.model.config, self.vocabulary), guidance=guidance)
            for part, said in zip(parts, texts, strict=True)
        ]
        plans = [self.planner.plan_prompt(*scene, how) for scene, how in zip(scenes, requests, strict=True)]
        xyz, rot = (torch.cat(part).unflatten(0, shape).to(self.device) for part in ([p.xyz for p in plans], [p.rot for p in plans]))
        return xyz, rot, words([ids for plan in plans for ids in plan.tokens], shape, self.vocabulary, ("cot",))

    def _seed(self, seed: int | None) -> int:
        """The given seed, or one from the default generator of the model's device."""
        return torch.randint(2**31, (), device=self.device).item() if seed is None else seed  # type: ignore[return-value]  # of integers


def refuse(function: str, unknown: Mapping[str, Any]) -> None:
    """Raises TypeError if there are unknown arguments, with what to say instead."""
    if unknown:
        said = "; ".join(f"{name}= ({HINTS.get(name, 'no such argument')})" for name in unknown)
        raise TypeError(f"{function} does not know {said}")


CLASSES = {
    "Alpamayo-R1": "alpamayo_r1.models.alpamayo_r1.AlpamayoR1",
    "Alpamayo 1.5": "alpamayo1_5.models.alpamayo1_5.Alpamayo1_5",
}
"""Family -> the original's class for it."""


def check_family(found: Family, wanted: Family) -> None:
    """Raises ValueError unless a checkpoint is of the class's family: its prompts would be another's."""
    if found != wanted:
        raise ValueError(
            f"this is a checkpoint of {found.name}, and {CLASSES[wanted.name]} writes the prompts of {wanted.name}: "
            f"use {CLASSES[found.name]}, or alpamayo_r1.load, which knows both"
        )


def as_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A dtype or its name; None and "auto" mean the config's."""
    return None if dtype == "auto" else weights_dtype(dtype)


def flow_settings(diffusion_kwargs: Mapping[str, Any] | None, known: Sequence[str]) -> dict[str, Any]:
    """The caller's diffusion_kwargs but for int_method. Raises TypeError for any other setting than the known ones."""
    check_type("diffusion_kwargs", diffusion_kwargs, (Mapping, type(None)), 'a dict such as {"inference_step": 10}, or None')
    settings = dict(diffusion_kwargs or {})
    if settings.pop("int_method", "euler") != "euler" or not set(settings) <= set(known):
        keys = ", ".join(f'"{key}"' for key in known)
        raise TypeError(f"diffusion_kwargs is {dict(diffusion_kwargs or {})}: expected {keys} only; the flow is integrated by Euler")
    return settings


def plan_options(
    seed: int | None, temperature: float, top_p: float, top_k: int | None, max_tokens: int, settings: Mapping[str, Any]
) -> PlanOptions:
    """The original's arguments, and what `flow_settings` gave, as ours."""
    flow = settings.get("temperature")
    return PlanOptions(
        seed=seed,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        max_tokens=max_tokens,
        steps=settings.get("inference_step"),
        flow_temperature=1.0 if flow is None else flow,
    )


Predicted = tuple[torch.Tensor, torch.Tensor] | tuple[torch.Tensor, torch.Tensor, dict[str, np.ndarray]]
"""pred_xyz and pred_rot, and with return_extra what was said."""


def picked(predicted: tuple[torch.Tensor, torch.Tensor, dict[str, np.ndarray]], return_extra: bool) -> Predicted:
    """What the caller wants of a prediction."""
    return predicted if return_extra else predicted[:2]


def check_rows(shape: tuple[int, int, int], noise: torch.Tensor | None, reasoning: Sequence[str] | None) -> None:
    """Raises ValueError unless sets and S are at least 1 and noise and reasoning have a row for each of B * sets * S."""
    scenes, sets, samples = shape
    check_count("num_traj_sets", sets)
    check_count("num_traj_samples", samples)
    rows = scenes * sets * samples
    if isinstance(reasoning, str):
        raise ValueError(
            f"reasoning is one text, expected a list of {rows}: one for each of {scenes} scenes x {sets} sets x {samples} samples"
        )
    if noise is not None:
        check_tensors(noise=(noise, (-1, 2)))
    if reasoning is not None:
        check_texts("reasoning", reasoning, '["Keep lane."]')
    for name, given in (("noise", noise), ("reasoning", reasoning)):
        if given is not None and len(given) != rows:
            raise ValueError(f"{name} has {len(given)} rows, expected {rows}: {scenes} scenes x {sets} sets x {samples} samples")


def read_scenes(data: Mapping[str, Any], model: VLA, vocabulary: Vocabulary) -> list[tuple[Prompt, Trajectory]]:
    """The caller's batch as single scenes to plan, without padding; nothing of it is changed."""
    rows = list(read_rows(data, model, vocabulary))
    steps = model.config.tokens.history_tokens // 3
    xyz = tensor(data, "ego_history_xyz", (len(rows), 1, steps, 3), floating=True).float().cpu()
    rot = tensor(data, "ego_history_rot", (len(rows), 1, steps, 3, 3), floating=True).float().cpu()
    histories = [Trajectory(x[0], r[0], model.config.action.dt) for x, r in zip(xyz, rot, strict=True)]
    return [
        (assemble(*row, history, vocabulary, model.config, check_history(history, steps)), history)
        for row, history in zip(rows, histories, strict=True)
    ]


def read_questions(data: Mapping[str, Any], model: VLA, vocabulary: Vocabulary) -> list[Prompt]:
    """The caller's batch as single prompts to answer, without padding; no history is put in."""
    return [arrange(*row, vocabulary, model.config) for row in read_rows(data, model, vocabulary)]


Row = tuple[torch.Tensor, torch.Tensor, tuple[tuple[int, int], ...]]
"""One prompt of a batch: its ids without padding, the patches of its images, and their grids."""


def read_rows(data: Mapping[str, Any], model: VLA, vocabulary: Vocabulary) -> Iterator[Row]:
    """The rows of the caller's "tokenized_data"."""
    ids, mask, patches, grids = check_tokens(data, model.config)
    rows = [row[keep].cpu() for row, keep in zip(ids, mask, strict=True)]
    pictures = deal_images(rows, patches, grids, vocabulary.id(model.config.image_token), model.config.vision.merge)
    for row, picture in zip(rows, pictures, strict=True):
        yield row, *picture


def deal_images(
    rows: Sequence[torch.Tensor], patches: torch.Tensor, grids: Sequence[Sequence[int]], image_id: int, merge: int
) -> list[tuple[torch.Tensor, tuple[tuple[int, int], ...]]]:
    """All images of the batch -> each row's patches and grids, in order, by the number of image tokens that the row has."""
    if any(time != 1 for time, _, _ in grids):
        raise ValueError(f"image_grid_thw {grids} has more than one frame an image: videos are not part of the release")
    if sum(h * w for _, h, w in grids) != len(patches):
        raise ValueError(f"pixel_values has {len(patches)} patches, image_grid_thw names {sum(h * w for _, h, w in grids)}")
    dealt, image, patch = [], 0, 0
    for row in rows:
        wanted, own, used = int((row == image_id).sum()), [], 0
        while used < wanted * merge**2 and image < len(grids):
            own.append((grids[image][1], grids[image][2]))
            used, image = used + own[-1][0] * own[-1][1], image + 1
        dealt.append((patches[patch : patch + used], tuple(own)))
        patch += used
    if image != len(grids):
        raise ValueError(f"{len(grids)} images, but the prompts have placeholders for {image}")
    return dealt


def words(tokens: Sequence[Sequence[int]], shape: tuple[int, ...], vocabulary: Vocabulary, opened: Sequence[str]) -> dict[str, np.ndarray]:
    """What was said, by kind: arrays of strings of this shape. opened: the kinds that the prompt may have opened."""
    return {kind: np.array([spoken(vocabulary, ids, kind, opened=kind in opened) for ids in tokens]).reshape(shape) for kind in KINDS}
