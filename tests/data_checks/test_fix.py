"""`trainer data inspect --fix TABLE --choices FILE` writes a table, and touches nothing else."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from trainer.cli import run
from trainer.data import load


def test_choices_become_a_table(faulty_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = load(str(faulty_folder))
    files = sorted(path for path in faulty_folder.rglob("*") if path.is_file())
    choices = tmp_path / "choices.json"
    left_out, changed = ["train/zero/blank.png", "train/one/001.png"], {"train/one/wrong10.png": "zero"}
    choices.write_text(json.dumps({"dataset": str(faulty_folder), "leave_out": left_out, "relabel": changed}))
    table = faulty_folder.parent / "fixed.csv"
    fix = ["data", "inspect", str(faulty_folder), "--choices", str(choices), "--fix"]
    assert run([*fix, str(table), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written == {
        "table": str(table),
        "images": sum(map(len, (before.train, before.val, before.test))) - 2,
        "left_out": 2,
        "relabelled": 1,
    }
    assert sorted(path for path in faulty_folder.rglob("*") if path.is_file()) == files
    after = load(f"csv:{table}")
    for split in ("train", "val", "test"):
        old, new = getattr(before, split), getattr(after, split)
        old_classes = {old.name(index): before.class_names[old.labels[index]] for index in range(len(old))}
        new_classes = {new.name(index): after.class_names[new.labels[index]] for index in range(len(new))}
        assert new_classes == {
            f"{faulty_folder.name}/{name}": changed.get(name, class_name)
            for name, class_name in old_classes.items()
            if name not in left_out
        }

    # A table may be inspected and fixed again.
    choices.write_text(json.dumps({"leave_out": [f"{faulty_folder.name}/train/one/dark.png"], "relabel": {}}))
    again = table.with_name("again.csv")
    assert run(["data", "inspect", f"csv:{table}", "--choices", str(choices), "--fix", str(again)]) == 0
    printed = capsys.readouterr()
    assert "1 left out, 0 with another label" in printed.out
    assert f"next: trainer fit csv:{again} --name fixed\n" in printed.err
    with again.open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == written["images"] - 1


@pytest.mark.parametrize(
    ("values", "table", "problem"),
    [
        ({"leave_out": ["train/zero/999.png"], "relabel": {}}, "../new.csv", "the image 'train/zero/999.png'"),
        ({"leave_out": [], "relabel": {"train/zero/000.png": "ten"}}, "../new.csv", "'ten' is not one of four, one, z"),
        ({"leave_out": []}, "../new.csv", '"relabel": {image: class'),
        ({"leave_out": [], "relabel": {}}, "train/new.csv", "or in a folder above it"),
        ({"leave_out": [], "relabel": {}}, "train/zero/000.png", "or in a folder above it"),
    ],
)
def test_impossible_choices_are_refused(
    faulty_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], values: Any, table: str, problem: str
) -> None:
    choices = tmp_path / "choices.json"
    choices.write_text(json.dumps(values))
    fix = ["data", "inspect", str(faulty_folder), "--choices", str(choices)]
    assert run([*fix, "--fix", str(faulty_folder / table)]) == 2
    assert problem in capsys.readouterr().err
    assert not (faulty_folder.parent / "new.csv").exists()


def test_a_table_that_cannot_be_written_is_refused(
    faulty_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    choices = tmp_path / "choices.json"
    choices.write_text(json.dumps({"leave_out": [], "relabel": {}}))
    existing = faulty_folder.parent / "existing.csv"
    existing.write_text("mine")
    for arguments, problem in (
        (["builtin:digits", "--fix", "new.csv", "--choices", str(choices)], "builtin:digits has no files"),
        ([str(faulty_folder), "--fix", "new.csv"], "--fix and --choices"),
        ([str(faulty_folder), "--choices", str(choices)], "--fix and --choices"),
        ([str(faulty_folder), "--fix", str(existing), "--choices", str(choices)], "nothing is overwritten"),
    ):
        assert run(["data", "inspect", *arguments]) == 2
        assert problem in capsys.readouterr().err
    assert existing.read_text() == "mine"
