"""`wandb sweep` and `wandb agent` with the project's sweep files, against a fake W&B server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from wandb_server import ENTITY, PROJECT, Server, wandb_server

BIN = Path(sys.executable).parent
GRID = Path(__file__).parents[2] / "sweeps" / "grid.yaml"
AGENT = ["agent", f"{ENTITY}/{PROJECT}/sweep1"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def wandb(variables: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """Start `wandb …` with the console script `trainer` on its PATH."""
    return subprocess.Popen(
        [BIN / "wandb", *arguments],
        env=os.environ | variables | {"PATH": f"{BIN}:{os.environ['PATH']}", "WANDB_DIR": "."},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def shortened(folder: Path, **values: str) -> Path:
    """The project's grid with fewer trials and other values, to save time."""
    rates = values.get("rates", "[0.001, 0.002]")
    text = GRID.read_text().replace("[0.0005, 0.001, 0.002, 0.004]", rates).replace("[0.2, 0.4]", "[0.4]")
    text = text.replace("value: 5", f"value: {values.get('epochs', '1')}")
    file = folder / "grid.yaml"
    file.write_text(text)
    return file


def create_sweep(server: Server, variables: dict[str, str], file: Path) -> None:
    output = finish(wandb(variables, "sweep", str(file)))
    assert f"wandb agent {ENTITY}/{PROJECT}/sweep1" in output
    assert server.sweep["method"] == "grid"


def test_wandb_sweep_takes_the_project_s_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with wandb_server() as (server, variables):
        create_sweep(server, variables, GRID)
        assert len(server.runs) == 8
        assert server.sweep["metric"] == {"name": "val_accuracy", "goal": "maximize"}


def test_an_agent_runs_every_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with wandb_server() as (server, variables):
        create_sweep(server, variables, shortened(tmp_path))
        finish(wandb(variables, *AGENT))
        assert {run.arguments["learning_rate"] for run in server.runs.values()} == {0.001, 0.002}
        for run in server.runs.values():
            assert (run.state, run.exit_code, run.starts) == ("finished", 0, 1)
            assert run.config | run.arguments == run.config
            assert 0.1 < run.summary["val_accuracy"] <= 1
            assert (tmp_path / "runs" / run.id / "export" / "spec.json").is_file()


def test_a_killed_run_that_is_queued_again_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with wandb_server(requeues=True) as (server, variables):
        create_sweep(server, variables, shortened(tmp_path, epochs="8", rates="[0.001]"))
        agent = wandb(variables, *AGENT)
        deadline = time.monotonic() + 120
        while not list(Path("runs").glob("run00000/checkpoints/step-*")):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        fits = [one for one in psutil.Process(agent.pid).children(recursive=True) if "fit" in one.cmdline()]
        fits[0].send_signal(signal.SIGKILL)
        output = finish(agent)
        assert "continuing at step" in output
        first = server.runs["run00000"]
        assert (first.state, first.exit_code, first.starts) == ("finished", 0, 2)
        assert 0.1 < first.summary["val_accuracy"] <= 1


def test_an_agent_whose_runs_fail_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = shortened(tmp_path, rates="[100, 200, 300, 400, 500, 600]")
    with wandb_server() as (server, variables):
        create_sweep(server, variables, file)
        agent = wandb(variables, *AGENT)
        output, _ = agent.communicate(timeout=600)
        assert "--learning-rate: 100.0 is out of range" in output
        assert "failed runs" in output
        assert sum(run.starts for run in server.runs.values()) < 6
