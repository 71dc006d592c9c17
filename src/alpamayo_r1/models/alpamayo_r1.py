"""The original's class under the original's names: released tensors in, predictions [B, sets, S, 64, 3] out. No arithmetic here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from alpamayo_r1.core.checkpoint import DTYPES, load_checkpoint, resave
from alpamayo_r1.core.config import read_json
from alpamayo_r1.core.hub import checkpoint_folder
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.prompt import Prompt, assemble
from alpamayo_r1.core.request import prepare
from alpamayo_r1.core.types import Plan, Trajectory
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.core.vocab import Vocabulary
from alpamayo_r1.models.tokenizer import Tokenizer
from alpamayo_r1.planner import Planner

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


class AlpamayoR1:
    """A checkpoint with its tokenizer. `config` holds the values of the released config.json as attributes."""

    def __init__(self, model: VLA, vocabulary: Vocabulary, folder: Path, fast: bool | None = None):
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
    ) -> AlpamayoR1:
        """A checkpoint folder, "small" (bundled), or a repository on the Hub such as "nvidia/Alpamayo-R1-10B".

        dtype: None or "auto" for the config's. device: the weights go straight there, without a copy on the CPU. fast: the engine or the
        specification; None is the engine on CUDA.

        Raises:
            ConfigError, CheckpointError, HubError: what is wrong and what to do. TypeError: an unknown argument.
        """
        refuse("from_pretrained", unknown)
        hub = {"cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
        folder = checkpoint_folder(pretrained_model_name_or_path, revision=revision, **hub)
        model, vocabulary = load_checkpoint(folder, dtype=as_dtype(dtype), device=device, **hub)
        return cls(model, vocabulary, folder, fast)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes the checkpoint as it is laid out where it came from; unchanged weights give the same bytes."""
        resave(self.folder, Path(save_directory), self.model)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype."""
        return self.model.dtype

    def to(self, *args: Any, **kwargs: Any) -> AlpamayoR1:
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

    def eval(self) -> AlpamayoR1:
        """Evaluation mode, which it always is in."""
        self.model.eval()
        return self

    def parameters(self):
        """The weights."""
        return self.model.parameters()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The weights and buffers by the release's names."""
        return self.model.state_dict()

    def sample_trajectories_from_data_with_vlm_rollout(
        self,
        data: Mapping[str, Any],
        top_p: float = PlanOptions.top_p,
        top_k: int | None = None,
        temperature: float = PlanOptions.temperature,
        num_traj_samples: int = 1,
        num_traj_sets: int = 1,
        diffusion_kwargs: Mapping[str, Any] | None = None,
        max_generation_length: int = PlanOptions.max_tokens,
        return_extra: bool = False,
        *,
        seed: int | None = None,
        noise: torch.Tensor | None = None,
        reasoning: Sequence[str] | None = None,
        **unknown: Any,
    ) -> tuple[torch.Tensor, torch.Tensor] | tuple[torch.Tensor, torch.Tensor, dict[str, np.ndarray]]:
        """Reasons and drives: B scenes, `sets` times S samples each. Rows stand scene by scene, then set by set.

        data: "tokenized_data" (what a processor gives), "ego_history_xyz" [B, 1, 16, 3] and "ego_history_rot" [B, 1, 16, 3, 3]; left as
        it is. diffusion_kwargs: {"inference_step": Euler steps}. seed: of all randomness, the same for every scene; None draws one from
        the default generator of the model's device, so torch.manual_seed decides. noise f32[B * sets * S, 64, 2] replaces the
        flow's draw; reasoning, B * sets * S texts, is said instead of sampled.

        Out: pred_xyz f32[B, sets, S, 64, 3], pred_rot f32[B, sets, S, 64, 3, 3], and with return_extra {"cot", "meta_action", "answer"},
        arrays of strings [B, sets, S].

        Raises:
            ValueError, TypeError, KeyError: arguments or data that do not fit, before any heavy work.
        """
        refuse("sample_trajectories_from_data_with_vlm_rollout", unknown)
        scenes = read_scenes(data, self.model, self.vocabulary)
        shape = (len(scenes), num_traj_sets, num_traj_samples)
        check_rows(shape, noise, reasoning)
        rows = num_traj_sets * num_traj_samples
        seed = torch.randint(2**31, (), device=self.device).item() if seed is None else seed
        shared = PlanOptions(
            samples=rows, seed=seed, temperature=temperature, top_p=top_p, top_k=top_k, max_tokens=max_generation_length,
            steps=euler_steps(diffusion_kwargs),
        )  # fmt: skip
        requests = [
            prepare(
                replace(shared, noise=None if noise is None else noise[i : i + rows], reasoning=reasoning and reasoning[i : i + rows]),
                self.model.config,
                self.vocabulary,
            )
            for i in range(0, len(scenes) * rows, rows)
        ]
        plans = [self.planner.plan_prompt(*scene, how) for scene, how in zip(scenes, requests, strict=True)]
        xyz, rot = (torch.cat(parts).unflatten(0, shape).to(self.device) for parts in ([p.xyz for p in plans], [p.rot for p in plans]))
        return (xyz, rot, words(plans, shape, self.vocabulary)) if return_extra else (xyz, rot)


