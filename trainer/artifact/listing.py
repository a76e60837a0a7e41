"""`trainer models`: what the store holds, as plain JSON values. Never imports TensorFlow."""

from __future__ import annotations

from typing import Any

from trainer.artifact import read_spec, store


def listing() -> list[dict[str, Any]]:
    """One entry a model of the store, the newest first; an accuracy (0 to 1) is None where it was not measured."""
    entries = []
    for stored in store.models():
        spec = read_spec(stored.path)
        entries.append(
            {
                "tag": stored.tag,
                "dataset": spec["dataset"],
                "test_accuracy": spec["metrics"].get("test_accuracy"),
                "val_accuracy": spec["metrics"].get("val_accuracy"),
                "quantization": spec["quantization"],
                "size_bytes": stored.size_bytes,
                "created": stored.created.isoformat(),
            }
        )
    return entries
