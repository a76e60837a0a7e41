"""Reference answers: a few validation images and the network's answers for them, recorded when it was exported.

A server that loads a new version while it runs asks the network for these answers first: a file can have the right hash
and still be a network that answers nonsense, here or anywhere.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import PROBABILITIES, Engine
from trainer.artifact.spec import Artifact
from trainer.errors import ArtifactError

REFERENCE_FILE = "reference.npz"
REFERENCE_IMAGES = 8  # at most: one of 160x160 pixels takes 75 KB
# Between a recorded probability and the one here. The engine `tensorflow` runs a network that is not quantized: by
# static-int8, a probability of 120 photos changed by up to 0.07.
MAX_DIFFERENCE = 0.1


def save_reference(folder: Path, images: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> None:
    """Write REFERENCE_FILE for `images` uint8 [N,H,W,C] and the served network's `probabilities` float32 [N,K]."""
    np.savez_compressed(folder / REFERENCE_FILE, images=images, probabilities=probabilities)


def check_answers(artifact: Artifact, engine: Engine) -> None:
    """Raise ArtifactError unless the engine's outputs are finite, one for each class, and as recorded.

    An artifact without REFERENCE_FILE is asked for a black image, and its answer may be any.
    """
    recorded = _read_reference(artifact)
    images, probabilities = recorded or (np.zeros((1, *artifact.pixels.shape), np.uint8), None)
    outputs = engine.predict(images)
    expected = (len(images), len(artifact.class_names))
    if outputs[PROBABILITIES].shape != expected:
        found = outputs[PROBABILITIES].shape[-1]
        raise ArtifactError(f"{artifact.path}: its network has {found} probabilities for {expected[1]} class names")
    if not all(np.isfinite(values).all() for values in outputs.values()):
        raise ArtifactError(f"{artifact.path}: its network has outputs that are not finite")
    if probabilities is None:
        return
    difference = float(np.abs(outputs[PROBABILITIES] - probabilities).max())
    if difference > MAX_DIFFERENCE:
        raise ArtifactError(
            f"{artifact.path}: its network does not answer as recorded when it was exported: a probability differs by "
            f"{difference:.2f}, at most {MAX_DIFFERENCE} is expected"
        )


def _read_reference(artifact: Artifact) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
    """Images uint8 [N,H,W,C] and their probabilities float32 [N,K]; None where the artifact has none."""
    file = artifact.path / REFERENCE_FILE
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            images, probabilities = arrays["images"], arrays["probabilities"]
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{file}: damaged: an archive with images and probabilities is expected") from error
    shape = (len(images), *artifact.pixels.shape)
    if images.shape != shape or probabilities.shape != (len(images), len(artifact.class_names)):
        raise ArtifactError(
            f"{file}: has images {images.shape} and probabilities {probabilities.shape}, "
            f"expected are {shape} and one for each of {len(artifact.class_names)} class names"
        )
    return images, probabilities
