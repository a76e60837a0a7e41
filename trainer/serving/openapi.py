"""The HTTP contract as an OpenAPI 3.1 document: /docs.json returns it, the page at / shows it."""

from __future__ import annotations

import functools
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from trainer.serving.middleware import OPEN_PATHS, PAGE_PATH
from trainer.serving.open_inference_paths import MODEL, PREFIX, is_open_inference
from trainer.serving.request import MAX_BATCH_IMAGES
from trainer.serving.responses import STATUS
from trainer.serving.schemas import (
    Error,
    InferRequest,
    InferResponse,
    Model,
    ModelMetadata,
    ModelReady,
    Prediction,
    Predictions,
    ProtocolError,
    ServerLive,
    ServerMetadata,
    ServerReady,
)

IMAGE_TYPES = (
    *(f"image/{kind}" for kind in ("jpeg", "png", "webp", "heic", "avif", "bmp", "gif")),
    "application/octet-stream",
)

BYTES = {"type": "string", "format": "binary"}
TEXT = {"type": "string"}

IMAGE_ERRORS = (400, 405, 413, 415, 422, 500, 503, 504)
EXPLAIN_ERRORS = (*IMAGE_ERRORS, 404)  # 404: the server never has the memory for it
BATCH_ERRORS = (400, 405, 413, 500, 503, 504)
VIEW_ERRORS = (405, 500)
LENGTH_PARAMETER = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "Bytes of the JSON before binary tensors; 0: the body is one encoded image",
    "schema": {"type": "integer", "minimum": 0},
}


def describe(model: str, *, with_token: bool) -> dict[str, Any]:
    """The document; `model` is the tag that is served, `with_token` says whether callers need one."""
    image_form = _form("image", BYTES)
    batch_form = _form("images", {"type": "array", "items": BYTES, "minItems": 1, "maxItems": MAX_BATCH_IMAGES})
    image_body = {media_type: {"schema": BYTES} for media_type in IMAGE_TYPES} | image_form
    png = {"image/png": {"schema": BYTES}}
    operations = {
        "/predict": _operation(
            "Classify one image: its bytes decide the format, not the Content-Type",
            _json("Prediction"),
            IMAGE_ERRORS,
            image_body,
        ),
        "/predict_batch": _operation(
            f"Classify 1 to {MAX_BATCH_IMAGES} images", _json("Predictions"), BATCH_ERRORS, batch_form
        ),
        "/preview": _operation("The image as the model sees it", png, IMAGE_ERRORS, image_body),
        "/explain": _operation("The same in gray under the saliency map", png, EXPLAIN_ERRORS, image_body),
        "/model": _operation("The model that is served", _json("Model"), VIEW_ERRORS),
        PAGE_PATH: _operation("The page", {"text/html": {"schema": TEXT}}, VIEW_ERRORS),
        "/metrics": _operation("Prometheus metrics", {"text/plain": {"schema": TEXT}}, VIEW_ERRORS),
        "/livez": _operation("Alive", {"text/plain": {"schema": TEXT}}, VIEW_ERRORS),
        "/readyz": _operation("Ready: warm, and not stopping", {"text/plain": {"schema": TEXT}}, (405, 503)),
        **_open_inference(model),
    }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Image classifier",
            "version": model,
            "description": "An image (JPEG, PNG, WebP, HEIC, AVIF, BMP or GIF) in, a label with its probability out.",
        },
        "paths": {
            path: {"post" if "requestBody" in operation else "get": operation} for path, operation in operations.items()
        },
        "components": {"schemas": _schemas()},
    }
    if with_token:
        for path, operation in operations.items():
            if path not in OPEN_PATHS:
                operation["security"] = [{"token": []}]
                operation["responses"]["401"] = _error(401, "ProtocolError" if is_open_inference(path) else "Error")
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return document


def _open_inference(model: str) -> dict[str, Any]:
    """Operations of the Open Inference Protocol, by path."""
    body = _json("InferRequest") | {"application/octet-stream": {"schema": BYTES}}
    answer = _json("InferResponse") | {"application/octet-stream": {"schema": BYTES}}
    error = "ProtocolError"
    operations = {
        PREFIX: _operation("Open Inference Protocol v2", _json("ServerMetadata"), VIEW_ERRORS, error=error),
        f"{PREFIX}/health/live": _operation("Alive", _json("ServerLive"), VIEW_ERRORS, error=error),
        f"{PREFIX}/health/ready": _operation("Ready", _json("ServerReady"), (*VIEW_ERRORS, 503), error=error),
    }
    name, _, version = model.partition(":")
    parameters = [_path_parameter("name", name)]
    for path in (MODEL, f"{MODEL}/versions/{{version}}"):
        operations |= {
            path: _operation(
                "Inputs and outputs of the model", _json("ModelMetadata"), (404, *VIEW_ERRORS), error=error
            )
            | {"parameters": parameters},
            f"{path}/ready": _operation("Ready", _json("ModelReady"), (404, *VIEW_ERRORS, 503), error=error)
            | {"parameters": parameters},
            f"{path}/infer": _operation("Classify images", answer, (404, *IMAGE_ERRORS), body, error)
            | {"parameters": [*parameters, LENGTH_PARAMETER]},
        }
        parameters = [*parameters, _path_parameter("version", version)]
    return operations


def _path_parameter(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {**TEXT, "enum": [value]}}


@functools.cache
def _schemas() -> dict[str, Any]:
    """JSON Schema of each response body, by name; 50 ms."""
    mode: JsonSchemaMode = "serialization"
    adapters = [(name, mode, TypeAdapter(body)) for name, body in _BODIES.items()]
    _, definitions = TypeAdapter.json_schemas(adapters, ref_template="#/components/schemas/{model}")
    schemas: dict[str, Any] = definitions["$defs"]
    return schemas


_BODIES: dict[str, Any] = {
    body.__name__: body
    for body in (
        *(Prediction, Predictions, Model, Error),
        *(
            ServerMetadata,
            ServerLive,
            ServerReady,
            ModelMetadata,
            ModelReady,
            InferRequest,
            InferResponse,
            ProtocolError,
        ),
    )
}


def _operation(
    summary: str,
    content: dict[str, Any],
    errors: tuple[int, ...],
    body: dict[str, Any] | None = None,
    error: str = "Error",
) -> dict[str, Any]:
    responses = {"200": {"description": "The answer", "content": content}}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": responses | {str(e): _error(e, error) for e in errors},
    }
    if body:
        operation["requestBody"] = {"required": True, "content": body}
    return operation


def _error(status: int, schema: str) -> dict[str, Any]:
    codes = [code for code, code_status in STATUS.items() if code_status == status]
    return {"description": ", ".join(codes), "content": _json(schema)}


def _form(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    form = {"type": "object", "properties": {field: schema}, "required": [field], "additionalProperties": False}
    return {"multipart/form-data": {"schema": form}}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
