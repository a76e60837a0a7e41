from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.cli import run
from trainer.locks import ProcessLock, Timeout

# Imported by each Python process: a file system that says `LOCK_ERROR` to every lock, as NFS without its lock daemon.
SITECUSTOMIZE = """
import fcntl, os

def flock(descriptor, operation):
    raise OSError(int(os.environ["LOCK_ERROR"]), "No locks available")

fcntl.flock = flock
"""


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP], ids=["ENOLCK", "EOPNOTSUPP"])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(request.param, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    number: int = request.param
    return number


@pytest.mark.usefixtures("no_locks")
def test_a_lock_excludes_others_without_locks_of_the_file_system(tmp_path: Path) -> None:
    first, second = (ProcessLock(tmp_path / "lock") for _ in range(2))
    with first, pytest.raises(Timeout):
        second.acquire(0)
    with second:
        pass
    assert [path.name for path in tmp_path.iterdir() if path.name != "lock"] == []


@pytest.mark.usefixtures("no_locks")
def test_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    code = f"import os; from pathlib import Path; from trainer.locks import ProcessLock\n\
ProcessLock(Path({str(tmp_path / 'lock')!r})).acquire(); os._exit(9)"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.getcwd()}", "LOCK_ERROR": str(errno.ENOLCK)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 9
    with ProcessLock(tmp_path / "lock", timeout_s=5):
        pass


def test_another_error_is_not_a_missing_lock(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(OSError, match="lock"):
        ProcessLock(tmp_path / "lock").acquire(0)


def test_commands_work_without_locks(
    no_locks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINER_CACHE_DIR", str(tmp_path / "cache"))
    assert run(["data", "inspect", "builtin:digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"][0] == "0"
    assert run(["cache", "prune"]) == 0
    assert "deleted" in capsys.readouterr().out
    if no_locks == errno.ENOLCK:  # the training takes seconds
        options = ("--limit=80", "--epochs=1", "--model=branched_cnn", "--wandb=disabled", "--json")
        assert run(["fit", "builtin:digits", *options, "--quantize=none", "--run-dir=run"]) == 0
        assert json.loads(capsys.readouterr().out)["tag"].startswith("digits:")
        assert run(["runs", ".", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["state"] == "finished"
