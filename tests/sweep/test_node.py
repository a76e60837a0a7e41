from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from test_executor import stand_in

from trainer.data.sources.base import Source
from trainer.data.sources.spec import open_source
from trainer.files import untar
from trainer.machine import available_cpus
from trainer.sweep.node import NodeTrial, are_in_use, prepare, requirements_of, root_of


@pytest.fixture
def source(tmp_path: Path) -> Source:
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red" if name == "cat" else "blue").save(tmp_path / "images" / name / "1.png")
    return open_source(f"folder:{tmp_path / 'images'}")


def test_a_node_with_the_same_data_and_code_passes(source: Source) -> None:
    assert prepare(requirements_of([source], None), {}) == ""


def test_the_first_unmet_requirement_is_named(source: Source, tmp_path: Path) -> None:
    required, images = requirements_of([source], None), tmp_path / "images"
    other = replace(required, versions={**required.versions, "tensorflow": "1.0"})
    assert prepare(other, {}).endswith("and the sweep runs with 1.0")
    shutil.copy(images / "cat" / "1.png", images / "cat" / "2.png")
    assert prepare(required, {}) == f"has 3 images of folder:{images}, and the sweep's has 2"
    (images / "cat" / "1.png").unlink()
    assert prepare(required, {}) == f"has other images or classes in folder:{images}"
    shutil.rmtree(images)
    assert prepare(required, {}) == f"{images} does not exist; a folder is expected"


def test_a_trial_is_run_polled_collected_and_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    event = '{"event": "epoch", "epoch": 1, "val_accuracy": 0.5}'
    script = (
        f"for word; do case $word in --run-dir=*) folder=${{word#*=}};; esac; done; echo '{event}'\n"
        "mkdir $folder/checkpoints; touch $folder/checkpoints/big; ln -s /nowhere/else $folder/link\n"
        "echo $TRAINER_CPUS $TF_NUM_INTRAOP_THREADS > $folder/cpus; echo '{\"val_accuracy\": 0.6}'"
    )
    stand_in(tmp_path, monkeypatch, script)
    trial, folder = NodeTrial(), Path("grid-1/trial-0000")
    trial.start([], folder, tmp_path / "root", 3, {})
    events = []
    while None not in events:
        events += trial.poll(10)
    assert [event["epoch"] for event in events if event] == [1]
    assert trial.outcome().result == {"val_accuracy": 0.6}
    assert are_in_use([folder], tmp_path / "root") == [False]
    untar(trial.files(), tmp_path / "collected")
    assert sorted(file.name for file in (tmp_path / "collected").iterdir()) == ["cpus", "fit.log"]
    assert (tmp_path / "collected" / "cpus").read_text() == "3 3\n"
    trial.delete()
    assert not (root_of(tmp_path / "root") / folder).exists()


def test_a_trial_uses_the_cpus_that_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_CPUS", "1")
    assert available_cpus() == 1
