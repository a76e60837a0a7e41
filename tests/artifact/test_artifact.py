from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_model import CLASS_NAMES, PIXELS, write_tiny_spec

from trainer.artifact.spec import load, read_spec, write_spec
from trainer.errors import ArtifactError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "export"
    (path / "saved_model" / "variables").mkdir(parents=True)
    (path / "model.tflite").write_bytes(b"network")
    (path / "saved_model" / "saved_model.pb").write_bytes(b"graph")
    (path / "report").mkdir()
    (path / "report" / "curves.png").write_bytes(b"figure")
    write_tiny_spec(path)
    return path


def edit_spec(folder: Path, **values: Any) -> None:
    spec = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps(spec | values))


def test_write_and_load(folder: Path) -> None:
    artifact = load(folder)
    assert artifact.path == folder
    assert artifact.class_names == CLASS_NAMES
    assert artifact.pixels == PIXELS
    assert (artifact.quantization, artifact.dataset) == ("int8", "builtin:digits")
    assert artifact.metrics == {"test_accuracy": 0.5, "val_accuracy": 0.25}
    assert artifact.config == {"seed": 0}
    assert artifact.git_revision is None


def test_spec_has_the_hash_of_every_file(folder: Path) -> None:
    spec = read_spec(folder)
    assert spec["format"] == 2
    assert sorted(spec["files"]) == ["model.tflite", "report/curves.png", "saved_model/saved_model.pb"]
    assert spec["files"]["model.tflite"] == hashlib.sha256(b"network").hexdigest()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["export"]  # no draft is left


def test_writing_again_replaces_the_spec(folder: Path) -> None:
    (folder / "report" / "more.txt").write_text("more")
    write_tiny_spec(folder)
    assert "report/more.txt" in read_spec(folder)["files"]
    load(folder)


def test_files_that_a_container_image_lacks_may_be_missing(folder: Path) -> None:
    shutil.rmtree(folder / "saved_model")
    shutil.rmtree(folder / "report")
    (folder / "model.yaml").write_text("name: mnist")  # of the store
    assert load(folder).class_names == CLASS_NAMES


def test_a_missing_network_is_refused(folder: Path) -> None:
    (folder / "model.tflite").unlink()
    with pytest.raises(ArtifactError, match=r"model\.tflite"):
        load(folder)


@pytest.mark.parametrize("name", ["model.tflite", "saved_model/saved_model.pb", "report/curves.png"])
def test_a_changed_file_is_refused(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as stream:
        stream.write(b"!")
    with pytest.raises(ArtifactError, match=r"its sha256 differs"):
        load(folder)


def test_an_unknown_file_is_refused(folder: Path) -> None:
    (folder / "saved_model" / "saved_model.pbtxt").write_text("")
    with pytest.raises(ArtifactError, match=r"saved_model\.pbtxt"):
        load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "'list'"),
        ("{}", "None .* 1 or 2"),
        ('{"format": 3}', "3 .* 1 or 2"),
        ('{"format": 1}', "damaged: labels"),
        ('{"format": 2}', "damaged: .*temperature, threshold"),
    ],
)
def test_a_damaged_spec_or_another_format_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "spec.json").write_text(text)
    with pytest.raises(ArtifactError, match=message):
        load(folder)


def test_impossible_pixels_are_refused(folder: Path) -> None:
    edit_spec(folder, pixels={"height": 28, "width": 28, "channels": 1, "colour": True})
    with pytest.raises(ArtifactError, match="colour"):
        load(folder)


def test_a_folder_without_a_spec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"spec\.json") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_values_that_json_cannot_hold_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_spec(
            folder,
            class_names=CLASS_NAMES,
            pixels=PIXELS,
            dataset="",
            config={},
            metrics={"loss": float("nan")},
            quantization="int8",
            temperature=1.0,
            threshold=0.5,
            versions={},
            git_revision=None,
        )


def test_the_first_format_is_still_read(folder: Path) -> None:
    spec = json.loads((folder / "spec.json").read_text())
    del spec["temperature"], spec["threshold"]
    (folder / "spec.json").write_text(json.dumps(spec | {"format": 1}))
    loaded = load(folder)
    assert (loaded.class_names, loaded.temperature, loaded.threshold) == (CLASS_NAMES, None, None)
