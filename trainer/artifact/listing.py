"""`trainer models`: the models of the store as plain JSON values. Never imports TensorFlow."""

from __future__ import annotations

from typing import Any

from trainer.artifact import read_spec, store
from trainer.errors import ArtifactError

FACTS = ("dataset", "test_accuracy", "val_accuracy", "quantization")


def list_models() -> list[dict[str, Any]]:
    """One entry for each model of the store, newest first; an accuracy (0 to 1) that was not measured is None.

    `latest`: whether the bare name means this version; `not_promoted`: the reasons against promoting it. `error`: why
    the spec of a version cannot be read; its other facts are then None.
    """
    return [
        {
            "tag": stored.tag,
            **_facts(stored),
            "size_bytes": stored.size_bytes,
            "created": stored.created.isoformat(),
            "latest": stored.is_latest,
            "not_promoted": list(stored.not_promoted),
        }
        for stored in store.models()
    ]


def _facts(stored: store.StoredModel) -> dict[str, Any]:
    try:
        spec = read_spec(stored.path)
    except ArtifactError as error:
        return {**dict.fromkeys(FACTS), "error": str(error)}
    values = spec["metrics"] | spec
    return {**{fact: values.get(fact) for fact in FACTS}, "error": None}
