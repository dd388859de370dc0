"""The JSON of the API: models that document it, and the parser the hot path runs instead of them.

Pydantic on the way in and out costs 5 to 16 % of the throughput, so `parse_call` checks the same rules by hand; a test
feeds both the same bodies and wants the same verdict.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, cast

import orjson
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from inference.errors import BadInput, TooManyInputs
from service.errors import NotJson

Priority = Literal["interactive", "batch"]
_FIELDS: Final = frozenset({"inputs", "input_data", "model", "version", "parameters", "timeout_seconds", "priority"})
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


class Parameters(BaseModel):
    """How the inputs are treated."""

    model_config = ConfigDict(extra="forbid")

    truncate: StrictBool = Field(False, description="Cut inputs the model finds too long instead of refusing them.")


class PredictRequest(BaseModel):
    """One text or several. `input_data` is the field of the common Flask tutorial; its answer is `output_data`."""

    model_config = ConfigDict(extra="forbid")

    inputs: StrictStr | list[StrictStr] | None = Field(None, description="A text, or a list of texts.")
    input_data: StrictStr | list[StrictStr] | None = Field(None, description="Older name of `inputs`.")
    model: StrictStr | None = Field(None, description="Model name; may be left out where there is one or a default.")
    version: Annotated[StrictInt, Field(ge=1)] | StrictStr | None = Field(
        None, description="Version number or alias; the production version if left out."
    )
    parameters: Parameters | None = None
    timeout_seconds: Annotated[StrictFloat | StrictInt, Field(gt=0)] | None = Field(
        None, description="Give up after this long with a 504."
    )
    priority: Priority | None = Field(None, description="`batch` work waits while `interactive` work is there.")


class PredictionBody(BaseModel):
    """The winning label, its probability, and every label's."""

    label: str
    score: float
    scores: dict[str, float]


class ModelBody(BaseModel):
    """Which model answered."""

    name: str
    version: int
    digest: str
    variant: str


class Usage(BaseModel):
    """What the inputs cost, one entry per input."""

    input_tokens: list[int]
    truncated: list[bool]
    cached: list[bool] | None = Field(
        None, description="Whether the response cache knew the prediction; left out where it knew none of them."
    )
    windows: list[int] | None = Field(
        None, description="How many windows each input was read in; left out where all of them took one."
    )


class TimingsBody(BaseModel):
    """Where the time went; the first three add up to the last."""

    queue_seconds: float
    tokenization_seconds: float
    inference_seconds: float
    total_seconds: float


class PredictResponse(BaseModel):
    """One prediction per input, in the order sent."""

    predictions: list[PredictionBody]
    model: ModelBody
    usage: Usage
    timings: TimingsBody


class LegacyResponse(BaseModel):
    """What `input_data` is answered with: one score per label, in label order, for each input."""

    output_data: list[list[float]]


class ErrorDetail(BaseModel):
    """What went wrong, in words that never repeat the request's."""

    code: str
    message: str
    field: str | None = None
    retry_after_seconds: float | None = None
    request_id: str | None = None


class ErrorBody(BaseModel):
    """Every answer that is not a success."""

    error: ErrorDetail


class VersionHealth(BaseModel):
    """One version this process serves, or tries to."""

    name: str
    version: int
    state: Literal["loading", "ready", "failed"]
    default: bool = Field(description="Whether it answers requests that name no version.")
    aliases: list[str]
    reason: str | None = None
    digest: str | None = None
    variant: str | None = None
    engine: str | None = None
    why: str | None = Field(None, description="Why this variant and engine were chosen.")


class HealthResponse(BaseModel):
    """Whether this process wants traffic, and why not."""

    status: Literal["ready", "loading", "empty", "failed", "draining"]
    ready: bool
    message: str
    models: list[VersionHealth]
    error: ErrorDetail | None = None


class ReadyResponse(BaseModel):
    """The short form of /health, for probes."""

    status: Literal["ready", "loading", "empty", "failed", "draining"]
    ready: bool
    error: ErrorDetail | None = None


class LiveResponse(BaseModel):
    """Whether a new process is needed."""

    status: Literal["alive", "stuck"]
    error: ErrorDetail | None = None


class LimitsBody(BaseModel):
    """What one request may hold."""

    max_input_tokens: int
    max_inputs_per_request: int
    max_body_bytes: int


class EstimateBody(BaseModel):
    """A metric measured on the test split, with its 95 % interval."""

    value: float
    low: float
    high: float


