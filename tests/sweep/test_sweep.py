"""`trainer sweep` through the command line."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from trainer.artifact import store
from trainer.cli import run
from trainer.data.manifest import read_manifest
from trainer.data.splits import TEST, VAL
from trainer.runs.publish import publish
from trainer.sweep.search import PARAMS, RUN, Search
from trainer.sweep.sweep import read_sweep

GRID = """\
method: grid
metric: {name: val_accuracy, goal: maximize}
parameters:
  dataset: {value: "builtin:digits"}
  epochs: {value: EPOCHS}
  limit: {value: 320}
  learning_rate: {values: [0.001, 0.002]}
  flip: {values: [on, off]}
command: ["${env}", "trainer", "fit", "--no-save", "${args}", "--quantize=none"]
"""


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str) -> Path:
    file = Path("grid.yaml")
    file.write_text(text)
    return file


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "trainer", "sweep", *arguments]


def sweep(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=400, check=False)


class Ended(NamedTuple):
    """Exit code and output of a command."""

    returncode: int
    stdout: str
    stderr: str


SweepHere = Callable[..., Ended]


@pytest.fixture
def sweep_here(capsys: pytest.CaptureFixture[str]) -> SweepHere:
    """`trainer sweep` in this process, which has imported what it needs; its trials have processes of their own."""

    def sweep(*arguments: str) -> Ended:
        capsys.readouterr()
        log = logging.getLogger("trainer")
        handler, level = logging.StreamHandler(sys.stderr), log.level
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        try:
            code = run(["sweep", *arguments])
        finally:
            log.removeHandler(handler)
            log.setLevel(level)
        return Ended(code, *capsys.readouterr())

    return sweep


def trials_of(file: Path) -> Search:
    """The trials of the only sweep under `runs`, which other processes may continue afterwards."""
    (folder,) = Path("runs").glob("sweep-*")
    with Search(read_sweep(file)[0], folder) as search:
        return search


def interrupt_after_export(folder: Path) -> None:
    """Leave a run folder as a kill does between the export and the last line of run.json."""
    run = json.loads((folder / "run.json").read_text())
    assert run["state"] == "finished"
    (folder / "run.json").write_text(json.dumps(run | {"state": "running", "result": None}))


def promote_altered(version: store.StoredModel, *, right: int) -> None:
    """Publish and promote the artifact as if it had predicted so many more of its test images right (or fewer); delete
    the version itself.
    """
    export = shutil.copytree(version.path, Path(f"{right} more"), ignore=shutil.ignore_patterns("model.yaml"))
    manifest = read_manifest(export)
    assert manifest
    correct = manifest.predictions == manifest.labels
    places = np.flatnonzero((correct == (right < 0)) & (manifest.splits == TEST))[: abs(right)]
    manifest.predictions[places] = manifest.labels[places] if right > 0 else (manifest.labels[places] + 1) % 10
    manifest.save(export)
    with (export / "spec.json").open("a") as spec:  # another artifact
        spec.write("\n")
    assert publish(export, "digits", promote=True).promoted
    shutil.rmtree(version.path)


def check_the_winner_beside_other_versions(sweep: Callable[[], Ended], reached: str) -> None:
    """A winner that is saved again is no other version; one that is worse than the promoted one is kept back."""
    (first,) = store.models()
    again = sweep()
    assert again.returncode == 0
    assert store.models() == [first]
    assert f"saved already as {first.tag}" in again.stderr
    assert (
        f"{first.tag}, promoted, reached {reached} on validation images of builtin:digits; the winner" in again.stderr
    )

    promote_altered(first, right=1)
    done = sweep()
    assert done.returncode == 0
    kept, better = store.models()[0], store.find("digits").tag
    assert better != kept.tag
    assert f"saved as {kept.tag}, not promoted; " in done.stdout
    assert f"{kept.tag} is kept and not promoted: worse than {better}: " in done.stderr
    assert done.stderr.splitlines()[-1] == f"next: trainer serve {better}"

    manifest = read_manifest(kept.path)
    assert manifest
    promote_altered(kept, right=-1)
    before = store.find("digits").tag
    done = sweep()
    winner, count = store.find("digits").tag, manifest.count(VAL) + manifest.count(TEST)
    assert f"{winner} is promoted and replaces {before}: of the {count} held-out images of both" in done.stderr


@pytest.fixture
def _wandb_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.mark.usefixtures("_wandb_offline")
def test_a_grid_on_two_workers_and_its_winner_in_the_store(sweep_here: SweepHere) -> None:
    file = write(GRID.replace("EPOCHS", "1"))
    done = sweep(str(file), "--workers", "2", "--save-best")
    assert done.returncode == 0, done.stderr
    search = trials_of(file)
    params = [trial.user_attrs[PARAMS] for trial in search.trials()]
    assert len(params) == 4
    assert {(one["learning_rate"], one["flip"]) for one in params} == {
        (rate, flip) for rate in (0.001, 0.002) for flip in ("on", "off")
    }
    best = search.leaders("builtin:digits")[0]
    assert f"{best.value:.2%}" in done.stdout
    assert f"trial {best.number}: validation accuracy {best.value:.2%}, test accuracy" in done.stdout
    assert store.find("digits").tag in done.stdout
    assert done.stderr.splitlines()[-1] == "next: trainer serve digits"
    page = (search.folder / "sweep.html").read_text()
    charts = ("Trial by trial", "learning_rate", "flip")
    assert [chart for chart in charts if f'alt="{chart}"' in page] == list(charts)
    assert len(page) < 1_000_000
    assert f'<dd class="value">{100 * best.value:.2f}&nbsp;%</dd>\n  <dd>trial {best.number}: learning_rate' in page
    assert "<code>trainer sweep grid.yaml --trials=0 --save-best</code>" in page
    kept = {trial.user_attrs[RUN] for trial in search.leaders("builtin:digits")[:3]}  # the others have no checkpoints
    assert {str(folder.parent) for folder in search.folder.glob("trial-*/checkpoints")} == kept - {best.user_attrs[RUN]}
    assert [str(folder.parent) for folder in search.folder.glob("trial-*/export")] == [best.user_attrs[RUN]]
    assert re.search(r"most likely be right for [\d.]+% to [\d.]+%, and rather", done.stdout)
    rate, flip = (best.user_attrs[PARAMS][name] for name in ("learning_rate", "flip"))
    options = f"--dataset=builtin:digits --epochs=1 --limit=320 --learning-rate={rate} --flip={flip} --quantize=none"
    assert f"<code>trainer fit {options}</code>" in page
    row = f"<td>{best.number}</td><td>{best.value:.2%}</td><td>learning_rate {rate}, flip {flip}</td>"
    assert row in page
    assert "grid, 4 trials; dataset builtin:digits, epochs 1, limit 320\n" in done.stderr
    assert len(re.findall(r"trial \d: learning_rate 0\.00\d, flip \w+: started$", done.stderr, re.MULTILINE)) == 4
    assert len(re.findall(r"trial \d: epoch 1(?: of 1)?: [\d.]+%$", done.stderr, re.MULTILINE)) == 4
    assert '<script src="http' not in page
    assert "decoded 1797 images" not in (search.folder / "trial-0003" / "fit.log").read_text()  # the cache is shared
    tracked = Path(os.environ["WANDB_DIR"]).glob("wandb/offline-run-*")
    assert len({folder.name.rpartition("-")[2] for folder in tracked}) == 4
    check_the_winner_beside_other_versions(
        lambda: sweep_here(str(file), "--trials", "0", "--save-best"), f"{best.value:.1%}"
    )
    before = len(store.models())
    interrupt_after_export(Path(best.user_attrs[RUN]))
    again = sweep_here(str(file), "--trials", "0", "--save-best")
    assert again.returncode == 0, again.stderr
    assert len(store.models()) == before + 1  # exported anew
    shown = sweep_here(str(file), "--trials", "0")
    assert shown.stderr.splitlines()[-1] == "next: trainer sweep grid.yaml --trials 0 --save-best"


TWO = """\
method: grid
metric: {name: val_accuracy, goal: maximize}
parameters:
  dataset: {values: ["builtin:digits", images/colours]}
  epochs: {value: 1}
  limit: {value: 320}
  flip: {value: off}
  quantize: {value: none}
  seed: {values: [0, 1]}
