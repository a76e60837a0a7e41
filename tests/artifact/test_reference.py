from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_model import write_tiny_spec

from trainer import artifact
from trainer.artifact.engine import PROBABILITIES, Outputs, load_engine
from trainer.artifact.reference import MAX_DIFFERENCE, REFERENCE_FILE, check_answers
from trainer.errors import ArtifactError


class AlteredEngine:
    """The engine of an artifact, with another value in one output of the last image."""

    def __init__(self, folder: Path, value: float | None) -> None:
        self._engine = load_engine(artifact.load(folder))
        self._value = value
        self.images = 0

    def predict(self, images: NDArray[np.uint8]) -> Outputs:
        self.images = len(images)
        outputs = self._engine.predict(images)
        probabilities = outputs[PROBABILITIES].copy()
        if self._value is not None:
            probabilities[-1, 0] += self._value
        return {PROBABILITIES: probabilities}


def test_the_network_answers_as_recorded(tiny_artifact: Path) -> None:
    engine = AlteredEngine(tiny_artifact, None)
    check_answers(artifact.load(tiny_artifact), engine)
    assert engine.images == 4
    check_answers(artifact.load(tiny_artifact), AlteredEngine(tiny_artifact, 0.9 * MAX_DIFFERENCE))


@pytest.mark.parametrize(
    ("value", "reason"), [(1.1 * MAX_DIFFERENCE, "a probability differs by 0.11"), (np.nan, "not finite")]
)
def test_one_other_answer_is_enough(tiny_artifact: Path, value: float, reason: str) -> None:
    with pytest.raises(ArtifactError, match=reason):
        check_answers(artifact.load(tiny_artifact), AlteredEngine(tiny_artifact, value))


def test_an_older_artifact_is_asked_for_a_black_image(tiny_artifact: Path, tmp_path: Path) -> None:
    old = shutil.copytree(tiny_artifact, tmp_path / "old")
    (old / REFERENCE_FILE).unlink()
    write_tiny_spec(old)
    engine = AlteredEngine(old, 0.5)
    check_answers(artifact.load(old), engine)
    assert engine.images == 1
    with pytest.raises(ArtifactError, match="not finite"):
        check_answers(artifact.load(old), AlteredEngine(old, np.inf))


def test_answers_for_other_classes_or_images_are_refused(tiny_artifact: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_artifact, tmp_path / "other")
    np.savez(
        other / REFERENCE_FILE, images=np.zeros((2, 20, 20, 1), np.uint8), probabilities=np.zeros((2, 10), np.float32)
    )
    write_tiny_spec(other)
    with pytest.raises(ArtifactError, match=r"has images \(2, 20, 20, 1\) .* expected are \(2, 28, 28, 1\)"):
        check_answers(artifact.load(other), load_engine(artifact.load(tiny_artifact)))
