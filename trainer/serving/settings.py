"""The settings of the server: `--arg NAME=VALUE` of `bentoml serve`, or TRAINER_NAME in the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from trainer.artifact.engine import EngineName
from trainer.artifact.store.stored_models import LATEST

PREFIX = "TRAINER_"
ALL_ORIGINS = "*"
# As browsers write one: without the default port of the scheme.
ORIGIN = re.compile(r"(?!http://.*:80$|https://.*:443$)[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:]+\])(:[0-9]+)?")


def parse_origins(value: Any) -> tuple[str, ...]:
    """`https://a.example, http://localhost:8080` or `*` → its parts. Raises ValueError unless each is an origin."""
    origins = tuple(part.strip() for part in str(value).split(","))
    for origin in origins:
        if origin != ALL_ORIGINS and not ORIGIN.fullmatch(origin):
            raise PydanticCustomError(
                "origin",
                "{origin} is no origin as browsers send it: SCHEME://HOST or SCHEME://HOST:PORT in small letters "
                "is expected, without a path or a slash at its end; or * for all",
                {"origin": repr(origin)},
            )
    return origins


class Settings(BaseModel):
    """All settings, with their defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None  # NAME or NAME:VERSION; None: the newest that is promoted
    engine: EngineName = "litert"
    workers: int = Field(default=1, ge=1, le=256)  # processes, each with the model
    threads: int | None = Field(default=None, ge=1, le=1024)  # of one worker's engine; None: its share of the CPUs
    queue_length: int = Field(default=256, ge=1, le=100_000)  # images that wait for one worker; more are refused
    deadline_ms: float = Field(default=1000, gt=0, le=3_600_000)  # from the end of the body to the response
    drain_delay_s: float = Field(default=0, ge=0, le=3600)  # how long a stopping server is not ready before it ends
    drain_file: Path | None = None  # while it exists, /readyz says 503
    watch_s: float = Field(default=0, ge=0, le=86_400)  # between two looks for a newer version of the model; 0: none
    token_file: Path | None = None  # bearer tokens, one a line; None: no token is needed
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(parse_origins)] = ()  # whose pages may call (CORS)
    log_json: bool = False  # one JSON object a line; else lines for people

    @field_validator("watch_s")
    @classmethod
    def _needs_a_name(cls, watch_s: float, info: ValidationInfo) -> float:
        """Raise ValueError where `model` is one version: no other is to be served in its place."""
        name, _, version = str(info.data.get("model") or "").partition(":")
        if watch_s and version not in ("", LATEST):
            raise PydanticCustomError(
                "pinned",
                "the model {model} is one version, and no other takes its place; {name} would be the promoted one",
                {"model": f"{name}:{version}", "name": name},
            )
        return watch_s


def read_settings(arguments: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Arguments win over the environment. Raises ValueError, one line, for an unknown name or a wrong value."""
    known = Settings.model_fields
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ValueError(f"--arg {unknown[0]}: no such setting; there are {', '.join(known)}")
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name in known:
        if arguments.get(name) is not None:
            values[name], sources[name] = arguments[name], f"--arg {name}"
        elif environment.get(PREFIX + name.upper()):
            values[name], sources[name] = environment[PREFIX + name.upper()], PREFIX + name.upper()
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise ValueError(f"{sources[name]}: {values[name]!r} is wrong: {first['msg']}") from error
