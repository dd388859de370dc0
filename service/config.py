"""Every setting of `slipway serve`: one frozen object, read once, checked whole, passed down."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self, cast

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.errors import WrongSettings

PREFIX: Final = "SLIPWAY_"


class Settings(BaseSettings):
    """Everything an operator may set, from `SLIPWAY_<NAME>` or the flag that `slipway serve` has for it."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    repository: Path = Field(Path("models"), description="Folder of `<model>/<version>/` artifacts to serve.")
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 lets the system choose one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level logged.")
    log_format: Literal["json", "console"] = Field("json", description="One JSON object a line, or text for a person.")
    variant: str | None = Field(None, description="Variant to serve; without it the best one for this CPU.")
    engine: Literal["onnxruntime", "openvino", "openvino-bf16", "torchscript"] | None = Field(
        None, description="Engine to run it on; without it the best one for this CPU."
    )
    threads: int = Field(0, ge=0, le=1024, description="Threads of one execution; 0 is what suits this CPU.")
    calibrate_seconds: float = Field(
        0.0,
        ge=0,
        le=600,
        allow_inf_nan=False,
        description="Time to measure engines before the first start on a CPU; 0 goes by a rule instead.",
    )
    cache_dir: Path | None = Field(
        None, description="Folder for what was measured on this machine; without it the user's cache folder."
    )
    default_model: str | None = Field(None, description="Model that answers when a request names none.")
    max_inputs_per_request: int = Field(128, ge=1, le=65536, description="Most inputs in one request.")
    max_body_bytes: int = Field(4 * 1024 * 1024, ge=1024, le=1 << 30, description="Largest request body read.")
    max_header_bytes: int = Field(32 * 1024, ge=1024, le=1 << 20, description="Largest request line and headers.")
    max_queue_size: int = Field(512, ge=1, le=1_000_000, description="Inputs that may wait before a 429.")
    max_batch_size: int = Field(16, ge=1, le=4096, description="Most inputs in one execution.")
    max_batch_tokens: int = Field(512, ge=1, le=1 << 24, description="Most tokens in one execution, padding included.")
    response_cache_bytes: int = Field(
        0,
        ge=0,
        le=1 << 40,
        description="Memory for predictions of texts that come again, for each loaded version; 0 keeps none.",
    )
    workers: int = Field(0, ge=0, le=1024, description="Worker threads; 0 is what suits this CPU.")
    default_timeout_seconds: float = Field(
        30.0, gt=0, le=3600, allow_inf_nan=False, description="Deadline of a request that names none."
    )
    max_timeout_seconds: float = Field(
        300.0, gt=0, le=3600, allow_inf_nan=False, description="Longest deadline a request may ask for."
    )
    header_timeout_seconds: float = Field(
        10.0,
        gt=0,
        le=600,
        allow_inf_nan=False,
        description="From a connection's or request's first moment to its last header.",
    )
    body_timeout_seconds: float = Field(
        30.0, gt=0, le=3600, allow_inf_nan=False, description="From the last header to the last byte of the body."
    )
    idle_timeout_seconds: float = Field(
        75.0, gt=0, le=3600, allow_inf_nan=False, description="How long a kept-alive connection may stay silent."
    )
    max_connections: int = Field(1000, ge=1, le=1_000_000, description="Open connections; further ones get a 503.")
    drain_delay_seconds: float = Field(
        5.0, ge=0, le=600, allow_inf_nan=False, description="After SIGTERM: not ready, yet accepting, this long."
    )
    drain_timeout_seconds: float = Field(
        30.0, gt=0, le=3600, allow_inf_nan=False, description="After that: time to answer what was accepted."
    )
    repository_poll_seconds: float = Field(
        2.0, gt=0, le=3600, allow_inf_nan=False, description="How often to look again while nothing is loaded."
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        _at_least(self, "max_queue_size", "max_inputs_per_request", "or a full request could never be accepted")
        _at_least(self, "max_timeout_seconds", "default_timeout_seconds", "or the default could not be asked for")
        return self


def _at_least(settings: Settings, larger: str, smaller: str, why: str) -> None:
    if getattr(settings, larger) < getattr(settings, smaller):
        raise ValueError(
            f"{PREFIX}{larger.upper()} ({getattr(settings, larger)}) must be at least "
            f"{PREFIX}{smaller.upper()} ({getattr(settings, smaller)}), {why}: raise the first or lower the second"
        )


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """Settings from the environment, with `flags` (by field name; None means not given) winning over it.

    Raises WrongSettings with one sentence for each thing to change.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=True)
        raise WrongSettings("; ".join(_sentence(problem, given) for problem in problems)) from None


def _sentence(problem: Mapping[str, Any], flags: Mapping[str, Any]) -> str:
    """What to change, from one of pydantic's findings. The value is shown: it is the operator's own."""
    if not problem["loc"]:
        return str(problem["ctx"]["error"])
    name = str(problem["loc"][0])
    where = f"--{name.replace('_', '-')}" if name in flags else f"{PREFIX}{name.upper()}"
    if name not in Settings.model_fields:
        return f"{where} is not a setting: remove it"
    shown = flags[name] if name in flags else os.environ.get(f"{PREFIX}{name.upper()}", "")
    change = f"set it to {bounds(name)}, or leave it out for the default ({default(name)})"
    return f"{where} is {str(shown)!r}: {_reason(problem)}; {change}"


def _reason(problem: Mapping[str, Any]) -> str:
    reason = str(problem["msg"])
    return reason[0].lower() + reason[1:]


def bounds(name: str) -> str:
    """What setting `name` may be, in words."""
    field = Settings.model_fields[name]
    options = getattr(field.annotation, "__args__", ())
    if options and all(isinstance(option, str) for option in options):
        return "one of " + ", ".join(options)
    kind = {int: "a whole number", float: "a number", Path: "a folder"}.get(cast("type", field.annotation), "a text")
    words = {"gt": "above", "ge": "from", "le": "up to"}
    limits = (
        (word, getattr(item, key)) for item in field.metadata for key, word in words.items() if hasattr(item, key)
    )
    return " ".join(
        [kind, *(f"{word} {limit:g}" if isinstance(limit, float) else f"{word} {limit}" for word, limit in limits)]
    )


def default(name: str) -> str:
    """The value of setting `name` when nobody sets it, in words."""
    value = Settings.model_fields[name].default
    return "none" if value is None else str(value)
