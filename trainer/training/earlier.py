"""The earlier version of a model that a fit starts from (`--start-from`): its weights, and the input that they need."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer import artifact
from trainer.artifact import SAVED_MODEL, Artifact, store
from trainer.config import FitConfig
from trainer.data.manifest import DataManifest, read_manifest
from trainer.errors import InputError
from trainer.models import Architecture, find_architecture
from trainer.option_fields import flag, options
from trainer.training.unused_options import UNUSED_BY_LAST_LAYER

log = logging.getLogger("trainer")

LEARNING_RATE = 1 / 3  # of the architecture's own: little is left to learn, and large steps would undo the rest


@dataclass(frozen=True, eq=False)
class Earlier:
    """A stored version whose network a fit goes on with."""

    tag: str
    artifact: Artifact
    manifest: DataManifest  # of the images that it learned from

    def adapt(self, architecture: Architecture) -> Architecture:
        """The architecture with a smaller learning rate, and with the identity of the weights below its last layer."""
        recipe = dataclasses.replace(
            architecture.recipe, learning_rate=LEARNING_RATE * architecture.recipe.learning_rate
        )
        return dataclasses.replace(architecture, recipe=recipe, weights_id=self._weights_id(architecture))

    def check_classes(self, class_names: Sequence[str]) -> None:
        """Log which classes come and go. Raises InputError where none stays."""
        old = self.artifact.class_names
        added = [name for name in class_names if name not in old]
        gone = [name for name in old if name not in class_names]
        if len(gone) == len(old):
            raise InputError(
                f"--start-from {self.tag}: none of its classes ({', '.join(old)}) is in the data; at least one is "
                "expected"
            )
        if added:
            log.info("new classes, which %s does not have: %s", self.tag, ", ".join(added))
        if gone:
            log.warning("classes of %s that are not in the data and are dropped: %s", self.tag, ", ".join(gone))

    def _weights_id(self, architecture: Architecture) -> str:
        """Identity of the weights below the last layer: the architecture's where only the last layer was trained."""
        config = self.artifact.config
        if config.get("fine_tune") == "none" and not config.get("start_from"):
            return architecture.weights_id
        return str(artifact.read_spec(self.artifact.path)["files"][f"{SAVED_MODEL}/saved_model.pb"])


def find_earlier(config: FitConfig) -> tuple[FitConfig, Earlier | None]:
    """The version that `--start-from` means, and the configuration with its tag and the options that it decides.

    Fine-tuning gained nothing where a tenth of the photos is new: `auto` leaves it out unless an option of it is given.
    Raises InputError for a name that is not in the store, for a version that cannot be gone on with, and for an option
    that contradicts it; ArtifactError for a damaged version.
    """
    if config.start_from is None:
        return config, None
    try:
        stored = store.find(config.start_from)
    except InputError as error:
        raise InputError(f"--start-from: {error}") from None
    loaded = artifact.load(stored.path)
    manifest = read_manifest(stored.path)
    if manifest is None or not loaded.saved_model.is_dir():
        raise InputError(
            f"--start-from {stored.tag}: lacks data_identity.npz or {SAVED_MODEL}/, as one of an older format "
            "does; fit again without --start-from"
        )
    pixels = loaded.pixels
    decided: dict[str, Any] = {
        "model": loaded.config["model"],
        "weights": loaded.config.get("weights", "auto"),
        "image_size": (pixels.height, pixels.width),
        "resize": pixels.resize,
        "normalize": pixels.normalize,
        "kernel_size": loaded.config.get("kernel_size", FitConfig.kernel_size),
    }
    given = config.changed_options()
    for name, value in decided.items():
        if name in given and getattr(config, name) != value:
            raise InputError(
                f"{flag(name)}: {given[name]} contradicts --start-from: {stored.tag} has "
                f"{options(config)[name].format(value)}, which stays; leave one out"
            )
    log.info("starting from %s, fitted on %s", stored.tag, loaded.dataset)
    is_pretrained = find_architecture(decided["model"], decided["weights"]).features is not None
    if config.fine_tune == "auto" and is_pretrained and not given.keys() & {"time_limit", *UNUSED_BY_LAST_LAYER}:
        log.info("training the last layer alone; --fine-tune all trains the rest, too")
        decided["fine_tune"] = "none"
    return dataclasses.replace(config, start_from=stored.tag, **decided), Earlier(stored.tag, loaded, manifest)
