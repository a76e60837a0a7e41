from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from trainer.cli import run as run_command
from trainer.config import FitConfig
from trainer.errors import InputError
from trainer.runs.checkpoints import Progress
from trainer.runs.listing import list_runs, prune
from trainer.runs.open_run import open_run
from trainer.runs.run_folder import RunFolder, note_saved

IDENTITY = {"dataset": "builtin:digits", "epochs": 30}


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def begin(path: str, created: str) -> RunFolder:
    run = open_run(FitConfig(dataset="builtin:digits", run_dir=Path(path)), "digits", IDENTITY)
    run.update(created=f"2026-01-01T{created}:00+00:00")
    return run


def finish(run: RunFolder, export: Path, **result: object) -> None:
    shutil.copytree(export, run.export)
    run.finish({"val_accuracy": 0.75, "test_accuracy": 0.5, "epochs": 12, "tag": None, **result})
    run.close()


def write_checkpoint(folder: Path, epochs: int) -> None:
    history = [{"epoch": float(epoch)} for epoch in range(1, epochs + 1)]
    step = folder / "checkpoints" / f"step-{epochs:09d}"
    step.mkdir(parents=True)
    (step / "progress.json").write_text(json.dumps(asdict(Progress(epochs, history, 0.25))))


def test_each_run_is_listed_with_what_became_of_it(
    tiny_artifact: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    finish(begin("runs/digits-20260101-080000", "08:00"), tiny_artifact, tag="digits:qgl7ui3zws3u3aaa")
    begin("runs/digits-20260101-090000", "09:00").close()
    write_checkpoint(Path("runs/digits-20260101-090000"), 3)
    running = begin("runs/digits-20260101-100000", "10:00")
    finish(begin("runs/sweep-grid-1/trial-0000", "07:00"), tiny_artifact, val_accuracy=0.8)
    begin("runs/sweep-grid-1/trial-0001", "07:30").close()
    Path("runs/torn").mkdir()
    Path("runs/torn/run.json").write_text("{")
    Path("runs/no run").mkdir()

    found = {Path(one.path).name: one for one in list_runs()}
    assert list(found) == [
        "torn",
        "digits-20260101-100000",
        "digits-20260101-090000",
        "digits-20260101-080000",
        "sweep-grid-1",
    ]
    assert [one.state for one in found.values()] == ["damaged", "running", "unfinished", "finished", "sweep"]
    unfinished, finished, sweep = list(found.values())[2:]
    assert (unfinished.epoch, unfinished.epochs, unfinished.val_accuracy) == (3, 30, 0.25)
    assert (finished.val_accuracy, finished.test_accuracy) == (0.75, 0.5)
    assert finished.size_bytes > sum(file.stat().st_size for file in tiny_artifact.rglob("*"))
    assert (sweep.finished_trials, sweep.trials, sweep.val_accuracy) == (1, 2, 0.8)

    assert run_command(["runs"]) == 0
    printed = capsys.readouterr()
    for shown in (
        "digits-20260101-080000 ",
        "digits:qgl7ui3zws3u3aaa ",
        "epoch 3 of 30",
        "running, epoch 0 of 30",
        "on disk",
    ):
        assert shown in printed.out
    assert "sweep, 1 of 2 finished" in printed.out
    assert "`rm -r runs/torn` takes it away" in printed.out
    assert printed.err.splitlines()[-1] == "next: trainer fit --resume runs/digits-20260101-090000"
    running.close()

    assert run_command(["runs", "runs/sweep-grid-1", "--json"]) == 0
    trials = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["path"], one["state"]) for one in trials] == [
        ("runs/sweep-grid-1/trial-0001", "unfinished"),
        ("runs/sweep-grid-1/trial-0000", "finished"),
    ]


def test_a_finished_run_names_its_model_or_how_to_save_it(
    tiny_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["runs"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "next: trainer fit --dataset builtin:digits"
    finish(begin("runs/a", "08:00"), tiny_artifact)
    assert run_command(["runs"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "next: trainer save runs/a"
    note_saved(Path("runs/a"), "digits:v1")
    assert [one.tag for one in list_runs()] == ["digits:v1"]
    shutil.rmtree("runs/a/export")
    assert [one.state for one in list_runs()] == ["damaged"]
    with pytest.raises(InputError, match="absent: no folder"):
        list_runs(Path("absent"))


def test_prune_deletes_what_finished_runs_have_left(tiny_artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in ("runs/a", "runs/sweep-grid-1/trial-0000"):
        finish(begin(path, "08:00"), tiny_artifact)
        write_checkpoint(Path(path), 2)  # as an older version left it
    begin("runs/b", "09:00").close()
    write_checkpoint(Path("runs/b"), 1)
    assert run_command(["runs", "--prune"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("checkpoints of 2 finished runs deleted, ")
    assert "unfinished, stays: runs/b, 0 MB; `rm -r runs/b` deletes it" in printed.out
    assert printed.err.splitlines()[-1] == "next: trainer fit --resume runs/b"
    assert [path.parent.name for path in Path("runs").rglob("checkpoints")] == ["b"]
    assert prune() == (0, 0)


def test_prune_keeps_the_checkpoints_of_a_winner_until_it_is_exported(tiny_artifact: Path) -> None:
    for trial, accuracy in (("0", 0.8), ("1", 0.9)):
        run = begin(f"runs/sweep-grid-1/trial-{trial}", "08:00")
        write_checkpoint(run.path, 2)
        run.finish({"val_accuracy": accuracy, "epochs": 2}, keep_checkpoints=True)
        run.close()
    assert prune() == (0, 0)
    shutil.copytree(tiny_artifact, "runs/sweep-grid-1/trial-0/export")
    edit_result("runs/sweep-grid-1/trial-0", test_accuracy=0.5)  # the winner before trial 1 had run
    count, size_bytes = prune()
    assert (count, size_bytes > 0) == (1, True)
    assert [path.parent.name for path in Path("runs").rglob("checkpoints")] == ["trial-1"]
    edit_result("runs/sweep-grid-1/trial-1", test_accuracy=0.5)
    assert prune()[0] == 1


def test_a_sweep_over_two_data_sets_has_no_best_accuracy(tiny_artifact: Path) -> None:
    for number, dataset in enumerate(("builtin:digits", "folder:/images")):
        config = FitConfig(dataset=dataset, run_dir=Path(f"runs/sweep-two-1/trial-{number}"))
        finish(open_run(config, "digits", IDENTITY | {"dataset": dataset}), tiny_artifact)
    (sweep,) = list_runs()
    assert (sweep.dataset, sweep.val_accuracy, sweep.finished_trials) == ("builtin:digits, folder:/images", None, 2)


def edit_result(folder: str, **values: object) -> None:
    file = Path(folder, "run.json")
    run = json.loads(file.read_text())
    file.write_text(json.dumps(run | {"result": run["result"] | values}))
