"""The original's class under the original's names: released tensors in, predictions [B, sets, S, 64, 3] out. No arithmetic here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from alpamayo_r1.core.gate.values import check_flag
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.models.base import Predicted, Pretrained, flow_settings, picked, plan_options, refuse


class AlpamayoR1(Pretrained):
    """An Alpamayo-R1 checkpoint with its tokenizer."""

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
    ) -> Predicted:
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
        check_flag("return_extra", return_extra)
        settings = flow_settings(diffusion_kwargs, ("inference_step",))
        shared = plan_options(seed, temperature, top_p, top_k, max_generation_length, settings)
        return picked(self._sample(data, shared, (num_traj_sets, num_traj_samples), noise, reasoning), return_extra)
