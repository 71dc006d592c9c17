"""What goes over the wire, with units, for the service's OpenAPI page: bodies of requests, and what they are answered with."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from alpamayo_r1.core.options import AskOptions, PlanOptions

_NUMBER, _TEXT, _COUNT = {"type": "number"}, {"type": "string"}, {"type": "integer", "minimum": 1}

SAYING: dict[str, dict[str, Any]] = {
    "samples": _COUNT | {"description": "How many futures, or answers."},
    "seed": {"type": ["integer", "null"], "description": "Seed of all randomness; null: a fresh one."},
    "temperature": _NUMBER | {"minimum": 0, "description": "Temperature of the words; 0: the most likely token."},
    "top_p": _NUMBER | {"exclusiveMinimum": 0, "maximum": 1, "description": "Probability mass that tokens are drawn from."},
    "top_k": {"type": ["integer", "null"], "minimum": 1, "description": "Draw from so many most likely tokens; null: no limit."},
    "max_tokens": _COUNT | {"description": "New tokens at most."},
    "drafts": {"type": "boolean", "description": "Whether the engine guesses words ahead: sooner, and never another word."},
}
PLAN_OPTIONS: dict[str, dict[str, Any]] = SAYING | {
    "noise": {"type": ["array", "null"], "description": "Draws of N(0, 1) that replace the flow's, [samples][64][2], without unit."},
    "reasoning": {
        "type": ["string", "array", "null"],
        "items": _TEXT,
        "description": "Words to plan by instead of the model's own: one text for all samples, or one per sample.",
    },
    "steps": {"type": ["integer", "null"], "minimum": 1, "description": "Euler steps of the flow; null: the checkpoint's, 10."},
    "flow_temperature": _NUMBER | {"minimum": 0, "description": "Factor on the noise; 1: as trained."},
    "navigation": {
        "type": ["string", "array", "null"],
        "items": {"type": ["string", "null"]},
        "description": "What the driver is told, such as 'Turn left in 30m' (Alpamayo 1.5); a list: one plan for each.",
    },
    "guidance": {"type": ["number", "null"], "description": "Weight of the navigation: 1 as trained, above 1 follows it more."},
}
ASK_OPTIONS: dict[str, dict[str, Any]] = SAYING | {
    "answers": {"type": ["string", "array", "null"], "items": _TEXT, "description": "Said instead of sampled."},
}


def _options(fields: dict[str, dict[str, Any]], kind: type) -> dict[str, Any]:
    """The JSON schema of options, with the defaults of the dataclass that checks them."""
    shown = {name: about | {"default": getattr(kind, name)} for name, about in fields.items()}
    return {"type": "object", "title": kind.__name__, "additionalProperties": False, "properties": shown}


PlanOptionsJson = Annotated[dict[str, Any], WithJsonSchema(_options(PLAN_OPTIONS, PlanOptions))]
AskOptionsJson = Annotated[dict[str, Any], WithJsonSchema(_options(ASK_OPTIONS, AskOptions))]


ENGINE: Any = Field(
    False,
    description="Whether the engine plans on a CPU too, which is sooner: the same words, and paths within 1e-5 m of those without it.",
)


class Body(BaseModel):
    """A body whose values are of the types that it names, and that holds nothing else."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


class Scene(Body):
    """A moment of a clip of the service."""

    clip_id: str = Field(description="Id of a clip, or a beginning of it that fits no other.", min_length=1, max_length=200)
    t0_us: int = Field(5_100_000, description="Clip time at which to plan, in microseconds.", ge=-(2**53), le=2**53)
    cameras: list[str] | None = Field(None, description="Cameras to show the model; null: the four that the release was trained with.")


class PlanBody(Scene):
    """A plan of a clip at t0."""

    options: PlanOptionsJson = Field(default_factory=dict, description="What is asked of the plan.")
    draw: bool = Field(False, description="Whether to send each sample's corridor on each camera's picture too.")
    engine: bool = ENGINE


class StreamBody(Body):
    """The beginning of a stream."""

    options: PlanOptionsJson = Field(default_factory=dict, description="What is asked of every plan.")
    draws: Literal["kept", "fresh"] = Field("kept", description="'kept': all steps draw from one seed; 'fresh': another one for each.")
    engine: bool = ENGINE


class AskBody(Scene):
    """A question about a clip at t0."""

    question: str | list[str] = Field(description="A question, or several that see the pictures once.")
    options: AskOptionsJson = Field(default_factory=dict, description="What is asked of the answers.")


class DriveBody(Body):
    """A drive in closed loop."""

    seed: int = Field(description="Seed of the scene.")
    family: str | None = Field(None, description="Family of the scene, one of /api/families; null: the seed's own.")
    seconds: float = Field(20.0, description="Seconds at most.", ge=1, le=60, strict=False)
    options: PlanOptionsJson = Field(default_factory=dict, description="What is asked of every plan.")


class DriveStep(Body):
    """A step of a drive."""

    reasoning: str | None = Field(None, description="Words to plan by; null: the model's own.")


class NoteJson(BaseModel):
    """One thing to know: code is for machines and never changes."""

    code: str
    text: str


class PlanJson(BaseModel):
    """S planned futures with the words that led to them, in the ego frame at t0: x forward, y left, z up, origin at the rear axle."""

    xyz: list[Any] = Field(description="[S][64][3] metres, at 0.1 s to 6.4 s after t0.")
    rot: list[Any] = Field(description="[S][64][3][3] rotation matrices, ego to the frame at t0.")
    actions: list[Any] = Field(description="[S][64][2] acceleration in m/s^2 and curvature in 1/m.")
    reasoning: list[str] = Field(description="[S] the words of each sample.")
    ended: list[bool] = Field(description="[S] whether the words ended as they should.")
    tokens: list[list[int]] = Field(description="[S] ids of what was said.")
    timing_ms: dict[str, float] = Field(description="Milliseconds of each stage.")
    notes: list[NoteJson]
    passes: int = Field(description="How often the engine's language model ran; 0 from the specification.")


class PlanReply(BaseModel):
    """One plan, or one per navigation text; the seed that it drew from (null: a fresh one that was not given)."""

    plans: list[PlanJson]
    seed: int | None
    clip_id: str | None = None
    t0_us: int = Field(description="Microseconds.")
    corridors: dict[str, Any] | None = Field(
        None,
        description="Where asked: camera -> one entry per sample and one for the future ('truth'): 'left' and 'right' borders of the "
        "corridor as [x, y] shares of the picture's width and height, null where they are not seen.",
    )


class AnswersJson(BaseModel):
    """S answers to one question."""

    question: str
    answers: list[str]
    ended: list[bool]
    tokens: list[list[int]]
    timing_ms: dict[str, float]
    notes: list[NoteJson]


class AskReply(BaseModel):
    """Answers to one question, or to each of several."""

    answers: list[AnswersJson]


class ErrorText(BaseModel):
    """What is wrong: type names the Python class that `Client` raises, text says what was given, what was expected and what to do."""

    type: str
    text: str


class ErrorReply(BaseModel):
    """An error."""

    error: ErrorText
