from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from sklearn.datasets import load_digits

from trainer import artifact
from trainer.artifact import store
from trainer.artifact.engine import NOVELTY, load_engine
from trainer.cli import app, run
from trainer.images.decode import decode

BIN = Path(sys.executable).parent
FIT = ["fit", "--dataset", "builtin:digits", "--precision", "float32", "--json"]


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, Any]], str]:
    """Run a command line in this process: exit code, the JSON lines of stdout, stderr."""
    capsys.readouterr()
    code = run(arguments)
    printed = capsys.readouterr()
    return code, [json.loads(line) for line in printed.out.splitlines()], printed.err


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(BIN / "trainer"), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def write_digit(path: Path, index: int) -> str:
    """One of the built-in digits as a PNG; which it is."""
    digits = load_digits()
    Image.fromarray((digits.images[index] * 255 / 16).round().astype(np.uint8)).save(path)
    return str(digits.target[index])


def test_fit_tells_of_each_epoch_as_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, _ = call(*FIT, "--epochs=2", "--events", "--wandb=disabled", "--no-save", capsys=capsys)
    assert code == 0
    assert [line.get("event") for line in lines] == ["epoch", "epoch", None]
    assert [(line["epoch"], line["epochs"]) for line in lines[:2]] == [(1, 2), (2, 2)]
    assert 0 <= lines[0]["val_accuracy"] <= 1
    assert lines[2]["epochs"] == 2


