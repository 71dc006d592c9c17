"""The vocabulary: Qwen's tokens, 4000 trajectory tokens and 28 special tokens. The only place where token strings exist.

[ Qwen base | <i0> .. <i3999> | <|prompt_start|> .. <|answer_end|> ]        spec section 1
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from alpamayo_r1.core.config import ConfigError, TokenConfig

SPECIAL = [
    "prompt_start",
    "prompt_end",
    "image_start",
    "image_pre_tkn",
    "image_end",
    "traj_history_start",
    "traj_history_pre_tkn",
    "traj_history_end",
    "cot_start",
    "cot_end",
    "meta_action_start",
    "meta_action_end",
    "traj_future_start",
    "traj_future_pre_tkn",
    "traj_future_end",
    "traj_history",
    "traj_future",
    "image_pad",
    "vectorized_wm",
    "vectorized_wm_start",
    "vectorized_wm_end",
    "vectorized_wm_pre_tkn",
    "route_start",
    "route_pad",
    "route_end",
    "question_start",
    "question_end",
    "answer_start",
    "answer_end",
]
"""The release's special tokens in order, each written `<|name|>`; image_pad exists already in Qwen's vocabulary."""

QWEN_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""Qwen2's pre-tokenisation pattern."""


def special(name: str) -> str:
    """`cot_end` -> `<|cot_end|>`."""
    return f"<|{name}|>"


class Vocabulary:
    """Text <-> ids. Wraps a `tokenizers.Tokenizer` that holds every token of the checkpoint."""

    def __init__(self, tokenizer, tokens: TokenConfig | None = None):
        self.backend = tokenizer
        self.backend.no_truncation()
        self.backend.no_padding()
        self.eos_token, self.pad_token = "<|im_end|>", "<|endoftext|>"
        self.ids = {name: self.id(special(name)) for name in SPECIAL}
        self.eos_token_id, self.pad_token_id = self.id(self.eos_token), self.id(self.pad_token)
        self.first_trajectory = self.id("<i0>")
        self._extra = frozenset(self.backend.get_added_tokens_decoder())
        if tokens is not None:
            self._check(tokens)

    def _check(self, tokens: TokenConfig) -> None:
        if (self.first_trajectory, len(self)) != (tokens.first, tokens.vocab):
            raise ConfigError(
                f"the tokenizer has {len(self)} tokens with <i0> at {self.first_trajectory}; the config says {tokens.vocab} and "
                f"{tokens.first}. The tokenizer files are not the ones this checkpoint was trained with."
            )

    def __len__(self) -> int:
        return self.backend.get_vocab_size(with_added_tokens=True)

    def id(self, token: str) -> int:
        """The id of one token; ConfigError if the vocabulary lacks it."""
        found = self.backend.token_to_id(token)
        if found is None:
            raise ConfigError(f"the tokenizer lacks the token {token!r}")
        return found

    def encode(self, text: str) -> list[int]:
        """Text -> ids; special tokens written in the text become their ids, nothing is added."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """Ids -> text."""
        return self.backend.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)

    def reasoning_ids(self, text: str) -> list[int]:
        """Reasoning as the model says it: text, `<|cot_end|>`, `<|traj_future_start|>`.

        Raises:
            ValueError: the text itself contains a special or trajectory token.
        """
        ids = self.encode(text)
        if not self._extra.isdisjoint(ids):
            raise ValueError(f"reasoning must be plain words; got a special token in {text!r}")
        return [*ids, self.ids["cot_end"], self.ids["traj_future_start"]]

    def between(self, ids: Sequence[int], start: str, end: str) -> str:
        """The stripped text between `<|start|>` and `<|end|>`; "" where the end token is absent.

        A generated sequence continues the prompt's `<|cot_start|>`, so an absent `cot_start` means "from the beginning".
        """
        ids = list(ids)
        if self.ids[end] not in ids:
            return ""
        stop = ids.index(self.ids[end])
        begin = ids.index(self.ids[start]) + 1 if self.ids[start] in ids[:stop] else (0 if start == "cot_start" else stop)
        return self.decode(ids[begin:stop]).strip()


def load_vocabulary(folder: Path, tokens: TokenConfig) -> Vocabulary:
    """The checkpoint's vocabulary from a folder with Qwen's tokenizer files: `tokenizer.json`, or `vocab.json` with `merges.txt`.

    Raises:
        ConfigError: neither set of files is there, or they do not fit the checkpoint.
    """
    from tokenizers import AddedToken, Tokenizer

    if (folder / "tokenizer.json").is_file():
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        backend = qwen_backend(folder)
    else:
        raise ConfigError(f"{folder} holds no tokenizer: expected tokenizer.json, or vocab.json and merges.txt (Qwen3-VL's files)")
    backend.add_tokens([AddedToken(f"<i{i}>", normalized=False) for i in range(tokens.count)])
    backend.add_special_tokens([AddedToken(special(name), normalized=False, special=True) for name in SPECIAL])
    return Vocabulary(backend, tokens)


def qwen_backend(folder: Path):
    """Qwen2's byte-level BPE from vocab.json, merges.txt and the added tokens of tokenizer_config.json."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    added = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("added_tokens_decoder", {})
    for _, token in sorted(added.items(), key=lambda item: int(item[0])):
        add = backend.add_special_tokens if token["special"] else backend.add_tokens
        add([AddedToken(token["content"], normalized=token["normalized"], special=token["special"])])
    return backend


def quantise(values: torch.Tensor, low: Sequence[float], high: Sequence[float], bins: int) -> torch.Tensor:
    """clamp(round((x - lo) / (hi - lo) * (n - 1)), 0, n - 1) per channel of the last axis -> i64."""
    low_, high_ = (torch.tensor(v, dtype=values.dtype, device=values.device) for v in (low, high))
    return ((values - low_) / (high_ - low_) * (bins - 1)).round().clamp(0, bins - 1).long()


def dequantise(index: torch.Tensor, low: Sequence[float], high: Sequence[float], bins: int) -> torch.Tensor:
    """The inverse of `quantise` at bin centres: lo + i / (n - 1) * (hi - lo) -> f32."""
    low_, high_ = (torch.tensor(v, dtype=torch.float32, device=index.device) for v in (low, high))
    return low_ + index.float() / (bins - 1) * (high_ - low_)


def history_ids(xyz: torch.Tensor, tokens: TokenConfig) -> torch.Tensor:
    """History positions [..., 16, 3] -> token ids [..., 48]: steps from p_0 = 0 (the origin), quantised, (x, y, z) per step."""
    steps = torch.diff(xyz.float(), dim=-2, prepend=torch.zeros_like(xyz[..., :1, :], dtype=torch.float32))
    return tokens.first_history + quantise(steps, tokens.history_low, tokens.history_high, tokens.history_bins).flatten(-2)


def future_ids(action: torch.Tensor, tokens: TokenConfig) -> torch.Tensor:
    """Normalised actions [..., 64, 2] -> token ids [..., 128]."""
    low, high = (torch.tensor(v, dtype=action.dtype, device=action.device) for v in (tokens.future_low, tokens.future_high))
    clamped = torch.minimum(torch.maximum(action, low), high)
    return tokens.first + quantise(clamped, tokens.future_low, tokens.future_high, tokens.future_bins).flatten(-2)


def action_of_ids(ids: torch.Tensor, tokens: TokenConfig) -> torch.Tensor:
    """Token ids [..., 128] -> normalised actions [..., 64, 2] at bin centres; the inverse of `future_ids`."""
    return dequantise((ids - tokens.first).unflatten(-1, (-1, 2)), tokens.future_low, tokens.future_high, tokens.future_bins)
