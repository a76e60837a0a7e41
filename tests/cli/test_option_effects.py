"""Every option of `trainer fit` changes the result, or is refused by name, on each path that takes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from command_line import call, make_folder, parse_fit

from trainer.artifact import read_spec, store
from trainer.config import FitConfig
from trainer.errors import InputError
from trainer.option_fields import flag, options
from trainer.signals import Signals
from trainer.sweep.trial import run_trial

pytestmark = pytest.mark.usefixtures("in_tmp_path")

# An option → another value than its default. The options of OUTPUT do not change the training.
VALUES = {
    "dataset": "folder:other",
    "model": "branched_cnn",
    "weights": "imagenet",
    "start_from": "absent",
    "fine_tune": "none",
    "time_limit": "1s",
    "image_size": "24",
    "resize": "pad",
    "epochs": "2",
    "batch_size": "16",
    "learning_rate": "0.01",
    "optimizer": "sgd",
    "weight_decay": "0.5",
    "dropout": "0.9",
    "kernel_size": "5",
    "normalize": "mnist",
    "augment": "strong",
    "flip": "on",
    "class_weights": "balanced",
    "precision": "bfloat16",
    "seed": "1",
    "limit": "70",
}
OUTPUT = {
    "quantize": "none",
    "confidence": "0.5",
    "name": "other",
    "save": "true",
    "promote": "true",
    "wandb": "offline",
    "data_dir": "tfds",
    "run_dir": "elsewhere",
    "resume": "never",
}
SMALL = ("--dataset=builtin:digits", "--limit=80", "--epochs=1", "--batch-size=8", "--no-save", "--wandb=disabled")
SCRATCH = (*SMALL, "--model=compact_resnet", "--precision=float32", "--augment=none", "--flip=off")
PRETRAINED = (*SMALL, "--model=efficientnet_lite0", "--image-size=32", "--precision=float32", "--flip=off")
LAST_LAYER = (
    *("--dataset=builtin:digits", "--limit=80", "--model=efficientnet_lite0", "--image-size=32", "--fine-tune=none"),
    *("--flip=off", "--no-save", "--wandb=disabled"),
)
SQUARE = "resize"  # makes no difference to digits, which are square; see tests/data/test_dataset.py
REFUSED_BY_SCRATCH = ("weights", "start_from", "fine_tune", "time_limit")
# A pretrained network has the weights of ImageNet anyway, refuses to go without, and is augmented strongly by default.
PRETRAINED_VALUES = VALUES | {"weights": "none", "augment": "light"}
REFUSED_BY_PRETRAINED = (  # with --epochs
    *("weights", "start_from", "time_limit", "kernel_size", "normalize", "fine_tune"),
)
REFUSED_BY_LAST_LAYER = (
    *("model", "weights", "start_from", "time_limit", "kernel_size", "normalize", "epochs", "batch_size"),
    *("learning_rate", "optimizer", "weight_decay", "dropout", "augment", "precision"),
)


def test_every_option_has_a_value_here() -> None:
    assert set(VALUES) | set(OUTPUT) == set(options(FitConfig))


class History:
    """Callbacks that keep the losses of each epoch."""

    def __init__(self) -> None:
        self.losses: list[tuple[float, float]] = []

    def on_step(self, step: int, total_steps: int) -> None:
        pass

    def on_epoch(self, entry: Mapping[str, float], *, step: int, epochs: int) -> None:
        self.losses.append((entry["loss"], entry["val_loss"]))

    def on_train_end(self) -> None:
        pass


def train(*arguments: str) -> list[tuple[float, float]]:
    """The losses of a trial with these options, which is not exported; a sweep runs the same."""
    history = History()
    folder = Path("run")
    shutil.rmtree(folder, ignore_errors=True)
    with Signals() as signals:
        run_trial(parse_fit(*arguments, f"--run-dir={folder}"), history, signals, keep_checkpoints=True)
    return history.losses


def refusal(*arguments: str) -> str:
    """The message that refuses these options."""
    with pytest.raises(InputError) as caught:
        train(*arguments)
    return str(caught.value)


@pytest.fixture
def other_folder(in_tmp_path: None) -> Path:
    return make_folder(Path("other"), {"a": 40, "b": 60}, gray=True)


@pytest.mark.usefixtures("other_folder")
@pytest.mark.parametrize(
    ("path", "values", "refused"),
    [
        pytest.param(SCRATCH, VALUES, REFUSED_BY_SCRATCH, id="scratch"),
        pytest.param(PRETRAINED, PRETRAINED_VALUES, REFUSED_BY_PRETRAINED, id="pretrained"),
        pytest.param(LAST_LAYER, PRETRAINED_VALUES, REFUSED_BY_LAST_LAYER, id="last-layer"),
    ],
)
def test_an_option_without_effect_is_refused_by_name(
    path: tuple[str, ...], values: dict[str, str], refused: tuple[str, ...]
) -> None:
    for name in refused:
        message = refusal(*path, f"{flag(name)}={values[name]}")
        assert flag(name) in message, name
    assert not Path("run", "run.json").exists()


def test_weight_decay_is_refused_by_adam() -> None:
    assert "--weight-decay" in refusal(*SCRATCH, "--optimizer=adam", "--weight-decay=0.1")


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.usefixtures("other_folder")
@pytest.mark.parametrize(
    ("path", "names"),
    [
        pytest.param(SCRATCH, VALUES.keys() - {*REFUSED_BY_SCRATCH, SQUARE}, id="scratch"),
        # The others reach the training as those of a network from scratch do.
        pytest.param(PRETRAINED, {"image_size", "learning_rate", "augment", "flip", "class_weights"}, id="pretrained"),
        # The solution is exact, and the seed only draws what --limit leaves.
        pytest.param(LAST_LAYER, VALUES.keys() - {*REFUSED_BY_LAST_LAYER, "fine_tune", SQUARE}, id="last-layer"),
    ],
)
def test_every_other_option_changes_the_training(path: tuple[str, ...], names: set[str]) -> None:
    values = VALUES if path is SCRATCH else PRETRAINED_VALUES
    # Threads add up in any order, which changes the last digits.
    usual = pytest.approx(np.ravel(train(*path)), rel=1e-5)
    assert np.ravel(train(*path)) == usual  # nothing else changes it
    for name in sorted(names):
        assert np.ravel(train(*path, f"{flag(name)}={values[name]}")) != usual, name


@pytest.mark.slow
def test_options_of_the_output(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_DIR")
    usual = ("fit", *SCRATCH, "--json")
    changed = [f"{flag(name)}={value}" for name, value in OUTPUT.items()]
    code, (result,), _ = call(*usual, *changed, capsys=capsys)
    assert code == 0
    assert result["run_dir"] == "elsewhere"
    assert list(Path("elsewhere", "wandb").glob("offline-run-*"))
    stored = store.find("other")  # promoted, although it guesses
    assert stored.tag == result["tag"]
    spec = read_spec(stored.path)
    assert (result["quantization"], spec["config"]["confidence"]) == ("float32", 0.5)
    assert call("fit", "tfds:absent", "--data-dir=tfds", capsys=capsys)[0] == 2
    code, _, errors = call(*usual, "--run-dir=elsewhere", "--resume=never", capsys=capsys)
    assert code == 2
    assert "--resume never: elsewhere" in errors


Prepare = Callable[[Path], None]


def make_unfinished(run: Path) -> None:
    """Make a run look as if it had been killed after its last checkpoint."""
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"state": "running"}))


@pytest.mark.usefixtures("other_folder")
@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(lambda _: None, id="finished"),
        pytest.param(make_unfinished, id="unfinished", marks=pytest.mark.slow),
    ],
)
def test_an_option_of_another_training_is_refused_by_an_earlier_run(prepare: Prepare) -> None:
    train(*SCRATCH)
    run = Path("run")
    prepare(run)
    record = (run / "run.json").read_text()
    for name, value in VALUES.items():
        if name in REFUSED_BY_SCRATCH:
            continue
        config = parse_fit(*SCRATCH, f"{flag(name)}={value}", f"--run-dir={run}")
        with Signals() as signals, pytest.raises(InputError) as caught:
            run_trial(config, History(), signals, keep_checkpoints=True)
        entry = dict.fromkeys(("image_size", "resize", "normalize"), "input").get(name, name)
        assert f"{entry}: " in str(caught.value), name
    assert (run / "run.json").read_text() == record


def test_a_run_folder_that_is_named_twice() -> None:
    FitConfig("builtin:digits", run_dir=Path("run"), resume="./run")
    with pytest.raises(InputError, match="--run-dir: --resume run"):
        FitConfig("builtin:digits", run_dir=Path("elsewhere"), resume="run")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("fit", "builtin:digits", "--events"), "--events"),
        (("predict", "model", "image.png", "--token-file=tokens"), "--token-file"),
        (("sweep", "sweep.yaml", "--trial-cpus=1"), "--trial-cpus"),
        (("sweep", "sweep.yaml", "--trial-gpus=0"), "--trial-gpus"),
        (("sweep", "sweep.yaml", "--run-root=r"), "--run-root"),
        (("sweep", str(Path(__file__).parents[2] / "sweeps/grid.yaml"), "--start-from=r"), "--start-from"),
        (("data", "inspect", "builtin:digits", "--fix=f.csv"), "--fix"),
        (("data", "inspect", "builtin:digits", "--choices=c.json"), "--choices"),
        (("data", "inspect", "other", "--fix=other/f.csv", "--choices=c.json", "--page=p.html"), "--page"),
        (("data", "inspect", "other", "--fix=other/f.csv", "--choices=c.json", "--sheet=s.png"), "--sheet"),
    ],
)
@pytest.mark.usefixtures("other_folder")
def test_an_option_is_refused_without_the_one_that_it_goes_with(
    arguments: tuple[str, ...], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, results, errors = call(*arguments, capsys=capsys)
    assert (code, results) == (2, [])
    assert option in errors.splitlines()[-1]