"""


def draw_images(folder: str) -> None:
    """Forty images of noise in each of two classes, which nothing tells apart."""
    random = np.random.default_rng(0)
    for name in ("blue", "red"):
        Path(folder, name).mkdir(parents=True)
        for number in range(40):
            pixels = random.integers(0, 256, (12, 12), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(folder, name, f"{number}.png"))


@pytest.mark.slow
def test_each_of_two_data_sets_has_its_own_best_and_its_own_model(sweep_here: SweepHere) -> None:
    draw_images("images/colours")
    file = write(TWO)
    done = sweep_here(str(file), "--workers", "2", "--trials", "3", "--save-best")  # two on the digits
    assert done.returncode == 0, done.stderr
    search = trials_of(file)
    assert search.datasets() == ["builtin:digits", "images/colours"]
    page = (search.folder / "sweep.html").read_text()
    for dataset, name, count in (("builtin:digits", "digits", 2), ("images/colours", "colours", 1)):
        best, *others = search.leaders(dataset)
        assert len(others) == count - 1
        assert f"{search.spec.name}: the best trials on {dataset}" in done.stdout
        assert f"trial {best.number}: validation accuracy " in done.stdout
        for other in others:
            assert f"trial {other.number}: validation accuracy " not in done.stdout
        assert f"saved as {name}:" in done.stdout
        assert f"<h1>{dataset}</h1>" in page
        assert f"<dd>trial {best.number}: dataset {dataset}, seed" in page
    assert len(store.models()) == 2


@pytest.mark.parametrize(
    ("datasets", "problem"),
    [
        ('["a/images", "b/images"]', "--save-best: the models of a/images and b/images would both be named images; "),
        ('["a/images", "folder:a/images"]', "parameters.dataset: a/images and folder:a/images are the same data"),
    ],
)
def test_two_data_sets_that_cannot_be_told_apart_are_refused(
    datasets: str, problem: str, sweep_here: SweepHere
) -> None:
    draw_images("a/images")
    draw_images("b/images")
    done = sweep_here(str(write(TWO.replace('["builtin:digits", images/colours]', datasets))), "--save-best")
    assert done.returncode == 2
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1
    assert not Path("runs").exists()


def test_a_sweep_without_trials_ends_with_its_own_command(sweep_here: SweepHere) -> None:
    done = sweep_here(str(write(GRID.replace("EPOCHS", "1"))), "--trials", "0")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "next: trainer sweep grid.yaml"


def test_options_of_a_cluster_without_one_are_refused(sweep_here: SweepHere) -> None:
    for option in ("--trial-cpus=2", "--trial-gpus=0", "--run-root=shared"):
        done = sweep_here(str(write(GRID.replace("EPOCHS", "1"))), option)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {option.partition('=')[0]}: ")
        assert "--cluster" in done.stderr


def test_a_value_out_of_range_is_refused_before_the_first_trial(sweep_here: SweepHere) -> None:
    done = sweep_here(str(write(GRID.replace("EPOCHS", "0"))))
    assert done.returncode == 2
    assert done.stderr == "error: grid.yaml, line 5, parameters.epochs: 0 is out of range; 1 to 10000 is expected\n"
    assert not Path("runs").exists()


@pytest.mark.slow
def test_trials_with_wrong_params_fail_alone_and_are_named(sweep_here: SweepHere) -> None:
    # Each value is right, and no worker is at fault that two of them do not go together.
    pair = "  model: {value: efficientnet_lite0}\n  weights: {value: none}\n"
    text = GRID.replace("EPOCHS", "1").replace("  limit: {value: 320}\n", pair)
    file = write(text.replace("values: [0.001, 0.002]", "value: 0.001"))
    done = sweep_here(str(file))
    assert done.returncode == 3
    assert len(trials_of(file).trials()) == 2
    again = sweep_here(str(file))
    assert again.returncode == 3
    assert "trial 0 failed: --weights none: " in again.stderr
    assert "trials that failed and are left out: 2; --retry-failed runs them once more" in again.stderr
    assert again.stderr.splitlines()[-1].startswith("error: no trial has finished; ")


def test_a_data_set_that_is_not_there_is_refused_before_any_trial(sweep_here: SweepHere) -> None:
    file = write(GRID.replace("EPOCHS", "1").replace("builtin:digits", "folder:photo"))
    Path("photos").mkdir()
    done = sweep_here(str(file))
    assert done.returncode == 2
    assert done.stderr == "error: --dataset: photo does not exist; a folder is expected; did you mean folder:photos?\n"
    assert not Path("runs").exists()


def test_other_images_in_the_folder_make_another_sweep() -> None:
    for name in ("cat", "dog"):
        Path("photos", name).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red" if name == "cat" else "blue").save(Path("photos", name, "1.png"))
    file = write(GRID.replace("EPOCHS", "1").replace("builtin:digits", "folder:photos"))
    first = read_sweep(file)[0]
    assert read_sweep(file)[0].name == first.name
    image = next(Path("photos", "cat").iterdir())
    image.write_bytes(next(Path("photos", "dog").iterdir()).read_bytes())
    by_parameter = read_sweep(file)[0]
    assert by_parameter.name != first.name
    command = file.read_text().replace('  dataset: {value: "folder:photos"}\n', "")
    for words in ('"--dataset=folder:photos"', '"--dataset", "folder:photos"'):
        file.write_text(command.replace('"--no-save"', words))
        assert read_sweep(file)[0].data == by_parameter.data


def wait_for_checkpoint(trial: str) -> None:
    deadline = time.monotonic() + 120
    while not list(Path("runs").glob(f"sweep-*/{trial}/checkpoints/step-*")):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_signal_and_after_it_was_killed_and_a_second_one_is_refused() -> None:
    file = write(GRID.replace("EPOCHS", "12"))
    process = subprocess.Popen(command(str(file)), stderr=subprocess.DEVNULL)
    wait_for_checkpoint("trial-0001")
    second = sweep(str(file))
    assert second.returncode == 2
    assert second.stderr.splitlines()[-1].endswith(f": this sweep is running already, as process {process.pid}")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    process = subprocess.Popen(command(str(file), "--workers", "2"), stderr=subprocess.DEVNULL)
    wait_for_checkpoint("trial-0002")
    process.kill()  # its trials notice it
    process.wait()
    done = sweep(str(file), "--workers", "2")
    assert done.returncode == 0, done.stderr
    search = trials_of(file)
    assert [trial.state.name for trial in search.trials()] == ["COMPLETE"] * 4
    for trial in ("trial-0001", "trial-0002"):
        assert "continuing at step" in (search.folder / trial / "fit.log").read_text(), trial


@pytest.mark.slow
def test_an_export_that_was_interrupted_is_done_by_the_same_command() -> None:
    file = write(GRID.replace("EPOCHS", "1"))
    assert sweep(str(file), "--trials", "1").returncode == 0
    log = trials_of(file).folder / "trial-0000" / "fit.log"
    prune = [sys.executable, "-m", "trainer", "runs", "--prune"]
    assert "checkpoints of 0 finished runs" in subprocess.run(prune, capture_output=True, text=True, check=True).stdout
    process = subprocess.Popen(command(str(file), "--trials", "0", "--save-best"), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while "was not exported" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert store.models() == []
    done = sweep(str(file), "--trials", "0", "--save-best")
    assert done.returncode == 0, done.stderr
    assert len(store.models()) == 1
    assert log.read_text().count("epoch 1/1") == 1  # its checkpoints are still there: it is not trained again
