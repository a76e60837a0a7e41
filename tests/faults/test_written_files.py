"""Files of the quick commands: cache entry, contact sheet, page, table of `--fix`, table of `--csv`, promotion.

Fails without: the page written by `files.write_text`; `save_array` in place of `numpy.save` by path; DISK_ERRORS in
`console.fail`.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from command_line import make_folder
from operation import PHOTOS, Operation, check
from system_calls import is_supported
from watched_process import Ended, run, trainer

from trainer.artifact import store

pytestmark = pytest.mark.skipif(not is_supported(), reason="needs seccomp's user notifications: Linux 5.6, x86-64")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a folder of twelve small images."""
    make_folder(tmp_path / "home" / "work" / PHOTOS, {"a": 6, "b": 6}, side=4, gray=True)
    return tmp_path / "home"


def test_cache_entry_sheet_and_page(home: Path, sample: random.Random | None) -> None:
    check(Operation(home, trainer, ("data", "inspect", PHOTOS, "--page", "page.html")), sample, kills=8, errors=5)


def test_mended_table(home: Path, sample: random.Random | None) -> None:
    run(trainer, ("data", "inspect", PHOTOS, "--sheet", "sheet.png"), home)
    choices = {"leave_out": ["a/0.png"], "relabel": {"a/1.png": "b"}}
    (home / "work" / "choices.json").write_text(json.dumps(choices))
    command = ("data", "inspect", PHOTOS, "--fix", "fixed.csv", "--choices", "choices.json")
    check(Operation(home, trainer, command, finished="exists already"), sample, kills=4, errors=4)


def test_table_of_predictions(
    home: Path, tiny_artifact: Path, sample: random.Random | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(home / "store"))
    store.publish(tiny_artifact, "tiny")
    table = home / "work" / "answers.csv"
    command = ("predict", "tiny", PHOTOS, "--csv", table.name)
    assert run(trainer, command, home).code == 0
    whole = table.read_bytes()
    table.unlink()

    def read(home: Path) -> str:
        """The table grows line by line."""
        found = table.read_bytes() if table.exists() else b""
        return "" if whole.startswith(found) else f"{found!r} is no start of {whole!r}"

    check(Operation(home, trainer, command, read, lambda *_: table.read_bytes()), sample, kills=5, errors=4)


def test_promotion(
    home: Path, tiny_artifact: Path, sample: random.Random | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(home / "store"))
    tags = [store.publish(tiny_artifact, "tiny") for _ in range(2)]

    def read(home: Path) -> str:
        found = store.find("tiny").tag
        return "" if found in tags and len(store.models()) == 2 else f"tiny is {found} of {store.models()}"

    def result(home: Path, ended: Ended) -> object:
        return [(model.tag, model.is_latest, model.not_promoted) for model in store.models()]

    check(Operation(home, trainer, ("promote", tags[0]), read, result), sample, kills=5, errors=4)
