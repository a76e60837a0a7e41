"""Ages in tables, for times of this machine's clock and of one that is ahead."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from trainer.artifact import store
from trainer.cli import run

pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.mark.parametrize(
    ("age", "shown"),
    [
        (timedelta(seconds=-90), "just now"),
        (timedelta(hours=-30), "just now"),
        (timedelta(seconds=5), "0 min"),
        (timedelta(minutes=59, seconds=30), "59 min"),
        (timedelta(hours=23, minutes=59), "23 h"),
        (timedelta(days=2), "2 d"),
    ],
)
def test_the_age_of_models_and_runs(
    tiny_artifact: Path, capsys: pytest.CaptureFixture[str], age: timedelta, shown: str
) -> None:
    created = (datetime.now(UTC) - age).isoformat()
    description = store.find(store.publish(tiny_artifact, "pets")).path / "model.yaml"
    description.write_text(yaml.safe_dump(yaml.safe_load(description.read_text()) | {"creation_time": created}))
    run_folder = Path("runs/pets")
    run_folder.mkdir(parents=True)
    state = {"created": created, "state": "running", "identity": {"dataset": "folder:pets", "epochs": 1}}
    (run_folder / "run.json").write_text(json.dumps(state))
    for command in ("models", "runs"):
        assert run([command]) == 0
        assert f" {shown} │" in capsys.readouterr().out
