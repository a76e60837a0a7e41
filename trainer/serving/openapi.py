"""The HTTP contract as an OpenAPI 3.1 document: what /docs.json returns and the page at / shows."""

from __future__ import annotations

from typing import Any

from trainer.serving.answers import STATUS
from trainer.serving.http import OPEN_PATHS
from trainer.serving.request import BATCH_IMAGES

IMAGE_TYPES = (
    *(f"image/{kind}" for kind in ("jpeg", "png", "webp", "heic", "avif", "bmp", "gif")),
    "application/octet-stream",
)

BYTES = {"type": "string", "format": "binary"}
NAME = {"type": "string"}
PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}

IMAGE_ERRORS = (400, 405, 413, 415, 422, 500, 503, 504)
BATCH_ERRORS = (400, 405, 413, 500, 503, 504)
VIEW_ERRORS = (405, 500)


def describe(model: str, *, with_token: bool) -> dict[str, Any]:
    """The document; `model` is the tag that is served, `with_token` says whether callers need one."""
    score = {"label": NAME, "index": {"type": "integer", "minimum": 0}, "probability": PROBABILITY}
    best = {**score, "known": {"type": "boolean"}}
    scores = {"type": "array", "items": _reference("Score"), "minItems": 1, "maxItems": 5}
    image_form = _object({"image": BYTES})
    batch_form = _object({"images": {"type": "array", "items": BYTES, "minItems": 1, "maxItems": BATCH_IMAGES}})
    image_body = {media_type: {"schema": BYTES} for media_type in IMAGE_TYPES}
    image_body["multipart/form-data"] = {"schema": image_form}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Image classifier",
            "version": model,
            "description": "An image (JPEG, PNG, WebP, HEIC, AVIF, BMP or GIF) in, a label with its probability out.",
        },
        "paths": {
            "/predict": {
                "post": _operation(
                    "Classify one image: the bytes decide what it is, not the Content-Type",
                    _json("Prediction"),
                    IMAGE_ERRORS,
                    image_body,
                )
            },
            "/predict_batch": {
                "post": _operation(
                    f"Classify 1 to {BATCH_IMAGES} images",
                    _json("Predictions"),
                    BATCH_ERRORS,
                    {"multipart/form-data": {"schema": batch_form}},
                )
            },
            "/preview": {
                "post": _operation(
                    "The picture that the model sees", {"image/png": {"schema": BYTES}}, IMAGE_ERRORS, image_body
                )
            },
            "/explain": {
                "post": _operation(
                    "The same in gray, under the heat of what spoke for the answer",
                    {"image/png": {"schema": BYTES}},
                    IMAGE_ERRORS,
                    image_body,
                )
            },
            "/model": {"get": _operation("The model that is served", _json("Model"), VIEW_ERRORS)},
            "/ui": {"get": _operation("The page", {"text/html": {"schema": NAME}}, VIEW_ERRORS)},
            "/metrics": {"get": _operation("Prometheus metrics", {"text/plain": {"schema": NAME}}, VIEW_ERRORS)},
            "/livez": {"get": _operation("Alive", {"text/plain": {"schema": NAME}}, VIEW_ERRORS)},
            "/readyz": {
                "get": _operation("Ready: warm, and not stopping", {"text/plain": {"schema": NAME}}, (405, 503))
            },
        },
        "components": {
            "schemas": {
                "Score": _object(score),
                "Prediction": _object({**best, "top": scores, "model": NAME}),
                "Item": {"oneOf": [_object({**best, "top": scores}), _reference("Error")]},
                "Predictions": _object({"model": NAME, "predictions": {"type": "array", "items": _reference("Item")}}),
                "Model": _object(
                    {
                        "model": NAME,
                        "labels": {"type": "array", "items": NAME},
                        "input": _object(
                            {
                                "height": {"type": "integer"},
                                "width": {"type": "integer"},
                                "channels": {"enum": [1, 3]},
                                "normalize": {"enum": ["none", "mnist"]},
                            }
                        ),
                        "threshold": {"oneOf": [PROBABILITY, {"type": "null"}]},
                        "metrics": {"type": "object"},
                    }
                ),
                "Error": _object({"error": _object({"code": {"enum": sorted(STATUS)}, "message": NAME})}),
            }
        },
    }
    return _with_token(document) if with_token else document


def _with_token(document: dict[str, Any]) -> dict[str, Any]:
    """The same where all but the open paths need a bearer token."""
    for path, methods in document["paths"].items():
        if path not in OPEN_PATHS:
            for operation in methods.values():
                operation["security"] = [{"token": []}]
                operation["responses"]["401"] = _error(401)
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return document


def _operation(
    summary: str, content: dict[str, Any], errors: tuple[int, ...], body: dict[str, Any] | None = None
) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": "The answer", "content": content}}
    for status in errors:
        responses[str(status)] = _error(status)
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    if body:
        operation["requestBody"] = {"required": True, "content": body}
    return operation


def _error(status: int) -> dict[str, Any]:
    """Of an operation's responses."""
    return {"description": ", ".join(code for code, of in STATUS.items() if of == status), "content": _json("Error")}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": _reference(name)}}
