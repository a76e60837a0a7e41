from __future__ import annotations

import logging
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command_line import BIN, FIT, call, make_folder

pytestmark = pytest.mark.usefixtures("in_tmp_path")

LONG = [*FIT, "--epochs=12", "--limit=600", "--wandb=offline", "--run-dir=run", "--no-save", "--quantize=none"]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(BIN / "trainer"), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def checkpoint_steps(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*")]


def wait_for_checkpoint(process: subprocess.Popen[str], folder: Path, *, after: int) -> None:
    """Wait until there is a checkpoint of a step later than `after`."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if max(checkpoint_steps(folder), default=0) > after:
            return
        time.sleep(0.1)
    raise AssertionError("no checkpoint in time")


def offline_runs(folder: Path) -> set[str]:
    return {path.name.rsplit("-", 1)[1] for path in (folder / "wandb").glob("offline-run-*")}


def test_a_run_survives_kill_sigterm_and_ctrl_c(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv("WANDB_DIR")
    folder = tmp_path / "run"
    step, logged = 0, set[int]()
    for number, expected in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = start(*LONG)
        wait_for_checkpoint(process, folder, after=step)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == expected, errors
        step = max(checkpoint_steps(folder))
        if number != signal.SIGKILL:
            assert errors.splitlines()[-1] == "next: trainer fit --resume run"
        logged |= {int(epoch) for epoch in re.findall(r"epoch (\d+)/12", errors)}
    # The run folder alone is enough to continue, also from another folder.
    (tmp_path / "elsewhere").mkdir()
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO, "trainer"):
        patch.chdir(tmp_path / "elsewhere")
        code, (result,), errors = call("fit", "--resume", str(folder), "--json", capsys=capsys)
    assert code == 0, errors
    assert "continuing at step" in caplog.text
    logged |= {int(epoch) for epoch in re.findall(r"epoch (\d+)/12", caplog.text)}
    assert sorted(logged) == list(range(1, result["epochs"] + 1))
    assert result["epochs"] >= 3
    assert result["tag"] is None  # --no-save is kept, too
    assert len(offline_runs(folder)) == 1  # one W&B run, through all of them
    assert not (folder / "checkpoints").exists()  # a finished run needs none
    code, _, errors = call(*LONG, "--kernel-size=5", capsys=capsys)
    assert code == 2
    assert "kernel_size: 3 there, 5 now" in errors


def test_a_run_is_not_continued_with_other_settings(capsys: pytest.CaptureFixture[str]) -> None:
    command = [*FIT, "--epochs=1", "--limit=200", "--wandb=disabled", "--flip=off", "--quantize=none"]
    assert call(*command, "--no-save", "--run-dir=run", "--batch-size=32", capsys=capsys)[0] == 0
    before = Path("run/run.json").read_text()
    differences = {
        "--epochs=2": "epochs: 1 there, 2 now",
        "--batch-size=64": "batch_size: 32 there, 64 now",
        "--learning-rate=0.1": "learning_rate: 0.001 there, 0.1 now",
        "--optimizer=sgd": 'optimizer: "adamw" there, "sgd" now',
        "--weight-decay=0.5": "weight_decay: 0.01 there, 0.5 now",
        "--dropout=0.1": "dropout: 0.4 there, 0.1 now",
        "--augment=strong": 'augment: "auto" there, "strong" now',
        "--class-weights=balanced": 'class_weights: "none" there, "balanced" now',
    }
    for place in ("--run-dir=run", "--resume=run"):
        code, results, errors = call(*command, place, *differences, capsys=capsys)
        assert (code, results) == (2, [])
        last = errors.splitlines()[-1]
        assert last.startswith("error: run: ")
        assert last.endswith(f": {'; '.join(differences.values())}")
    assert Path("run/run.json").read_text() == before
    assert call("models", "--json", capsys=capsys)[1] == []
    # Options that spell out the defaults make no difference.
    same = ["--learning-rate=0.001", "--normalize=none", "--batch-size=32"]
    code, (again,), _ = call(*command, "--no-save", "--run-dir=run", *same, capsys=capsys)
    assert (code, again["epochs"]) == (0, 1)
    # With `--resume RUN_DIR`, every other option is the run's; those that are given are compared.
    code, results, errors = call("fit", "--resume=run", "--dropout=0.1", "--json", capsys=capsys)
    assert (code, results) == (2, [])
    assert errors.splitlines()[-1].endswith(": dropout: 0.4 there, 0.1 now")
    # The data set may be named once more; another one is compared, too.
    for named in ((), ("builtin:digits",), ("builtin:digits", "--dataset=builtin:digits")):
        code, (resumed,), _ = call("fit", *named, "--resume=run", "--json", capsys=capsys)
        assert (code, resumed) == (0, again)
    other = make_folder(Path("other"), {"cat": 20, "dog": 20}, gray=True)
    code, results, errors = call("fit", "other", "--resume=run", "--json", capsys=capsys)
    assert (code, results) == (2, [])
    assert f'dataset: "builtin:digits" there, "folder:{other.absolute()}" now' in errors.splitlines()[-1]


def test_a_loss_that_is_not_finite_publishes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    # This much weight decay multiplies the weights by -9 in each step.
    diverging = ["--optimizer=sgd", "--learning-rate=10", "--weight-decay=1"]
    command = [*FIT, "--epochs=30", "--wandb=disabled", "--run-dir=run", *diverging]
    code, results, errors = call(*command, capsys=capsys)
    assert (code, results) == (3, [])
    assert "not finite" in errors.splitlines()[-1]  # no command to resume, which would end the same
    assert call("models", "--json", capsys=capsys)[1] == []
