from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import call, next_command

from trainer.artifact import store
from trainer.cli import run

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def test_models_is_a_table_that_80_columns_hold(
    tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    spec = shutil.copytree(tiny_artifact, tmp_path / "export") / "spec.json"
    spec.write_text(spec.read_text().replace("builtin:digits", "folder:/home/somebody/images/of/pets"))
    tag = store.publish(spec.parent, "pets-of-somebody")
    kept = store.publish(spec.parent, "pets-of-somebody", lambda latest: ["hat is gone", "worse"])
    capsys.readouterr()
    assert run(["models"]) == 0
    table = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]
    header = [cell.strip() for cell in table.splitlines()[2].split("┃")[1:-1]]
    assert header == ["tag", "data", "val / test", "size", "age"]
    facts = ["…/pets", "25.00 / 50.00%", "0 MB", "0 min"]
    assert rows == [[kept, *facts], [f"{tag} *", *facts]]
    assert table.splitlines()[-1] == f"{kept} is not promoted: hat is gone; worse"


def test_a_long_tag_is_not_broken(
    tiny_artifact: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    tag = store.publish(tiny_artifact, "pets-" + "a" * 58)
    capsys.readouterr()
    assert run(["models"]) == 0
    assert f"│ {tag} * │" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["{", '{"format": 1, "labels": []}'])
def test_a_damaged_version_is_listed_and_hides_no_other(
    tiny_artifact: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    sound = store.publish(tiny_artifact, "pets")
    damaged = store.find(store.publish(tiny_artifact, "pets"))
    (damaged.path / "spec.json").write_text(damage)
    _, (first, second), _ = call("models", "--json", capsys=capsys)
    assert (first["tag"], first["dataset"], first["val_accuracy"]) == (damaged.tag, None, None)
    assert str(damaged.path / "spec.json") in first["error"]
    assert (second["tag"], second["val_accuracy"], second["error"]) == (sound, 0.25, None)
    assert next_command("models", capsys=capsys) == f"trainer serve {sound}"
    assert run(["models"]) == 0
    printed = capsys.readouterr().out
    assert "cannot be read" in printed
    assert f"`bentoml models delete {damaged.tag}`" in printed
