"""A spoiled folder is named wholly, a clean one not at all; what a person has chosen becomes a table."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from trainer.cli import run
from trainer.data import load


@pytest.fixture(scope="module")
def looked_at(spoiled_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What `data inspect --json` has found, and the page."""
    home = tmp_path_factory.mktemp("looked-at")
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINER_CACHE_DIR", str(home / "cache"))
        patch.setattr("trainer.cli.print_json", lambda value: lines.append(json.dumps(value)))
        command = ["data", "inspect", str(spoiled_folder), "--json", "--sheet", str(home / "sheet.png")]
        assert run([*command, "--page", str(home / "page.html")]) == 0
    found: dict[str, Any] = json.loads(lines[0])["findings"]
    return found, home / "page.html"


def test_a_spoiled_folder_is_named_wholly(looked_at: tuple[dict[str, Any], Path]) -> None:
    found, _ = looked_at
    groups = [[one["image"] for one in group] for group in found["duplicates"]]
    assert sorted(groups) == [
        ["train/four/002.png", "train/four/cropped.jpg"],
        ["train/four/same.png", "train/one/003.png"],
        ["train/one/001.png", "test/one/again.jpg"],
        ["train/zero/000.png", "train/zero/mirrored.png"],
    ]
    assert {one["image"]: one["kind"] for one in found["poor"]} == {
        "train/zero/blank.png": "blank",
        "train/one/dark.png": "dark",
        "train/four/blurred.png": "blurred",
        "train/four/tiny.png": "tiny",
        "train/one/long.png": "oddly shaped",
    }
    wrong = {one["image"]: one["suggested"] for one in found["wrong_labels"]}
    assert {name: label for name, label in wrong.items() if "wrong" in name} == {
        "train/one/wrong10.png": "zero",
        "train/one/wrong11.png": "zero",
        "train/zero/wrong12.png": "four",
    }
    assert len(wrong) <= 6
    assert found["alike_classes"] == []


def test_the_page_needs_nothing_but_itself(looked_at: tuple[dict[str, Any], Path]) -> None:
    page = looked_at[1].read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == [f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{hashed}'"]
    assert "://" not in page
    options = re.findall(r'<select data-image="([^"]*)".*?</select>', page, re.DOTALL)
    assert {"train/zero/blank.png", "train/one/wrong10.png", "train/four/same.png"} <= set(options)
    ticked = re.findall(r'<select data-image="([^"]*)"[^>]*>\n<option value="">.*\n<option value="-" selected', page)
    # Of copies that of test stays; which label of one picture is right, a person has to say.
    assert sorted(set(ticked)) == [
        "train/four/cropped.jpg",
        "train/one/001.png",
        "train/zero/blank.png",
        "train/zero/mirrored.png",
    ]


def test_a_choice_becomes_a_table(spoiled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = load(str(spoiled_folder))
    files = sorted(path for path in spoiled_folder.rglob("*") if path.is_file())
    chosen = tmp_path / "choices.json"
    out, changed = ["train/zero/blank.png", "train/one/001.png"], {"train/one/wrong10.png": "zero"}
    chosen.write_text(json.dumps({"dataset": str(spoiled_folder), "leave_out": out, "relabel": changed}))
    table = spoiled_folder.parent / "fixed.csv"
    fix = ["data", "inspect", str(spoiled_folder), "--choices", str(chosen), "--fix"]
    assert run([*fix, str(table), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written == {
        "table": str(table),
        "images": sum(map(len, (before.train, before.val, before.test))) - 2,
        "left_out": 2,
        "relabelled": 1,
    }
    assert sorted(path for path in spoiled_folder.rglob("*") if path.is_file()) == files
    after = load(f"csv:{table}")
    for split in ("train", "val", "test"):
        old, new = getattr(before, split), getattr(after, split)
        expected = {old.name(one): before.class_names[old.class_names[one]] for one in range(len(old))}
        kept = {name: changed.get(name, label) for name, label in expected.items() if name not in out}
        names = {new.name(one): after.class_names[new.class_names[one]] for one in range(len(new))}
        assert names == {f"{spoiled_folder.name}/{name}": label for name, label in kept.items()}

    # A table of the table, as it is looked at again.
    chosen.write_text(json.dumps({"leave_out": [f"{spoiled_folder.name}/train/one/dark.png"], "relabel": {}}))
    again = table.with_name("again.csv")
    assert run(["data", "inspect", f"csv:{table}", "--choices", str(chosen), "--fix", str(again)]) == 0
    printed = capsys.readouterr()
    assert "1 left out, 0 with another label; no image was deleted or changed" in printed.out
    assert f"next: trainer fit csv:{again}" in printed.err
    with again.open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == written["images"] - 1


@pytest.mark.parametrize(
    ("values", "table", "problem"),
    [
        ({"leave_out": ["train/zero/999.png"], "relabel": {}}, "../new.csv", "names the image 'train/zero/999.png'"),
        ({"leave_out": [], "relabel": {"train/zero/000.png": "ten"}}, "../new.csv", "the class 'ten'"),
        ({"leave_out": []}, "../new.csv", "is expected to be what the page saves"),
        ({"leave_out": [], "relabel": {}}, "train/new.csv", "or in a folder above it"),
        ({"leave_out": [], "relabel": {}}, "train/zero/000.png", "or in a folder above it"),
    ],
)
def test_choices_that_cannot_be_are_refused(
    spoiled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], values: Any, table: str, problem: str
) -> None:
    chosen = tmp_path / "choices.json"
    chosen.write_text(json.dumps(values))
    fix = ["data", "inspect", str(spoiled_folder), "--choices", str(chosen)]
    assert run([*fix, "--fix", str(spoiled_folder / table)]) == 2
    assert problem in capsys.readouterr().err
    assert not (spoiled_folder.parent / "new.csv").exists()


def test_what_cannot_be_fixed_says_so(spoiled_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = tmp_path / "choices.json"
    chosen.write_text(json.dumps({"leave_out": [], "relabel": {}}))
    there = spoiled_folder.parent / "there.csv"
    there.write_text("mine")
    for command, problem in (
        (["builtin:digits", "--fix", "new.csv", "--choices", str(chosen)], "has no files that a table could list"),
        ([str(spoiled_folder), "--fix", "new.csv"], "--fix and --choices go together"),
        ([str(spoiled_folder), "--choices", str(chosen)], "--fix and --choices go together"),
        ([str(spoiled_folder), "--fix", str(there), "--choices", str(chosen)], "nothing is overwritten"),
    ):
        assert run(["data", "inspect", *command]) == 2
        assert problem in capsys.readouterr().err
    assert there.read_text() == "mine"


def test_clean_digits_are_not_accused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "inspect", "builtin:digits", "--sheet", str(tmp_path / "sheet.png")]) == 0
    printed = capsys.readouterr()
    assert "nothing found: no duplicates, no labels that look wrong" in printed.out
    assert "next: trainer fit --dataset builtin:digits" in printed.err
