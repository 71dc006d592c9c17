"""Questions about a scene, as the specification answers them: eager, on top of plan.py's reasoning loop.

Observation -> pictures -> [prompt -> prefill -> (fork S) -> answer]* -> Answers
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from alpamayo_r1.core.clock import Clock
from alpamayo_r1.core.notes import Note, tell
from alpamayo_r1.core.options import AskOptions
from alpamayo_r1.core.plan import fork, reason
from alpamayo_r1.core.prompt import Prompt, build_question, to_pictures
from alpamayo_r1.core.request import Request, prepare_answers
from alpamayo_r1.core.types import Answers, Observation
from alpamayo_r1.core.vla import VLA, Images
from alpamayo_r1.core.vocab import Vocabulary, spoken


def ask(model: VLA, vocabulary: Vocabulary, observation: Observation, questions: Sequence[str], options: AskOptions) -> list[Answers]:
    """S answers to each question about one observation, whose pictures are encoded once.

    Raises:
        ValueError, TypeError: questions, options or an observation that do not fit the model, before any heavy work.
    """
    how = prepare_answers(options, model.config, vocabulary)
    clock = Clock(model.device)
    with clock("preprocess"):
        pictures = to_pictures(observation, model.config)
        prompts = [build_question(observation, vocabulary, model.config, question, pictures) for question in questions]
    if not prompts:
        return []
    with clock("vision"), torch.no_grad():
        images = model.see(prompts[0])
    return [
        answer_prompt(model, vocabulary, prompt, question, how, clock.copy(), images)
        for prompt, question in zip(prompts, questions, strict=True)
    ]


@torch.no_grad()
def answer_prompt(
    model: VLA,
    vocabulary: Vocabulary,
    prompt: Prompt,
    question: str,
    how: Request,
    clock: Clock | None = None,
    images: Images | None = None,
) -> Answers:
    """S answers to one prepared prompt. images: what is seen in it, where that is known already."""
    clock = clock or Clock(model.device)
    with clock("prefill"):
        logits, prefix = model.prefill(prompt, images)
    with clock("reasoning"):
        said, _ = reason(model, vocabulary, logits.expand(how.samples, -1), fork(prefix, how.samples), prompt.next_position, how)
    return to_answers(vocabulary, question, said.tokens(), how, clock.timing, prompt.notes)


def to_answers(
    vocabulary: Vocabulary,
    question: str,
    tokens: tuple[tuple[int, ...], ...],
    how: Request,
    timing: dict[str, float],
    noted: tuple[Note, ...],
) -> Answers:
    """What was said as answers; those cut off are kept as far as they go, and noted beside what was noted of the scene."""
    ended = tuple(vocabulary.ids["answer_end"] in ids for ids in tokens)
    texts = tuple(
        spoken(vocabulary, ids, "answer", opened=True) if whole else vocabulary.decode(ids).strip()
        for ids, whole in zip(tokens, ended, strict=True)
    )
    notes = noted + note_cut_off(ended, how.max_tokens)
    tell(notes, stacklevel=5)
    return Answers(question, texts, ended, tokens, timing, notes)


def note_cut_off(ended: Sequence[bool], max_tokens: int) -> tuple[Note, ...]:
    """A note where answers are not whole."""
    if all(ended):
        return ()
    cut = f"{ended.count(False)} of {len(ended)} answers ended without <|answer_end|> (max_tokens is {max_tokens}): they may be cut off"
    return (Note("answer-unfinished", cut),)
