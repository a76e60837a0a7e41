"""Bodies of the JSON responses: one schema for the handlers, OpenAPI (/docs.json) and BentoML (/schema.json).

They are typed dictionaries: handlers build plain `dict`s, a type checker compares them with the schema, and pydantic
turns it into JSON Schema when a description is asked for. No response is validated while it is served.
"""

from __future__ import annotations

from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,  # pydantic needs this one before Python 3.12
)

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

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
    resize: Literal["stretch", "pad"]
    normalize: Literal["none", "mnist"]


@_closed
class Model(TypedDict):
    model: str
    labels: list[str]
    input: ModelInput
    threshold: Probability | None
    metrics: dict[str, Any]


# The Open Inference Protocol v2. Clients send more keys than these: they are ignored unless a type is closed.

InputName = Literal["images", "encoded"]
OutputName = Literal["probabilities", "label", "known"]
DataType = Literal["UINT8", "BYTES", "FP32", "BOOL"]
Size = Annotated[int, Field(ge=0)]


class InputParameters(TypedDict, total=False):
    binary_data_size: Size  # bytes of the tensor behind the JSON, in place of `data`


class InferInput(TypedDict):
    name: InputName
    datatype: DataType
    shape: Annotated[list[int], Field(max_length=4, fail_fast=True)]
    parameters: NotRequired[InputParameters | None]
    data: NotRequired[list[Any] | None]  # numbers of `images`, flat or nested; `encoded` in base64


@_closed
class OutputParameters(TypedDict, total=False):
    binary_data: bool


class RequestedOutput(TypedDict):
    name: OutputName
    parameters: NotRequired[OutputParameters | None]


class InferParameters(TypedDict, total=False):
    binary_data_output: bool  # of all outputs that do not have a `binary_data` of their own


class InferRequest(TypedDict):
    id: NotRequired[str | None]
    inputs: Annotated[list[InferInput], Field(min_length=1, max_length=1, fail_fast=True)]
    outputs: NotRequired[Annotated[list[RequestedOutput], Field(max_length=3, fail_fast=True)] | None]
    parameters: NotRequired[InferParameters | None]


@_closed
class BinaryParameters(TypedDict):
    binary_data_size: Size


@_closed
class InferOutput(TypedDict):
    name: OutputName
    datatype: DataType
    shape: list[Size]
    parameters: NotRequired[BinaryParameters]
    data: NotRequired[list[float] | list[str] | list[bool]]  # flat


@_closed
class InferResponse(TypedDict):
    model_name: str
    model_version: str
    id: NotRequired[str]
    outputs: list[InferOutput]


@_closed
class ServerMetadata(TypedDict):
    name: str
    version: str
    extensions: list[str]


@_closed
class ServerLive(TypedDict):
    live: bool


@_closed
class ServerReady(TypedDict):
    ready: bool


@_closed
class ModelReady(ServerReady):
    name: str


@_closed
class TensorMetadata(TypedDict):
    name: InputName | OutputName
    datatype: DataType
    shape: list[int]  # -1: any number of images


@_closed
class FailedVersionParameters(TypedDict):
    failed_version: str
    reason: str


@_closed
class ModelMetadata(TypedDict):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: NotRequired[FailedVersionParameters]  # only with a version that `watch_s` found unfit


@_closed
class ProtocolError(TypedDict):
    error: str
