"""Files of a sweep: its journal, a run folder that comes from another machine, and the winner in the store.

Fails without: `cut_torn_end`; the draft in `RayTrial._collect`; with `--faults all`, the promotion of a version that is
in the store already (`publish_once`).
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from command_line import make_folder
from operation import PHOTOS, Operation, check
from optuna.storages.journal import JournalFileBackend, JournalStorage
from system_calls import is_supported
from watched_process import Ended, run, trainer

from trainer.artifact import load, store
from trainer.console import fail
from trainer.files import tar_folder
from trainer.sweep.executor import Outcome
from trainer.sweep.journal import JOURNAL
from trainer.sweep.ray_trial import RayTrial
from trainer.sweep.search import Trial

pytestmark = pytest.mark.skipif(not is_supported(), reason="needs seccomp's user notifications: Linux 5.6, x86-64")

JOURNALS = f"work/runs/sweep-*/{JOURNAL}"
STAND_IN = Path(__file__).with_name("stand_in_trial.py")
SWEEP = """\
method: grid
name: grid
metric: {name: val_accuracy, goal: maximize}
parameters:
  dataset: {values: DATASETS}
  epochs: {value: 2}
command: ["${env}", "trainer", "fit", "--no-save", "${args}"]
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home" / "store"))
    make_folder(tmp_path / "home" / "work" / PHOTOS, {"a": 2, "b": 2}, gray=True)
    return tmp_path / "home"


def sweep(*arguments: str) -> None:
    """`trainer sweep`, whose trials are the stand-in's."""
    sys.executable = str(STAND_IN)
    trainer("sweep", *arguments)


def trials(home: Path, ended: Ended) -> list[Any]:
    """The trials in the journal."""
    (journal,) = home.glob(JOURNALS)
    study = optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(journal))))
    return [(one.number, one.state.name, one.value, one.intermediate_values, one.params) for one in study.trials]


def torn_journal(home: Path) -> str:
    """A record in the journal, before its last, that is not whole."""
    lines = [line for journal in home.glob(JOURNALS) for line in journal.read_bytes().split(b"\n")]
    return "".join(f"{line!r} is no record" for line in lines[:-1] if not (line[:1] == b"{" and line[-1:] == b"}"))


def test_journal(home: Path, sample: random.Random | None) -> None:
    # A trial for each data set: a page, which takes seconds to draw, compares trials on one.
    (home / "work" / "grid.yaml").write_text(SWEEP.replace("DATASETS", '["builtin:digits", "photos"]'))
    check(Operation(home, sweep, ("grid.yaml",), torn_journal, trials), sample, kills=5, errors=4)


class _Collected(RayTrial):
    """A trial that has ended on a node."""

    def _ask(self, method: str, *arguments: Any) -> Any:
        answers = {"outcome": Outcome({"val_accuracy": 0.5}), "files": tar_folder(Path("node")), "delete": None}
        return answers[method]


def collect() -> None:
    """Fetch the run folder of a trial from its node."""
    folder = Path("trial-0000")
    try:
        folder.mkdir(exist_ok=True)
        _Collected(SimpleNamespace(ray=None), Trial(0, {}, folder), (), folder)._collect()
    except Exception as error:
        sys.exit(fail(error))


def test_collected_run_folder(home: Path, sample: random.Random | None) -> None:
    for name in ("run.json", "export/spec.json", "export/report/report.html"):
        file = home / "work" / "node" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    check(Operation(home, collect, ()), sample, kills=5, errors=4)


@pytest.mark.slow
def test_winner(home: Path, tiny_artifact: Path, sample: random.Random | None) -> None:
    (home / "work" / "grid.yaml").write_text(SWEEP.replace("DATASETS", '["builtin:digits"]'))
    assert run(sweep, ("grid.yaml",), home).code == 0
    (trial,) = home.glob("work/runs/*/trial-0000")
    shutil.copytree(tiny_artifact, trial / "export")
    figures = {"val_accuracy": 0.5, "test_accuracy": 0.5}
    record = {"identity": {}, "state": "finished", "name": "digits", "result": figures}
    (trial / "run.json").write_text(json.dumps(record))

    def read(home: Path) -> str:
        """Versions, and what `latest` means, that are not whole."""
        for model in store.models():
            load(model.path)
        latest = home / "store" / "models" / "digits" / "latest"
        whole = not latest.exists() or (latest.parent / latest.read_text() / "model.yaml").exists()
        return "" if whole else f"latest is {latest.read_text()!r}"

    def result(home: Path, ended: Ended) -> object:
        (model,) = store.models()
        assert (model.path.parent / "latest").read_text() == model.path.name
        return ended.out.replace(model.path.name, "VERSION")

    command = ("sweep", "grid.yaml", "--trials", "0", "--save-best")
    check(Operation(home, trainer, command, read, result), sample, kills=2, errors=1)
