"""The vocabulary: Qwen's tokens, 4000 trajectory tokens and 28 special tokens. What text and ids are to each other.

[ Qwen base | <i0> .. <i3999> | <|prompt_start|> .. <|answer_end|> ]        spec section 1
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from alpamayo_r1.core.config import ConfigError, TokenConfig
from alpamayo_r1.core.family import R1, Family, Turn
from alpamayo_r1.core.gate.files import JSON_BYTES, inside, read_object
from alpamayo_r1.core.gate.values import brief, check_flag

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json")
"""What is read of a tokenizer's folder: no link that leads out of it."""

QWEN_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""Qwen2's pre-tokenisation pattern."""


def special(name: str) -> str:
    """`cot_end` -> `<|cot_end|>`."""
    return f"<|{name}|>"


class Vocabulary(Protocol):
    """Text <-> ids as prompts, plans and answers need them. `ids`: of the family's special tokens, by name."""

    @property
    def ids(self) -> Mapping[str, int]: ...

    @property
    def pad_token_id(self) -> int: ...

    @property
    def eos_token_id(self) -> int: ...

    def id(self, token: str) -> int:
        """The id of one token."""
        ...

    def encode(self, text: str) -> list[int]:
        """Text -> ids; special tokens written in the text become their ids, nothing is added."""
        ...

    def plain_ids(self, text: str, what: str) -> list[int]:
        """A user's text -> ids. Raises ValueError where it holds a special or trajectory token; what: its name in the error."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text."""
        ...


class QwenVocabulary:
    """A vocabulary over a `tokenizers.Tokenizer` that holds every token of the checkpoint."""

    def __init__(self, tokenizer: Tokenizer, tokens: TokenConfig | None = None, family: Family = R1):
        self.backend = tokenizer
        self.backend.no_truncation()
        self.backend.no_padding()
        self.eos_token, self.pad_token = "<|im_end|>", "<|endoftext|>"
        self.ids = {name: self.id(special(name)) for name in (*family.special, "im_end")}
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
        released = [name for name in self.ids if name not in ("image_pad", "im_end")]  # they follow the trajectory tokens, in order
        places = {f"<i{tokens.count - 1}>": tokens.first + tokens.count - 1}
        places |= {special(name): tokens.first + tokens.count + i for i, name in enumerate(released)}
        places |= {special(name): id_ for name, id_ in tokens.placed}
        wrong = [f"{token} at {self.id(token)} instead of {id_}" for token, id_ in places.items() if self.id(token) != id_]
        if wrong:
            raise ConfigError(
                f"the tokenizer has {', '.join(wrong[:8])}. The tokenizer files are not the ones this checkpoint was trained with."
            )
        qwen = {token: self.id(token) for token in (self.eos_token, self.pad_token, "<|im_start|>", "<|vision_start|>", "<|vision_end|>")}
        if len(set(qwen.values())) < len(qwen) or max(qwen.values()) >= tokens.first or not self._extra.issuperset(qwen.values()):
            raise ConfigError(f"the tokenizer has {qwen}, expected five special tokens of Qwen's before {tokens.first}")

    def __len__(self) -> int:
        return self.backend.get_vocab_size(with_added_tokens=True)

    def id(self, token: str) -> int:
        """The id of one token; ConfigError if the vocabulary lacks it."""
        found = self.backend.token_to_id(token)
        if found is None:
            raise ConfigError(f"the tokenizer lacks the token {token!r}")
        return found

    def encode(self, text: str) -> list[int]:
        """Text -> ids; special tokens written in the text become their ids, nothing is added. Raises TypeError unless it is text."""
        if not isinstance(text, str):
            raise TypeError(f"a {type(text).__name__} was given to encode, expected a text")
        try:
            return self.backend.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError):  # half of a surrogate pair, by version of tokenizers
            raise ValueError(f"{text!r} is no text that can be written as UTF-8: replace what stands for no character") from None

    def plain_ids(self, text: str, what: str) -> list[int]:
        """A user's text -> ids. Raises ValueError where it holds a special or trajectory token; what: its name in the error."""
        ids = self.encode(text)
        control = [self.backend.id_to_token(i) for i in ids if i in self._extra]
        if control:
            raise ValueError(f"{what} must be plain words; got the special token {control[0]} in {text!r}: leave it out")
        return ids

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """Ids -> text. Raises TypeError, ValueError unless they are ids of the vocabulary."""
        if not isinstance(ids, Iterable) or isinstance(ids, str | bytes):
            raise TypeError(f"ids are {ids!r}, expected integers")
        check_flag("skip_special_tokens", skip_special_tokens)
        ids = list(ids)
        if any(isinstance(i, bool) or not hasattr(i, "__index__") for i in ids):
            raise TypeError(f"ids are {brief(ids)}, expected integers")
        if any(not 0 <= int(i) < len(self) for i in ids):
            raise ValueError(f"ids are {brief(ids)}, expected them from 0 to {len(self) - 1}")
        return self.backend.decode([int(i) for i in ids], skip_special_tokens=bool(skip_special_tokens))


