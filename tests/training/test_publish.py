from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainer.artifact import store
from trainer.training.publish import publish

GUESSING = {"test_accuracy": 0.5, "val_accuracy": 0.5, "test_accuracy_interval": [0.38, 0.62], "guess_accuracy": 0.4}
GOOD = {"test_accuracy": 0.9, "val_accuracy": 0.9, "test_accuracy_interval": [0.8, 0.95], "guess_accuracy": 0.4}


@pytest.fixture
def export(tiny_artifact: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_artifact, tmp_path / "export")


def measured(export: Path, figures: dict[str, Any], **values: Any) -> Path:
    """The artifact, as if these figures had been measured."""
    file = export / "spec.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"metrics": figures} | values))
    return export


def test_a_model_that_guesses_is_published_with_a_warning(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    tag = publish(measured(export, GUESSING), "pets").tag
    assert store.find("pets").tag == tag
    (warning,) = caplog.messages
    assert warning.startswith(f"{tag} is hardly better than guessing: test accuracy 50.0%, ")
    assert "reaches 40.0%" in warning


def test_a_worse_version_says_how_to_go_back(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = publish(measured(export, GOOD), "pets").tag
    assert publish(measured(export, GOOD | {"val_accuracy": 0.895}), "pets").worse_than is None  # less than a point
    publish(measured(export, GUESSING, dataset="folder:other"), "others")
    publish(measured(export, GOOD | {"val_accuracy": 0.5}, dataset="folder:other"), "pets")  # not to be compared
    publish(measured(export, GOOD), "pets")
    caplog.clear()
    published = publish(measured(export, GOOD | {"val_accuracy": 0.8}), "pets")
    worse = published.tag
    (warning,) = caplog.messages
    replaced = [model.tag for model in store.models() if model.tag.startswith("pets:")][1]
    assert published.worse_than == replaced != good
    assert warning == (
        f"{worse} is worse than {replaced}, which it replaces: validation accuracy 80.0%, not 90.0%; "
        f"`bentoml models delete {worse}` goes back"
    )
    command = [str(Path(sys.executable).parent / "bentoml"), "models", "delete", "--yes", worse]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert store.find("pets").tag == replaced
