"""Bodies of the JSON responses: one schema for the handlers, OpenAPI (/docs.json) and BentoML (/schema.json).

They are typed dictionaries: handlers build plain `dict`s, a type checker compares them with the schema, and pydantic
turns it into JSON Schema when a description is asked for. No response is validated while it is served.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

_closed = with_config(ConfigDict(extra="forbid"))  # no other keys
Probability = Annotated[float, Field(ge=0, le=1)]
ErrorCode = Literal[
    "empty_body",
    "bad_request",
    "unauthorized",
    "not_found",
    "method_not_allowed",
    "too_large",
    "too_many_pixels",
    "unsupported_type",
    "corrupt_image",
    "internal",
    "overloaded",
    "not_ready",
    "deadline_exceeded",
]


@_closed
class Score(TypedDict):
    label: str  # name of the class
    index: Annotated[int, Field(ge=0)]
    probability: Probability


@_closed
class BatchPrediction(Score):
    known: bool
    top: Annotated[list[Score], Field(min_length=1, max_length=5)]  # the most probable first


@_closed
class Prediction(BatchPrediction):
    model: str  # NAME:VERSION


@_closed
class ErrorDetail(TypedDict):
    code: ErrorCode
    message: str


@_closed
class Error(TypedDict):
    error: ErrorDetail


@_closed
class Predictions(TypedDict):
    model: str
    predictions: list[BatchPrediction | Error]  # in the order of the images


@_closed
class ModelInput(TypedDict):
    height: int
    width: int
    channels: Literal[1, 3]
    normalize: Literal["none", "mnist"]


@_closed
class Model(TypedDict):
    model: str
    labels: list[str]
    input: ModelInput
    threshold: Probability | None
    metrics: dict[str, Any]
