"""`trainer models`: what the store holds, as plain JSON values. Never imports TensorFlow."""

from __future__ import annotations

from typing import Any

from trainer.artifact import read_spec, store
from trainer.errors import ArtifactError

FACTS = ("dataset", "test_accuracy", "val_accuracy", "quantization")


def listing() -> list[dict[str, Any]]:
    """One entry a model of the store, the newest first; an accuracy (0 to 1) is None where it was not measured.

    `latest`: whether its name means it; `not_promoted`: the reasons why it was kept and not promoted. `error` says why
    a version's spec cannot be read, and its facts are None then.
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
    known = spec["metrics"] | spec
    return {**{fact: known.get(fact) for fact in FACTS}, "error": None}