class VersionBody(BaseModel):
    """One loaded version."""

    version: int
    default: bool
    aliases: list[str]
    digest: str
    variant: str
    variants: list[str]
    created: str
    metrics: dict[str, EstimateBody]


class ServedModelBody(BaseModel):
    """One model. Task, labels, limits and metrics are those of its default version."""

    name: str
    task: str
    labels: list[str]
    limits: LimitsBody
    metrics: dict[str, EstimateBody]
    default_version: int
    aliases: dict[str, int]
    versions: list[VersionBody]


class ModelsResponse(BaseModel):
    """Everything loaded."""

    models: list[ServedModelBody]


@dataclass(frozen=True, slots=True)
class Call:
    """A body of /predict whose shape is right. `inputs` are still unchecked: that is the task's business."""

    inputs: list[object]
    legacy: bool
    model: str | None
    version: int | str | None
    truncate: bool
    timeout_seconds: float | None
    priority: Priority


def parse_call(body: bytes, *, max_inputs: int, max_timeout_seconds: float) -> Call:
    """Check a body of /predict. Raises NotJson, BadInput naming the field, TooManyInputs."""
    fields = loads(body)
    if not isinstance(fields, dict):
        raise BadInput("body", "must be a JSON object")
    if not fields.keys() <= _FIELDS:
        raise BadInput("body", f"holds an unknown field; known are {', '.join(sorted(_FIELDS))}")
    legacy = fields.get("input_data") is not None
    return Call(
        inputs=_inputs(fields, legacy, max_inputs),
        legacy=legacy,
        model=_optional(fields, "model", _is_text, "a model's name"),
        version=_optional(fields, "version", _is_version, "a positive integer or an alias"),
        truncate=_truncate(fields.get("parameters")),
        timeout_seconds=_optional(
            fields, "timeout_seconds", _is_timeout(max_timeout_seconds), f"above 0 and at most {max_timeout_seconds:g}"
        ),
        priority=_optional(fields, "priority", _is_priority, "interactive or batch") or "interactive",
    )


def loads(body: bytes) -> object:
    """Parse JSON strictly. Raises NotJson, or BadInput for escapes that are no characters."""
    if not body:
        raise NotJson("the body is empty; send a JSON object")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if _SURROGATE.search(body):
            _refuse_lone_surrogates(body)
        raise NotJson(f"the body is not JSON: line {error.lineno}, column {error.colno}") from None


def _refuse_lone_surrogates(body: bytes) -> None:
    """Raise BadInput if a lone surrogate is all that is wrong: orjson does not say, the standard library accepts."""
    try:
        fields = json.loads(body.decode(), parse_constant=_refuse_constant)
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadInput(_where_surrogate(fields), "holds a lone surrogate, which is not a character") from None
    except (ValueError, RecursionError):
        return


def _refuse_constant(_: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


def _where_surrogate(fields: object) -> str:
    values = fields.get("inputs") if isinstance(fields, dict) else None
    for index, value in enumerate(values if isinstance(values, list) else [values]):
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            return f"inputs[{index}]"
    return "body"


def _inputs(fields: Mapping[str, Any], legacy: bool, max_inputs: int) -> list[object]:
    name = "input_data" if legacy else "inputs"
    value = fields.get(name)
    if legacy and fields.get("inputs") is not None:
        raise BadInput("input_data", "is the older name of inputs: send one of the two")
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise BadInput(name, "must be a string or a list of strings")
    if not value:
        raise BadInput(name, "must hold at least one input")
    if len(value) > max_inputs:
        raise TooManyInputs(f"{name}: {len(value)} inputs, one request may hold {max_inputs}")
    return value


def _optional(fields: Mapping[str, Any], name: str, fits: Callable[[object], bool], wanted: str) -> Any:
    value = fields.get(name)
    if value is not None and not fits(value):
        raise BadInput(name, f"must be {wanted}")
    return value


def _truncate(parameters: object) -> bool:
    if parameters is None:
        return False
    if not isinstance(parameters, dict):
        raise BadInput("parameters", "must be a JSON object")
    if not parameters.keys() <= {"truncate"}:
        raise BadInput("parameters", "holds an unknown field; known is truncate")
    value = parameters.get("truncate", False)
    if not isinstance(value, bool):
        raise BadInput("parameters.truncate", "must be true or false")
    return value


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_version(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)


def _is_timeout(longest: float) -> Callable[[object], bool]:
    def fits(value: object) -> bool:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and 0 < cast("float", value) <= longest

    return fits


def _is_priority(value: object) -> bool:
    return value in ("interactive", "batch")