def whole_ids(vocabulary: Vocabulary, text: str, turn: Turn, what: str) -> list[int]:
    """A text as the model says it, with what closes its turn: reasoning, `<|cot_end|>`, `<|traj_future_start|>`.

    Raises:
        ValueError: the text itself contains a special or trajectory token.
    """
    return [*vocabulary.plain_ids(text, what), *(vocabulary.ids[name] for name in turn.closes)]


def spoken(vocabulary: Vocabulary, ids: Sequence[int], kind: str, opened: bool) -> str:
    """The stripped text before the first `<|kind_end|>` in what was said, after the last `<|kind_start|>` before it.

    opened: what was said continues a `<|kind_start|>` of the prompt, so that the text may begin with it. "" where the end token is absent.
    """
    start, end = (vocabulary.ids.get(f"{kind}_{side}") for side in ("start", "end"))
    ids = list(ids)
    if end not in ids:
        return ""
    before = ids[: ids.index(end)]
    if start in before:
        before = before[len(before) - before[::-1].index(start) :]
    elif not opened:
        return ""
    return vocabulary.decode(before).strip()


def load_vocabulary(folder: Path, tokens: TokenConfig, family: Family = R1) -> QwenVocabulary:
    """The checkpoint's vocabulary from a folder with Qwen's tokenizer files: `tokenizer.json`, or `vocab.json` with `merges.txt`.

    Raises:
        ConfigError: neither set of files is there, they are damaged, or they do not fit the checkpoint.
    """
    from tokenizers import AddedToken

    try:
        for name in FILES:
            inside(folder, name)
        backend = read_backend(folder)
        check_added(folder, backend)
        backend.add_tokens([AddedToken(f"<i{i}>", normalized=False) for i in range(tokens.count)])
        backend.add_special_tokens([AddedToken(special(name), normalized=False, special=True) for name in family.special])
        vocabulary = QwenVocabulary(backend, tokens, family)
        check_words(vocabulary)
    except (ConfigError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the library raises plain Exception, and panics with a BaseException
        raise ConfigError(f"the tokenizer files in {folder} are damaged ({brief(str(error))}): fetch them again") from None
    return vocabulary


def check_added(folder: Path, backend: Tokenizer) -> None:
    """Raises ConfigError where tokenizer_config.json has added tokens at other ids than the tokenizer."""
    if not (folder / "tokenizer_config.json").is_file():
        return
    for id_, token in read_object(folder / "tokenizer_config.json").get("added_tokens_decoder", {}).items():
        found = backend.token_to_id(token["content"])
        if found != int(id_):
            raise ConfigError(
                f"tokenizer_config.json has {token['content']!r} at {id_}, the tokenizer at {found}: its files are not of one model, or "
                "not the ones this checkpoint was trained with"
            )


PROBE = "Slow down: 2 cones ahead, keep left."
"""Words that any tokenizer of Qwen's reads and writes back."""


def check_words(vocabulary: QwenVocabulary) -> None:
    """Raises ConfigError where plain words do not come back, or do not come as tokens of the model."""
    ids = vocabulary.encode(PROBE)
    if vocabulary.decode(ids) != PROBE or not all(id_ < len(vocabulary) for id_ in ids):
        raise ConfigError(f"the tokenizer reads {PROBE!r} as {vocabulary.decode(ids)!r}: its files are damaged; fetch them again")


def read_backend(folder: Path) -> Tokenizer:
    """Qwen's tokenizer from the files of a folder."""
    from tokenizers import Tokenizer

    if (folder / "tokenizer.json").is_file():
        read_object(folder / "tokenizer.json")  # within its size and depth
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return qwen_backend(folder)
    raise ConfigError(f"{folder} holds no tokenizer: expected tokenizer.json, or vocab.json and merges.txt (Qwen3-VL's files)")


def qwen_backend(folder: Path) -> Tokenizer:
    """Qwen2's byte-level BPE from vocab.json, merges.txt and the added tokens of tokenizer_config.json."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    vocab = read_object(folder / "vocab.json")
    if (folder / "merges.txt").stat().st_size > JSON_BYTES:
        raise ConfigError(f"{folder / 'merges.txt'} has over {JSON_BYTES:,} bytes: that is no Qwen tokenizer")
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    backend = Tokenizer(models.BPE(vocab=dict(vocab), merges=merges))  # type: ignore[arg-type]  # the library checks its own
    backend.normalizer = normalizers.NFC()  # type: ignore[assignment]  # declared read-only, is not
    backend.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    added = read_object(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
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
