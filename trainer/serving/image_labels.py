"""Labels (OCI) of the container image."""

from __future__ import annotations

import logging
import re

from trainer import artifact
from trainer.artifact import store
from trainer.errors import ArtifactError, InputError

log = logging.getLogger("bentoml.trainer")  # below BentoML's own logger, which is set up when it serves


def image_labels(model: str | None) -> list[dict[str, str]]:
    """Labels of an image that packs `model` (None: the newest); BentoML passes them on to the Dockerfile as `envs`."""
    try:
        stored = store.find(model)
        packed = artifact.read_spec(stored.path)
    except (InputError, ArtifactError):
        return []  # nothing to build or serve; the commands report that themselves
    labels = {
        "org.opencontainers.image.title": stored.tag.partition(":")[0],
        "org.opencontainers.image.version": stored.tag,
        "org.opencontainers.image.revision": packed["git_revision"],
        # The path is left out, because registries show these labels.
        "trainer.dataset": re.sub(r"^(folder|csv):.*/", r"\1:", packed["dataset"], flags=re.DOTALL),
    } | {f"trainer.{name}": str(value) for name, value in packed["metrics"].items()}
    for name, value in labels.items():
        if value and not value.isprintable():
            log.warning("the image has no label %s: a Dockerfile cannot hold %r", name, value)
    return [{"name": name, "value": value} for name, value in labels.items() if value and value.isprintable()]
