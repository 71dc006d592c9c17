"""The checkpoint's vocabulary with the names that users of Hugging Face tokenizers expect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from alpamayo_r1.core.config import ModelConfig
from alpamayo_r1.core.gate.values import check_flag, check_texts, check_type, check_whole
from alpamayo_r1.core.vocab import QwenVocabulary


class Batch(dict):
    """A dict whose values are attributes too, as Hugging Face's BatchEncoding."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"no {name!r} here; present: {', '.join(map(str, self))}")

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        return Batch({key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in self.items()})


class Tokenizer:
    """Text <-> ids. `model_config` tells helper.get_processor the picture sizes that the checkpoint was trained with."""

    padding_side = "left"

    def __init__(self, vocabulary: QwenVocabulary, model_config: ModelConfig):
        self.vocabulary, self.model_config = vocabulary, model_config
        self.pad_token, self.pad_token_id = vocabulary.pad_token, vocabulary.pad_token_id
        self.eos_token, self.eos_token_id = vocabulary.eos_token, vocabulary.eos_token_id

    def __len__(self) -> int:
        return len(self.vocabulary)

    @property
    def vocab_size(self) -> int:
        """All tokens, the added ones too (the config's vocab_size)."""
        return len(self)

    def __call__(self, text: str | Sequence[str], *, padding: bool = False, return_tensors: str | None = None) -> Batch:
        """Text or texts -> input_ids and attention_mask: lists, or with return_tensors="pt" tensors [B, T], padded on the left."""
        check_flag("padding", padding)
        if not isinstance(text, str):
            check_texts("text", text, '["one", "another"], or one text')
        rows = [self.encode(t) for t in ([text] if isinstance(text, str) else text)]
        masks = [[1] * len(row) for row in rows]
        if padding or return_tensors is not None:
            rows, masks = pad_left(rows, self.pad_token_id)
        if return_tensors is not None:
            return Batch(input_ids=as_tensor(rows, return_tensors), attention_mask=as_tensor(masks, return_tensors))
        return Batch(input_ids=rows[0], attention_mask=masks[0]) if isinstance(text, str) else Batch(input_ids=rows, attention_mask=masks)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Text -> ids. Qwen adds no special tokens, so the flag changes nothing."""
        return self.vocabulary.encode(text)

    def decode(self, token_ids: int | Iterable[int] | torch.Tensor, skip_special_tokens: bool = False) -> str:
        """Ids [T], or one id -> text."""
        ids: Any = token_ids
        ids = ids.flatten().tolist() if isinstance(ids, torch.Tensor) else ids
        ids = [ids] if isinstance(ids, int) else ids
        return self.vocabulary.decode(ids, skip_special_tokens=skip_special_tokens)

    def batch_decode(self, sequences: Iterable[Any], skip_special_tokens: bool = False) -> list[str]:
        """Rows of ids -> texts."""
        check_type("sequences", sequences, Iterable, "rows of ids, such as [[1, 2], [3]]")
        return [self.decode(row, skip_special_tokens) for row in sequences]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> int | list[int | None] | None:
        """A token's id, or each one's; None for what is no token."""
        if not isinstance(tokens, str):
            check_texts("tokens", tokens, '["<|cot_end|>"], or one token')
        found = [find(self.vocabulary, token) for token in ([tokens] if isinstance(tokens, str) else tokens)]
        return found[0] if isinstance(tokens, str) else found

    def convert_ids_to_tokens(self, ids: int | Iterable[int]) -> str | list[str | None] | None:
        """An id's token, or each one's."""
        listed: Any = [ids] if isinstance(ids, int) else ids
        check_type("ids", listed, Iterable, "integers, such as [1, 2], or one integer")
        names = [self.vocabulary.backend.id_to_token(whole_id(i)) for i in listed]
        return names[0] if isinstance(ids, int) else names


def find(vocabulary: QwenVocabulary, token: str) -> int | None:
    """The id of a token; None for what is none, or no text that can be written."""
    try:
        return vocabulary.backend.token_to_id(token)
    except UnicodeEncodeError:
        return None


def whole_id(given: Any) -> int:
    """An id. Raises TypeError unless it is a whole number, ValueError where no vocabulary is so large."""
    if isinstance(given, torch.Tensor) and given.numel() == 1 and not given.is_floating_point():
        given = int(given)
    check_whole("an id", given, 0, 2**31)
    return int(given)


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> tuple[list[list[int]], list[list[int]]]:
    """Rows of ids -> rows of one length, and their attention masks (0 at padding)."""
    longest = max(map(len, rows), default=0)
    padded = [[pad] * (longest - len(row)) + list(row) for row in rows]
    return padded, [[0] * (longest - len(row)) + [1] * len(row) for row in rows]


def as_tensor(rows: Sequence[Sequence[int]], kind: str) -> torch.Tensor:
    """Rows of one length -> i64[B, T]. Raises ValueError for anything but "pt"."""
    if kind != "pt":
        raise ValueError(f'return_tensors is {kind!r}, expected "pt" (PyTorch)')
    return torch.tensor(rows, dtype=torch.long)
