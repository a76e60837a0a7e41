"""Paths of the Open Inference Protocol v2, where clients name a model and perhaps its version."""

from __future__ import annotations

import re

PREFIX = "/v2"
MODEL = f"{PREFIX}/models/{{name}}"
_MODEL_PATH = re.compile(rf"{PREFIX}/models/([^/]+)(?:/versions/([^/]+))?(/ready|/infer)?")


def is_open_inference(path: str) -> bool:
    """Whether the path belongs to the protocol, whose errors are `{"error":"text"}`."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def route_of(path: str) -> str:
    """Path → the key of its route: `MODEL` in place of any model and version, other paths as they are."""
    found = _MODEL_PATH.fullmatch(path)
    return MODEL + (found[3] or "") if found else path


def model_of(path: str) -> tuple[str, str | None]:
    """Name and version in the path of a model; None for a path without a version. Raises ValueError for other paths."""
    found = _MODEL_PATH.fullmatch(path)
    if not found:
        raise ValueError(f"{path!r} is no path of a model")
    return found[1], found[2]