def refuse(function: str, unknown: Mapping[str, Any]) -> None:
    """Raises TypeError if there are unknown arguments, with what to say instead."""
    if unknown:
        said = "; ".join(f"{name}= ({HINTS.get(name, 'no such argument')})" for name in unknown)
        raise TypeError(f"{function} does not know {said}")


def as_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A dtype or its name; None and "auto" mean the config's."""
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    name = dtype.removeprefix("torch.")
    if name not in (*DTYPES, "auto"):
        raise ValueError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)} or auto")
    return DTYPES.get(name)


def euler_steps(diffusion_kwargs: Mapping[str, Any] | None) -> int | None:
    """The number of Euler steps, None for the config's. Raises TypeError for any other setting."""
    options = dict(diffusion_kwargs or {})
    steps = options.pop("inference_step", None)
    if options.pop("int_method", "euler") != "euler" or options:
        raise TypeError(f'diffusion_kwargs is {dict(diffusion_kwargs)}: expected {{"inference_step": n}}; the flow is integrated by Euler')
    return steps


def check_rows(shape: tuple[int, int, int], noise: torch.Tensor | None, reasoning: Sequence[str] | None) -> None:
    """Raises ValueError unless sets and S are at least 1 and noise and reasoning have a row for each of B * sets * S."""
    scenes, sets, samples = shape
    if sets < 1 or samples < 1:
        raise ValueError(f"num_traj_sets is {sets} and num_traj_samples {samples}, expected at least 1")
    rows = scenes * sets * samples
    if isinstance(reasoning, str):
        raise ValueError(
            f"reasoning is one text, expected a list of {rows}: one for each of {scenes} scenes x {sets} sets x {samples} samples"
        )
    for name, given in (("noise", noise), ("reasoning", reasoning)):
        if given is not None and len(given) != rows:
            raise ValueError(f"{name} has {len(given)} rows, expected {rows}: {scenes} scenes x {sets} sets x {samples} samples")


def read_scenes(data: Mapping[str, Any], model: VLA, vocabulary: Vocabulary) -> list[tuple[Prompt, Trajectory]]:
    """The caller's batch as single scenes without padding; nothing of it is changed."""
    tokenized = need(data, "tokenized_data")
    ids, patches, grids = (need(tokenized, key) for key in ("input_ids", "pixel_values", "image_grid_thw"))
    xyz, rot = (need(data, key).float().cpu() for key in ("ego_history_xyz", "ego_history_rot"))
    mask = tokenized["attention_mask"] if "attention_mask" in tokenized else torch.ones_like(ids)
    batch = len(ids)
    if ids.ndim != 2 or mask.shape != ids.shape:
        raise ValueError(f"input_ids {tuple(ids.shape)} and attention_mask {tuple(mask.shape)}: expected both [B, T]")
    if xyz.ndim != 4 or xyz.shape[:2] != (batch, 1) or rot.shape != (*xyz.shape, 3):
        raise ValueError(
            f"ego_history_xyz {tuple(xyz.shape)} and ego_history_rot {tuple(rot.shape)} with {batch} prompts: "
            f"expected [{batch}, 1, 16, 3] and [{batch}, 1, 16, 3, 3]"
        )
    rows = [row[keep.bool()].cpu() for row, keep in zip(ids, mask, strict=True)]
    pictures = deal_images(rows, patches, grids.tolist(), vocabulary.id(model.config.image_token), model.config.vision.merge)
    histories = [Trajectory(x[0], r[0], model.config.action.dt) for x, r in zip(xyz, rot, strict=True)]
    return [
        (assemble(row, *picture, history, vocabulary, model.config), history)
        for row, picture, history in zip(rows, pictures, histories, strict=True)
    ]


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


def need(data: Mapping[str, Any], key: str) -> Any:
    """data[key], or an error that says what the data should hold."""
    if key not in data:
        raise KeyError(
            f"data lacks {key!r}, has {sorted(data)}: expected tokenized_data (input_ids, attention_mask, pixel_values, image_grid_thw), "
            "ego_history_xyz and ego_history_rot"
        )
    return data[key]


def words(plans: Sequence[Plan], shape: tuple[int, int, int], vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """What was said, by kind: arrays of strings [B, sets, S]."""

    def said(kind: str) -> np.ndarray:
        texts = [vocabulary.between(ids, f"{kind}_start", f"{kind}_end") for plan in plans for ids in plan.tokens]
        return np.array(texts).reshape(shape)

    return {kind: said(kind) for kind in ("cot", "meta_action", "answer")}
