"""The original's class under the original's names: plans with navigation and guidance, and answers to questions. No arithmetic here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from alpamayo_r1.core.family import ALPAMAYO_15, Family
from alpamayo_r1.core.options import AskOptions, PlanOptions
from alpamayo_r1.core.request import prepare_answers
from alpamayo_r1.models.base import (
    Predicted,
    Pretrained,
    check_rows,
    flow_settings,
    picked,
    plan_options,
    read_questions,
    refuse,
    words,
)

ATTENTION = ("sdpa", "eager", "flash_attention_2")
"""Names of attention that callers may give; ours is PyTorch's own on every device."""

GUIDANCE = ("use_classifier_free_guidance", "inference_guidance_weight")
FLOW = ("inference_step", "temperature", *GUIDANCE)
"""What diffusion_kwargs may hold beside int_method."""


class Alpamayo1_5(Pretrained):
    """An Alpamayo 1.5 checkpoint with its tokenizer."""

    FAMILY: ClassVar[Family] = ALPAMAYO_15

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *, attn_implementation: str | None = None, **options: Any) -> Self:
        """A checkpoint folder, or a repository on the Hub such as "nvidia/Alpamayo-1.5-10B". options: `Pretrained.from_pretrained`'s.

        attn_implementation: one of ATTENTION; it changes nothing.

        Raises:
            ConfigError, CheckpointError, HubError: what is wrong and what to do. TypeError: an unknown argument.
            ValueError: a checkpoint of another family.
        """
        if attn_implementation not in (None, *ATTENTION):
            raise ValueError(f"attn_implementation is {attn_implementation!r}, expected one of {', '.join(ATTENTION)}, or nothing")
        return super().from_pretrained(pretrained_model_name_or_path, **options)

    def sample_trajectories_from_data_with_vlm_rollout(
        self,
        data: Mapping[str, Any],
        top_p: float = PlanOptions.top_p,
        top_k: int | None = None,
        temperature: float = PlanOptions.temperature,
        num_traj_samples: int = 6,
        num_traj_sets: int = 1,
        diffusion_kwargs: Mapping[str, Any] | None = None,
        max_generation_length: int = ALPAMAYO_15.facade_tokens,
        return_extra: bool = False,
        *,
        seed: int | None = None,
        noise: torch.Tensor | None = None,
        reasoning: Sequence[str] | None = None,
        **unknown: Any,
    ) -> Predicted:
        """Reasons and plans: B scenes, `sets` times S samples each. Rows stand scene by scene, then set by set.

        As `AlpamayoR1`'s method of this name; diffusion_kwargs may also hold "temperature", a factor on the flow's noise, drawn or given.
        A navigation text in the prompt counts as it is.

        Raises:
            ValueError, TypeError, KeyError: arguments or data that do not fit, before any heavy work.
        """
        refuse("sample_trajectories_from_data_with_vlm_rollout", unknown)
        settings = flow_settings(diffusion_kwargs, FLOW)
        if settings.pop("use_classifier_free_guidance", False) or "inference_guidance_weight" in settings:
            raise ValueError(
                f"diffusion_kwargs is {dict(diffusion_kwargs or {})}, but this method does not guide: "
                "call sample_trajectories_from_data_with_vlm_rollout_cfg_nav"
            )
        shared = plan_options(seed, temperature, top_p, top_k, max_generation_length, settings)
        return picked(self._sample(data, shared, (num_traj_sets, num_traj_samples), noise, reasoning), return_extra)

    def sample_trajectories_from_data_with_vlm_rollout_cfg_nav(
        self,
        data: Mapping[str, Any],
        top_p: float = PlanOptions.top_p,
        top_k: int | None = None,
        temperature: float = PlanOptions.temperature,
        num_traj_samples: int = 6,
        num_traj_sets: int = 1,
        diffusion_kwargs: Mapping[str, Any] | None = None,
        max_generation_length: int = ALPAMAYO_15.facade_tokens,
        return_extra: bool = False,
        *,
        seed: int | None = None,
        noise: torch.Tensor | None = None,
        reasoning: Sequence[str] | None = None,
        **unknown: Any,
    ) -> Predicted:
        """The plain method with classifier-free guidance on the navigation text: v = (1 - w) v_without + w v_with.

        Guides where diffusion_kwargs says {"use_classifier_free_guidance": True, "inference_guidance_weight": w} (w: 1.0). A scene without
        navigation text has nothing to be guided by: it is planned plainly, which is what every w gives there.

        Raises:
            ValueError, TypeError, KeyError: arguments or data that do not fit, before any heavy work.
        """
        refuse("sample_trajectories_from_data_with_vlm_rollout_cfg_nav", unknown)
        settings = flow_settings(diffusion_kwargs, FLOW)
        guided, weight = settings.pop("use_classifier_free_guidance", False), settings.pop("inference_guidance_weight", None)
        if weight is not None and not guided:
            raise ValueError(
                f"inference_guidance_weight is {weight}, but guidance is off: say use_classifier_free_guidance=True in diffusion_kwargs too"
            )
        shared = plan_options(seed, temperature, top_p, top_k, max_generation_length, settings)
        guidance = (1.0 if weight is None else weight) if guided else None
        return picked(self._sample(data, shared, (num_traj_sets, num_traj_samples), noise, reasoning, guidance), return_extra)

    def generate_text(
        self,
        data: Mapping[str, Any],
        top_p: float = AskOptions.top_p,
        top_k: int | None = None,
        temperature: float = AskOptions.temperature,
        num_samples: int = 1,
        max_generation_length: int = AskOptions.max_tokens,
        *,
        seed: int | None = None,
        reasoning: Sequence[str] | None = None,
        **unknown: Any,
    ) -> dict[str, np.ndarray]:
        """Answers: B prompts, S samples each. data: "tokenized_data" alone is read. reasoning, B * S texts, is said instead of sampled.

        Out: {"cot", "meta_action", "answer", "unfinished"}, arrays of strings [B, S]. answer is "" where `<|answer_end|>` was not said;
        unfinished then holds what was said so far, and is "" elsewhere.

        Raises:
            ValueError, TypeError, KeyError: arguments or data that do not fit, before any heavy work.
        """
        refuse("generate_text", unknown)
        prompts = read_questions(data, self.model, self.vocabulary)
        shape = (len(prompts), num_samples)
        shared = {
            "samples": num_samples, "seed": self._seed(seed), "temperature": temperature, "top_p": top_p, "top_k": top_k,
            "max_tokens": max_generation_length,
        }  # fmt: skip
        check_rows((*shape[:1], 1, num_samples), None, reasoning)
        firsts = range(0, len(prompts) * num_samples, num_samples)
        given = [None if reasoning is None else reasoning[i : i + num_samples] for i in firsts]
        requests = [prepare_answers(AskOptions(**shared, answers=texts), self.model.config, self.vocabulary) for texts in given]
        answers = [self.planner.answer_prompt(prompt, "", how) for prompt, how in zip(prompts, requests, strict=True)]
        said = words([ids for one in answers for ids in one.tokens], shape, self.vocabulary, ("cot", "meta_action", "answer"))
        unfinished = ["" if whole else text for one in answers for whole, text in zip(one.ended, one.answers, strict=True)]
        return said | {"unfinished": np.array(unfinished).reshape(shape)}
