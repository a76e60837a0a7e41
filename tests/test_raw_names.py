"""Files and classes named with escape sequences and line feeds: whatever shows their names stays printable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.text import UNPRINTABLE, printable

CAT, DOG = "cat\x1b[2J[b]$", "dog\nerror: forged \u202e\x9b2J"


@pytest.fixture
def folder(tmp_path: Path) -> bytes:
    """`…/set\\xff`, whose path is not UTF-8, with two classes; every name has control characters."""
    folder = os.fsencode(tmp_path) + b"/set\xff"
    random = np.random.default_rng(0)
    for index, name in enumerate((CAT, DOG)):
        class_folder = folder + b"/" + name.encode()
        os.makedirs(class_folder)
        for number in range(60):
            image = random.integers(0, 120, (8, 8), np.uint8) + np.uint8(100 * index)
            Image.fromarray(image).save(class_folder + b"/\x1b[31m\r\n%d.png" % number)
        Image.new("L", (8, 8), 90).save(class_folder + b"/blank\x07.png")
    (Path(os.fsdecode(folder)) / CAT / "bad\x1b]0;x\x07\nerror: y.png").write_bytes(b"\x89PNG\r\n\x1a\nx")
    return folder


def trainer(*arguments: str | bytes, cwd: Path) -> tuple[str, str]:
    """Stdout and stderr of a command that succeeds; no line of them is forged or unprintable."""
    command = [sys.executable, "-m", "trainer", *arguments]
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    for line in (ended.stdout + ended.stderr).splitlines():
        assert not UNPRINTABLE.search(line)
        assert not line.startswith("error:")
    return ended.stdout, ended.stderr


def test_inspection_is_printable_and_its_choices_can_be_applied(folder: bytes, tmp_path: Path) -> None:
    shown, logged = trainer("data", "inspect", folder, "--page=page.html", cwd=tmp_path)
    for name in (printable(CAT), printable(DOG), r"blank\x07.png", r"bad\x1b]0;x\x07\nerror: y.png"):
        assert name in shown
    assert r"set\xff" in logged.splitlines()[-1]  # the command to paste
    found = json.loads(trainer("data", "inspect", folder, "--json", cwd=tmp_path)[0])
    assert found["labels"] == [CAT, DOG]
    assert f"{CAT}/blank\x07.png" in {image["image"] for image in found["findings"]["poor"]}
    page = (tmp_path / "page.html").read_text()
    assert not UNPRINTABLE.search(page.replace("\n", ""))
    names = [printable(f"{CAT}/blank\x07.png"), printable(f"{DOG}/\x1b[31m\r\n7.png")]
    assert f'data-image="{names[0]}"' in page

    os.rename(folder, tmp_path / "set")  # a table is UTF-8
    choices = {"leave_out": names[:1], "relabel": {names[1]: printable(CAT)}}
    (tmp_path / "choices.json").write_text(json.dumps(choices))
    trainer("data", "inspect", "set", "--fix=fixed.csv", "--choices=choices.json", cwd=tmp_path)
    fixed = json.loads(trainer("data", "inspect", "csv:fixed.csv", "--json", cwd=tmp_path)[0])
    assert [sum(counts) for counts in zip(*fixed["counts"].values(), strict=True)] == [61, 60]


@pytest.mark.slow
def test_a_fit_is_printable(folder: bytes, tmp_path: Path) -> None:
    network = ("--model=branched_cnn", "--image-size=16", "--epochs=1", "--augment=none", "--flip=off")
    options = (*network, "--quantize=none")
    _, logged = trainer("fit", folder, *options, "--wandb=offline", "--no-save", "--run-dir=run", cwd=tmp_path)
    assert f"{printable(CAT)} " in logged
    written = [path for path in (tmp_path / "run").rglob("*") if path.suffix in (".html", ".json")]
    assert {"report.html", "run.json", "spec.json"} <= {path.name for path in written}
    for path in written:
        assert not UNPRINTABLE.search(path.read_text().replace("\n", "")), path
    assert json.loads((tmp_path / "run/export/spec.json").read_text())["labels"] == [CAT, DOG]