def check_explanation(digit: Path, predicted: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    code, (explained,), _ = call("explain", "digits", str(digit), "--json", capsys=capsys)
    assert (code, explained) == (0, predicted | {"explanation": "a digit.explained.png"})
    with Image.open(explained["explanation"]) as drawn:
        assert (drawn.size, drawn.mode, drawn.format) == ((8, 8), "RGB", "PNG")
    pictures = [str(digit), "none.jpg", str(digit)]
    code, _, error = call("explain", "digits", *pictures, "--output=seen", "--json", capsys=capsys)
    assert code == 2
    assert "none.jpg: No such file" in error
    names = sorted(path.name for path in Path("seen").iterdir())
    assert names == ["a digit-2.explained.png", "a digit.explained.png"]


def test_fit_models_predict_evaluate_save(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, (fitted,), _ = call(*FIT, "--epochs", "8", "--wandb=offline", capsys=capsys)
    assert code == 0
    assert fitted["tag"].startswith("digits:")
    assert fitted["val_accuracy"] >= 0.9
    assert fitted["test_accuracy"] >= 0.9
    assert fitted["verdict"] == "good"
    assert f"right {100 * fitted['test_accuracy']:.0f} times in 100" in fitted["reason"]
    parts = fitted["seconds"]
    assert set(parts) == {"reading", "training", "validation", "export", "test", "report", "all"}
    assert sum(parts.values()) - parts["all"] <= parts["all"]
    pictures = ("calibration.png", "confusion.png", "learning_curves.png", "mistakes.png", "per_class.png")
    assert sorted(path.name for path in Path(fitted["run_dir"], "report").iterdir()) == [*pictures, "report.html"]
    stored = store.find(fitted["tag"]).path
    assert (stored / "report" / "report.html").read_bytes() == Path(
        fitted["run_dir"], "report/report.html"
    ).read_bytes()
    assert "report/report.html" in artifact.read_spec(stored)["files"]

    code, (listed,), _ = call("models", "--json", capsys=capsys)
    assert (code, listed["tag"], listed["dataset"]) == (0, fitted["tag"], "builtin:digits")
    assert listed["test_accuracy"] == fitted["test_accuracy"]

    answer = write_digit(tmp_path / "a digit.png", 7)
    code, (predicted,), _ = call("predict", "digits", str(tmp_path / "a digit.png"), "--json", capsys=capsys)
    assert code == 0
    assert predicted["label"] == answer
    assert list(predicted) == ["label", "index", "probability", "known", "top", "model", "path"]
    assert predicted["top"][0]["probability"] == predicted["probability"] > 0.5
    assert predicted["model"] == fitted["tag"]
    check_explanation(tmp_path / "a digit.png", predicted, capsys)

    evaluations = {}
    for engine, data in (("litert", ["--dataset", "builtin:digits"]), ("tensorflow", [])):  # its own is the same
        command = ["evaluate", "digits:latest", *data, f"--engine={engine}", "--json"]
        code, (evaluations[engine],), _ = call(*command, capsys=capsys)
        assert code == 0
    assert evaluations["litert"]["test_accuracy"] == fitted["test_accuracy"]
    assert evaluations["litert"]["val_accuracy"] == fitted["val_accuracy"]
    assert (evaluations["litert"]["test_images"], evaluations["litert"]["seen_images"]) == (171, 1465 + 161)
    assert evaluations["tensorflow"]["test_accuracy"] == pytest.approx(fitted["test_accuracy"], abs=0.011)
    assert set(evaluations["litert"]["classes"]) == set("0123456789")
    assert (evaluations["litert"]["verdict"], evaluations["litert"]["reason"]) == ("good", fitted["reason"])
    page = Path(evaluations["litert"]["report_dir"], "report.html").read_text(encoding="utf-8")
    assert f"<h1>{fitted['tag']}</h1>" in page
    assert f"{100 * fitted['test_accuracy']:.1f}&nbsp;%" in page

    code, (saved,), _ = call("save", fitted["run_dir"], "--name", "other", "--json", capsys=capsys)
    assert code == 0
    assert saved["tag"].startswith("other:")

    shown = subprocess.run(
        [BIN / "bentoml", "models", "get", "digits:latest"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert "test_accuracy" in shown
    assert "labels" in shown

    # Finished: the same command again is a new run, and the same run folder is not trained again.
    code, (again,), _ = call(*FIT, "--epochs=8", "--no-save", "--run-dir", fitted["run_dir"], capsys=capsys)
    assert code == 0
    assert again["test_accuracy"] == fitted["test_accuracy"]
    assert again["tag"] is None


@pytest.mark.parametrize(
    ("spoiled", "said", "command"),
    [
        (
            ("--epochs=1", "--batch-size=1024"),
            "train longer: a network that starts from nothing needs at least 200",
            "",
        ),
        (
            ("--learning-rate=10", "--epochs=10", "--batch-size=16"),
            "use a smaller learning rate than 10: ",
            " --epochs=10",
        ),
    ],
)
def test_a_run_that_was_spoiled_is_told_what_to_change(
    spoiled: tuple[str, ...], said: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--model=compact_resnet", "--limit=400")
    assert run(["fit", "--dataset", "builtin:digits", *small, *spoiled, "--wandb=disabled", "--no-save"]) == 0
    _, verdict, advice, tried, *more = capsys.readouterr().out.splitlines()
    assert verdict.startswith("bad: right ")
    assert advice.startswith(f"- {said}")
    assert tried.startswith(f"  trainer fit --dataset=builtin:digits --model=compact_resnet{command}")
    assert "--learning-rate" not in tried
    assert more == []


def test_the_same_seed_gives_the_same_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    command = [*FIT, "--epochs=2", "--wandb=disabled", "--no-save", "--resume=never"]
    results = [call(*command, "--run-dir", f"r{index}", capsys=capsys)[1][0] for index in range(2)]
    for key in ("val_accuracy", "test_accuracy", "test_loss"):
        assert results[0][key] == results[1][key]


def make_folder(root: Path, classes: dict[str, int], *, side: int = 12) -> Path:
    generator = np.random.default_rng(0)
    for label, count in classes.items():
        (root / label).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{index}.png")
    return root


def bad_folders(root: Path) -> dict[str, str]:
    """A spec that must be refused → a part of the message."""
    (root / "empty").mkdir()
    make_folder(root / "one class", {"cat": 20})
    (make_folder(root / "hollow", {"cat": 20, "dog": 20}) / "eel").mkdir()
    broken = make_folder(root / "broken", {"cat": 20, "dog": 20})
    (broken / "cat" / "0.png").write_bytes(b"")
    (broken / "dog" / "0.png").write_bytes((broken / "dog" / "1.png").read_bytes()[:60])
    return {
        f"folder:{root}/absent": "absent",
        f"{root}/absent": "absent",
        f"folder:{root}/empty": "empty",
        f"folder:{root}/one class": "class",
        f"folder:{root}/hollow": "eel",
        f"folder:{root}/broken": "dog/0.png",
        "tfds:mnits": "mnist",
        "tfds:mnist": "--data-dir",
        "builtin:letters": "digits",
        "nonsense:x": "nonsense",
    }


def test_bad_data_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for spec, part in bad_folders(tmp_path).items():
        command = ["fit", "--dataset", spec, "--data-dir", str(tmp_path / "tfds"), "--wandb=disabled"]
        code, _, errors = call(*command, capsys=capsys)
        last = errors.strip().splitlines()[-1]
        assert code == 2, (spec, errors)
        assert last.startswith("error: "), spec
        assert part in last, spec


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--epochs=0"], "--epochs: 0 is out of range"),
        (["--epochs=many"], "error: --epochs: 'many' is wrong; a whole number is expected"),
        (["--dropout=much"], "error: --dropout: 'much' is wrong; a number is expected"),
        (["--lr=1"], "error: no such option: --lr; did you mean --learning-rate?"),
        (["folder:photos"], "--dataset: both 'folder:photos' and 'builtin:digits' are given; one is expected"),
        (["--model=branched"], "did you mean branched_cnn"),
        (["--image-size=3"], "--image-size"),
        (["--image_size=300"], "parameters for 300x300 images"),
        (["--normalize=mnist", "--image-size=64"], "mnist"),
        (["--resume=absent"], "no run folder"),
        (["--learning-rat=1"], "error: no such option: --learning-rat; did you mean --learning-rate"),
        (["--save=perhaps"], "neither true nor false"),
        (["--no-save", "--promote"], "--promote: with --no-save there is no version to promote"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = call(*FIT, "--wandb=disabled", *arguments, capsys=capsys)
    assert code == 2
    assert part in errors.strip().splitlines()[-1]


def test_other_commands_refuse_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_digit(tmp_path / "digit.png", 0)
    for command, part in (
        (["predict", "nothing", "digit.png"], "trainer fit"),
        (["predict", "digit.png"], "trainer predict MODEL IMAGE"),
        (["predict", "--url", "http://127.0.0.1:1", "digit.png"], "no answer from http://127.0.0.1:1"),
        (["evaluate", "nothing", "--dataset", "builtin:digits"], "trainer fit"),
        (["evaluate", "x", "a", "--dataset", "b"], "--dataset: both 'a' and 'b' are given; one is expected"),
        (["evaluate", "x", "--dataset", "builtin:digits", "--engine=torch"], "--engine: 'torch' is not one of"),
        (["save", "."], "no run folder"),
        (["promote", "nothing"], "trainer fit"),
        (["data", "inspect", "absent"], "absent"),
        (["fit"], "--dataset is missing: tfds:NAME, folder:PATH, a path, csv:FILE, or builtin:digits."),
        (["train", "builtin:digits"], "no such command: train; did you mean fit?"),
        (["evalute"], "did you mean evaluate?"),
        (["inspect", "photos"], "did you mean data inspect?"),
        (["data", "inspect"], "--dataset is missing: tfds:NAME"),
        (["data", "inspekt"], "did you mean inspect?"),
    ):
        code, _, errors = call(*command, capsys=capsys)
        assert code == 2, command
        assert part in errors.strip().splitlines()[-1], command


def test_class_names_survive_to_the_prediction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ["Ätna é 日本", "a.b c", "straße"]
    folder = tmp_path / "Meine Bilder"
    for index, label in enumerate(labels):
        (folder / label).mkdir(parents=True)
        for copy in range(12):
            Image.new("RGB", (12, 12), (index * 100, copy, 200 - index * 90)).save(folder / label / f"{copy}.png")
    command = ["fit", "--dataset", str(folder), "--epochs=1", "--wandb=disabled", "--json", "--augment=none"]
    code, (fitted,), _ = call(*command, capsys=capsys)
    assert (code, fitted["tag"].split(":")[0]) == (0, "meine-bilder")
    assert Path(fitted["run_dir"], "report", "more_images.png").is_file()  # its network has features
    pictures = [str(folder / label / "3.png") for label in labels]
    code, predictions, _ = call("predict", fitted["tag"], *pictures, "--json", capsys=capsys)
    assert code == 0
    assert {top["label"] for top in predictions[0]["top"]} == set(labels)
    # One broken picture: the others are answered, and the exit code and one line say what is wrong.
    (tmp_path / "broken.png").write_bytes(b"no picture")
    code, predictions, errors = call("predict", fitted["tag"], "broken.png", pictures[0], "--json", capsys=capsys)
    assert (code, len(predictions)) == (2, 1)
    assert "broken.png: " in errors


def test_data_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_folder(tmp_path / "pictures", {"cat": 150, "dog": 50})
    (folder / "cat" / "0.png").write_bytes(b"")
    (folder / "cat" / "notes.txt").write_text("x")
    code, (summary,), _ = call("data", "inspect", str(folder), "--json", capsys=capsys)
    assert code == 0
    assert "cat/0.png" in json.dumps(summary)
    assert summary["contact_sheet"] == "contact-sheet-pictures.png"
    with Image.open("contact-sheet-pictures.png") as sheet:
        assert sheet.size[0] > 50
    assert run(["data", "inspect", "--dataset", str(folder)]) == 0
    assert "dog" in capsys.readouterr().out


LONG = [*FIT, "--epochs=30", "--wandb=offline", "--run-dir=run", "--no-save"]


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


def test_a_run_survives_kill_sigterm_and_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        logged |= {int(epoch) for epoch in re.findall(r"epoch (\d+)/30", errors)}
    # Its folder alone says how it goes on, also from elsewhere.
    (tmp_path / "elsewhere").mkdir()
    goes_on = [str(BIN / "trainer"), "fit", "--resume", str(folder), "--json"]
    done = subprocess.run(goes_on, cwd=tmp_path / "elsewhere", capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "continuing at step" in done.stderr
    result = json.loads(done.stdout)
    logged |= {int(epoch) for epoch in re.findall(r"epoch (\d+)/30", done.stderr)}
    assert sorted(logged) == list(range(1, result["epochs"] + 1))
    assert result["epochs"] >= 3
    assert result["tag"] is None  # --no-save is kept, too
    assert len(offline_runs(folder)) == 1  # one W&B run, through all of them
    assert not (folder / "checkpoints").exists()  # of no use any more
    other = subprocess.run(
        [BIN / "trainer", *LONG, "--kernel-size=5"], capture_output=True, text=True, timeout=60, check=False
    )
    assert other.returncode == 2
    assert "kernel_size: 3 there, 5 now" in other.stderr


def test_a_run_is_not_continued_with_other_settings(capsys: pytest.CaptureFixture[str]) -> None:
    command = [*FIT, "--epochs=1", "--wandb=disabled", "--flip=off"]
    assert call(*command, "--no-save", "--run-dir=run", "--batch-size=32", capsys=capsys)[0] == 0
    before = Path("run/run.json").read_text()
    options = {
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
        code, results, errors = call(*command, place, *options, capsys=capsys)
        assert (code, results) == (2, [])
        assert errors.splitlines()[-1] == (
            f"error: run: holds a run of another training and is not continued: {'; '.join(options.values())}"
        )
    assert Path("run/run.json").read_text() == before
    assert call("models", "--json", capsys=capsys)[1] == []
    # What would be chosen anyway is no other training.
    same = ["--learning-rate=0.001", "--normalize=none", "--batch-size=32"]
    code, (again,), _ = call(*command, "--no-save", "--run-dir=run", *same, capsys=capsys)
    assert (code, again["epochs"]) == (0, 1)
    # With `--resume` alone, every option is the run's; one that is given besides is compared.
    code, results, errors = call("fit", "--resume=run", "--dropout=0.1", "--json", capsys=capsys)
    assert (code, results) == (2, [])
    assert errors.splitlines()[-1].endswith("is not continued: dropout: 0.4 there, 0.1 now")
    code, (resumed,), _ = call("fit", "--resume=run", "--json", capsys=capsys)
    assert (code, resumed) == (0, again)


def test_a_loss_that_is_not_finite_publishes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    # This much weight decay multiplies the weights by -9 in each step.
    diverging = ["--optimizer=sgd", "--learning-rate=10", "--weight-decay=1"]
    command = [*FIT, "--epochs=30", "--wandb=disabled", "--run-dir=run", *diverging]
    code, results, errors = call(*command, capsys=capsys)
    assert (code, results) == (3, [])
    assert "not finite" in errors.splitlines()[-1]  # to resume would end the same: no command for it
    assert call("models", "--json", capsys=capsys)[1] == []


def closing(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command line without `--json`: its last line on stderr. Stdout has the results alone."""
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr()
    assert "next:" not in printed.out
    return printed.err.splitlines()[-1]


def test_each_command_names_the_next_one(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = "next: trainer fit --dataset builtin:digits"
    assert closing("models", capsys=capsys) == first
    folder = make_folder(tmp_path / "my pictures", {"cat": 30, "dog": 30})
    colour = closing("data", "inspect", folder, capsys=capsys)
    assert colour == f"next: trainer fit --dataset '{folder}'"
    gray = closing("data", "inspect", "builtin:digits", "--data-dir", "d", capsys=capsys)
    assert gray == "next: trainer fit --dataset builtin:digits --data-dir d"

    fit = ("fit", folder, "--epochs=1", "--wandb=disabled", "--run-dir=run")
    assert closing(*fit, "--no-save", capsys=capsys) == "next: trainer save run"
    served = "next: trainer serve "
    assert closing("save", "run", capsys=capsys) == "next: trainer models"  # the pictures are noise: it guesses
    (kept,) = store.models()
    tag = kept.tag
    assert closing("models", capsys=capsys) == f"next: trainer promote {tag}"
    assert closing("promote", tag, capsys=capsys) == f"{served}my-pictures"
    assert closing("models", capsys=capsys) == served + tag
    assert closing("predict", "my-pictures", folder / "cat" / "0.png", capsys=capsys) == f"{served}my-pictures"
    Path("report").touch()  # a folder could not be made, as where nothing can be written
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert closing("evaluate", tag, folder, capsys=capsys) == served + tag
    (report,) = tmp_path.glob("trainer-report-*/report.html")
    assert f"{Path('report').absolute()} cannot be written: the report goes to {report.parent}" in caplog.messages
    assert closing(*fit, capsys=capsys) == served + tag  # the run has finished: nothing is made again
    assert closing("save", "run", "--promote", capsys=capsys) == f"{served}my-pictures"
    assert (len(store.models()), store.find("my-pictures")) == (3, store.models()[0])
    assert closing("cache", "prune", capsys=capsys) == first

    answer = {"path": "a b.png", "label": "cat", "probability": 0.5}
    monkeypatch.setattr("trainer.predict.predict_remote", lambda *_: iter([answer]))
    remote = closing("predict", "--url", "http://127.0.0.1:3000/", "a b.png", capsys=capsys)
    assert remote == "next: curl --data-binary '@a b.png' http://127.0.0.1:3000/predict"


def test_a_contact_sheet_that_cannot_be_written_costs_a_line(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    Path("file").touch()
    inspect = ("data", "inspect", "builtin:digits", "--sheet", "file/sheet.png")
    code, (summary,), _ = call(*inspect, "--json", capsys=capsys)
    assert (code, summary["contact_sheet"], len(summary["labels"])) == (0, None, 10)
    assert caplog.messages[-1] == (
        "the contact sheet file/sheet.png cannot be written: Not a directory; --sheet names another place"
    )
    assert run(inspect) == 0
    assert "contact sheet" not in capsys.readouterr().out


def test_a_user_without_a_home_is_told_what_to_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # which the system has no entry for
    for command in (["models"], ["data", "inspect", "builtin:digits"], ["cache", "prune"], FIT):
        code, _, errors = call(*command, capsys=capsys)
        assert code == 2
        assert errors.startswith("error: the user 54321 has no home folder; set HOME to ")
    assert list(Path().iterdir()) == []


def test_a_store_that_cannot_be_written_is_told_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").touch()
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "file" / "store"))
    code, _, errors = call(*FIT, "--wandb=disabled", capsys=capsys)
    assert code == 2
    assert errors.startswith(f"error: the model store {tmp_path}/file/store cannot be written; set BENTOML_HOME ")
    assert not Path("runs").exists()


def test_json_has_no_closing_line(capsys: pytest.CaptureFixture[str], tiny_artifact: Path, tmp_path: Path) -> None:
    store.publish(tiny_artifact, "tiny")
    write_digit(tmp_path / "digit.png", 7)
    for command in (
        ["models"],
        ["promote", "tiny"],
        ["predict", "tiny", "digit.png"],
        ["data", "inspect", "builtin:digits"],
    ):
        code, results, errors = call(*command, "--json", capsys=capsys)
        assert (code, len(results)) == (0, 1), command
        assert "next:" not in errors, command


def test_models_is_a_table_that_80_columns_hold(
    tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    spec = shutil.copytree(tiny_artifact, tmp_path / "export") / "spec.json"
    spec.write_text(spec.read_text().replace("builtin:digits", "folder:/home/somebody/pictures/of/pets"))
    tag = store.publish(spec.parent, "pets-of-somebody")
    kept = store.publish(spec.parent, "pets-of-somebody", lambda latest: ["hat is gone", "worse"])
    capsys.readouterr()
    assert run(["models"]) == 0
    table = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]
    header = [cell.strip() for cell in table.splitlines()[2].split("┃")[1:-1]]
    assert header == ["tag", "data", "val / test", "size", "age"]
    facts = ["…/pets", "25.00 / 50.00%", "0 MB", "0 min"]
    assert rows == [[kept, *facts], [f"{tag} *", *facts]]
    assert table.splitlines()[-1] == f"{kept} is not promoted: hat is gone; worse"


def test_a_long_tag_is_not_broken(
    tiny_artifact: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    tag = store.publish(tiny_artifact, "pets-" + "a" * 58)
    capsys.readouterr()
    assert run(["models"]) == 0
    assert f"│ {tag} * │" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["{", '{"format": 1, "labels": []}'])
def test_a_damaged_version_is_listed_and_hides_no_other(
    tiny_artifact: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    sound = store.publish(tiny_artifact, "pets")
    damaged = store.find(store.publish(tiny_artifact, "pets"))
    (damaged.path / "spec.json").write_text(damage)
    _, (first, second), _ = call("models", "--json", capsys=capsys)
    assert (first["tag"], first["dataset"], first["val_accuracy"]) == (damaged.tag, None, None)
    assert str(damaged.path / "spec.json") in first["error"]
    assert (second["tag"], second["val_accuracy"], second["error"]) == (sound, 0.25, None)
    assert closing("models", capsys=capsys) == f"next: trainer serve {sound}"
    assert run(["models"]) == 0
    printed = capsys.readouterr().out
    assert "cannot be read" in printed
    assert f"; `bentoml models delete {damaged.tag}` takes it away\n" in printed


def commands(path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command by its path: the whole program, its groups, and what is in them."""
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    found: dict[tuple[str, ...], Any] = {path: command}
    for name in getattr(command, "commands", ()):
        found |= commands((*path, name))
    return found


@pytest.mark.parametrize("path", commands())
def test_the_help_of_each_command_has_an_example_that_parses(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert run([*path, "--help"]) == 0
    (example,) = re.findall(r"Example: trainer (.+?) *\n", capsys.readouterr().out)
    arguments = shlex.split(example)
    assert tuple(arguments[: len(path)]) == path
    leaf = max((other for other in commands() if tuple(arguments[: len(other)]) == other), key=len)
    # Raises a usage error for an option that is unknown, or an argument too few or too many.
    context = commands()[leaf].make_context(leaf[-1], arguments[len(leaf) :])
    assert leaf == path or len(leaf) == len(path) + 1
    assert context.command.name == leaf[-1]


def test_shell_completion_is_light() -> None:
    code = (
        "import sys; sys.argv = ['trainer']; from trainer.cli import main\n"
        "try: main()\n"
        "finally: assert not {'tensorflow', 'keras', 'wandb', 'bentoml', 'numpy'} & set(sys.modules)"
    )
    for words, expected in (("ev", ["evaluate"]), ("fit --drop", ["--dropout"]), ("data ", ["inspect"])):
        variables = {"_TRAINER_COMPLETE": "complete_bash", "COMP_WORDS": f"trainer {words}"}
        variables["COMP_CWORD"] = str(len(words.split(" ")))
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == expected
        assert done.stderr == ""


def test_light_commands_never_import_tensorflow() -> None:
    code = (
        "import sys; from trainer.cli import run; run(['models']); run(['predict', 'x', 'y']); run(['fit', '--help']);"
        "assert not {'tensorflow', 'keras', 'wandb'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_network_for_colour_takes_mnist_s_digits_only_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--model=efficientnet_lite0", "--normalize=mnist", "--wandb=disabled")
    code, _, errors = call(*FIT, *options, capsys=capsys)
    assert code == 2
    assert errors.splitlines()[-1] == (
        "error: --normalize mnist: makes gray images, and --model efficientnet_lite0 takes colour; leave one out"
    )


DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not (DATA / "cifar10_folder").is_dir(), reason="the CIFAR-10 folder is not beside the checkout")
def test_a_real_colour_folder(capsys: pytest.CaptureFixture[str]) -> None:
    spec = f"folder:{DATA / 'cifar10_folder'}"
    command = ["fit", "--dataset", spec, "--model=compact_resnet", "--epochs=8", "--wandb=disabled", "--json"]
    command += ["--batch-size=32", "--learning-rate=2e-3"]
    code, (fitted,), _ = call(*command, capsys=capsys)
    assert code == 0
    assert fitted["test_accuracy"] >= 0.40


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "clothing").is_dir(), reason="the photos of clothes are not beside the checkout")
def test_few_real_photos_with_the_defaults(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Far above what 500 photos of ten classes teach a network from scratch, and within its time."""
    caplog.set_level(logging.INFO, "trainer")  # where it is late, the log shows where the time went
    command = ["fit", "--dataset", str(DATA / "clothing"), "--limit=500", "--time-limit=120s", "--wandb=disabled"]
    code, (fitted,), errors = call(*command, "--json", capsys=capsys)
    assert code == 0, errors
    assert fitted["test_accuracy"] >= 0.72
    photos = sorted((DATA / "clothing" / "test" / "shoes").iterdir())[:8]
    code, answers, _ = call("predict", fitted["tag"], *map(str, photos), "--json", capsys=capsys)
    assert code == 0
    assert [answer["label"] for answer in answers].count("shoes") >= 7
    assert [answer["known"] for answer in answers].count(True) >= 6
    strangers = []
    for digit in range(8):
        write_digit(Path(f"{digit}.png"), digit)
        strangers.append(f"{digit}.png")
    code, answers, _ = call("predict", fitted["tag"], *strangers, "--json", capsys=capsys)
    assert [answer["known"] for answer in answers].count(False) >= 7
    # Both engines tell the same of how new each is.
    loaded = artifact.load(store.find(fitted["tag"]).path)
    images = np.stack([decode(Path(file).read_bytes(), loaded.pixels) for file in [*map(str, photos), *strangers]])
    litert, tensorflow = (load_engine(loaded, name).predict(images)[NOVELTY] for name in ("litert", "tensorflow"))
    np.testing.assert_allclose(litert, tensorflow, atol=0.02)
