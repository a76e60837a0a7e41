from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command_line import BIN, FIT, call, make_folder, write_digit
from PIL import Image

from trainer import artifact
from trainer.artifact import store
from trainer.cli import run
from trainer.data import load
from trainer.names import slug

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def check_explanation(digit: Path, predicted: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    code, (explained,), _ = call("explain", "digits", str(digit), "--json", capsys=capsys)
    assert (code, explained) == (0, predicted | {"explanation": "a digit.explained.png"})
    with Image.open(explained["explanation"]) as drawn:
        assert (drawn.size, drawn.mode, drawn.format) == ((8, 8), "RGB", "PNG")
    images = [str(digit), "none.jpg", str(digit)]
    code, _, error = call("explain", "digits", *images, "--output=seen", "--json", capsys=capsys)
    assert code == 2
    assert "none.jpg: No such file" in error
    names = sorted(path.name for path in Path("seen").iterdir())
    assert names == ["a digit-2.explained.png", "a digit.explained.png"]


def check_mistakes(page: str, fitted: dict[str, Any]) -> None:
    """The report shows the mistakes of test and of validation images apart."""
    assert "taken from train and kept apart for this figure" in page
    digits = load("builtin:digits")
    parts = page.split("Worst mistakes on validation images") if fitted["val_accuracy"] < 1 else [page]
    for part, split in zip(parts, (digits.test, digits.val), strict=False):
        shown = set(re.findall(r'class="file">(.*?)</span>', part))
        assert shown <= {split.name(position) for position in range(len(split))}
        accuracy = fitted["test_accuracy" if split is digits.test else "val_accuracy"]
        assert len(shown) == min(16, round((1 - accuracy) * len(split)))


def test_fit_models_predict_evaluate_save(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, (fitted,), _ = call(*FIT, "--epochs", "8", "--wandb=offline", capsys=capsys)
    assert code == 0
    assert fitted["tag"].startswith("digits:")
    assert fitted["val_accuracy"] >= 0.9
    assert fitted["test_accuracy"] >= 0.9
    assert fitted["verdict"] == "good"
    assert f"{100 * fitted['test_accuracy']:.0f} times in 100" in fitted["reason"]
    sections = fitted["seconds"]
    assert set(sections) == {"reading", "features", "training", "validation", "export", "test", "report", "all"}
    assert sum(sections.values()) - sections["all"] <= sections["all"]
    figures = ("calibration.png", "confusion.png", "learning_curves.png", "mistakes.png")
    assert sorted(path.name for path in Path(fitted["run_dir"], "report").iterdir()) == [*figures, "report.html"]
    stored = store.find(fitted["tag"]).path
    assert (stored / "report" / "report.html").read_bytes() == Path(
        fitted["run_dir"], "report/report.html"
    ).read_bytes()
    assert "report/report.html" in artifact.read_spec(stored)["files"]
    check_mistakes(Path(fitted["run_dir"], "report/report.html").read_text(), fitted)

    code, (listed,), _ = call("models", "--json", capsys=capsys)
    assert (code, listed["tag"], listed["dataset"]) == (0, fitted["tag"], "builtin:digits")
    assert listed["test_accuracy"] == fitted["test_accuracy"]

    digit = write_digit(tmp_path / "a digit.png", 7)
    code, (predicted,), _ = call("predict", "digits", str(tmp_path / "a digit.png"), "--json", capsys=capsys)
    assert code == 0
    assert predicted["label"] == digit
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
    assert f"{100 * fitted['test_accuracy']:.1f}\u00a0%" in page

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
    ("options", "advised", "command"),
    [
        (("--epochs=1", "--batch-size=1024"), "train longer", ""),
        pytest.param(
            ("--learning-rate=10", "--epochs=10", "--batch-size=16"),
            "use a smaller learning rate than 10",
            " --epochs=10",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_advice_names_the_option_that_spoiled_a_run(
    options: tuple[str, ...], advised: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--model=compact_resnet", "--limit=400", "--quantize=none")
    assert run(["fit", "--dataset", "builtin:digits", *small, *options, "--wandb=disabled", "--no-save"]) == 0
    _, verdict, advice, tried, *more = capsys.readouterr().out.splitlines()
    assert verdict.startswith("bad: ")
    assert advice.startswith(f"- {advised}")
    assert tried.startswith(f"  trainer fit --dataset=builtin:digits --model=compact_resnet{command}")
    assert "--learning-rate" not in tried
    assert more == []


def test_the_same_seed_gives_the_same_metrics_and_events(capsys: pytest.CaptureFixture[str]) -> None:
    command = [*FIT, "--epochs=2", "--limit=300", "--events", "--wandb=disabled", "--no-save", "--resume=never"]
    runs = [call(*command, "--quantize=none", "--run-dir", f"r{index}", capsys=capsys) for index in range(2)]
    for code, lines, _ in runs:
        assert code == 0
        assert [line.get("event") for line in lines] == ["epoch", "epoch", None]
        assert [(line["epoch"], line["epochs"]) for line in lines[:2]] == [(1, 2), (2, 2)]
        assert 0 <= lines[0]["val_accuracy"] <= 1
        assert lines[2]["epochs"] == 2
    (_, (*_, first), _), (_, (*_, second), _) = runs
    for key in ("val_accuracy", "test_accuracy", "test_loss"):
        assert first[key] == second[key]


def make_bad_folders(root: Path) -> dict[str, str]:
    """Make folders with faults: spec → part of the error message."""
    (root / "empty").mkdir()
    make_folder(root / "one class", {"cat": 20})
    (make_folder(root / "empty class", {"cat": 20, "dog": 20}) / "eel").mkdir()
    broken = make_folder(root / "broken", {"cat": 20, "dog": 20})
    for number in range(6):  # up to five are skipped
        (broken / "cat" / f"{number}.png").write_bytes(b"")
    (broken / "dog" / "0.png").write_bytes((broken / "dog" / "1.png").read_bytes()[:60])
    return {
        f"folder:{root}/absent": "absent",
        f"{root}/absent": "absent",
        f"folder:{root}/empty": "empty",
        f"folder:{root}/one class": "class",
        f"folder:{root}/empty class": "eel",
        f"folder:{root}/broken": "cat/0.png",
        "tfds:mnits": "mnist",
        "tfds:mnist": "--data-dir",
        "builtin:letters": "digits",
        "nonsense:x": "nonsense",
    }


def test_bad_data_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for spec, part in make_bad_folders(tmp_path).items():
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
        (["--epochs=many"], "--epochs: 'many' is wrong; a whole number is expected"),
        (["--dropout=much"], "--dropout: 'much' is wrong; a number is expected"),
        (["--lr=1"], "did you mean --learning-rate?"),
        (["folder:photos"], "--dataset: both 'folder:photos' and 'builtin:digits'"),
        (["--model=branched"], "did you mean branched_cnn"),
        (["--image-size=3"], "--image-size"),
        (["--image_size=300", "--limit=20"], "parameters for 300x300 images"),
        (["--normalize=mnist", "--image-size=64"], "mnist"),
        (["--resume=absent"], "no run folder"),
        (["--learning-rat=1"], "--learning-rat; did you mean --learning-rate"),
        (["--save=perhaps"], "neither true nor false"),
        (["--no-save", "--promote"], "--promote: with --no-save"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = call(*FIT, "--wandb=disabled", *arguments, capsys=capsys)
    assert code == 2
    assert part in errors.strip().splitlines()[-1]


@pytest.mark.slow
def test_class_names_survive_to_the_prediction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class_names = ["Ätna é 日本", "a.b c", "straße"]
    folder = tmp_path / "照片"
    for index, label in enumerate(class_names):
        (folder / label).mkdir(parents=True)
        for copy in range(12):
            Image.new("RGB", (12, 12), (index * 100, copy, 200 - index * 90)).save(folder / label / f"{copy}.png")
    quick = ("--fine-tune=none", "--image-size=32", "--quantize=none")
    command = ["fit", "--dataset", str(folder), "--wandb=disabled", "--json", *quick]
    code, (fitted,), _ = call(*command, capsys=capsys)
    assert (code, fitted["tag"].split(":")[0]) == (0, slug("照片"))
    assert Path(fitted["run_dir"], "report", "more_images.png").is_file()  # its network has features
    images = [str(folder / name / "3.png") for name in class_names]
    code, predictions, _ = call("predict", fitted["tag"], *images, "--json", capsys=capsys)
    assert code == 0
    assert {top["label"] for top in predictions[0]["top"]} == set(class_names)
    # One broken image: the others are answered, and the exit code and one line say what is wrong.
    (tmp_path / "broken.png").write_bytes(b"no image")
    code, predictions, errors = call("predict", fitted["tag"], "broken.png", images[0], "--json", capsys=capsys)
    assert (code, len(predictions)) == (2, 1)
    assert "broken.png: " in errors


def test_mnist_normalization_is_refused_for_a_network_that_takes_colour(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--model=efficientnet_lite0", "--normalize=mnist", "--wandb=disabled")
    code, _, errors = call(*FIT, *options, capsys=capsys)
    assert code == 2
    assert errors.splitlines()[-1].startswith("error: --normalize mnist: ")
    assert "--model efficientnet_lite0" in errors.splitlines()[-1]


def test_a_store_that_cannot_be_written_is_refused_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").touch()
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "file" / "store"))
    code, _, errors = call(*FIT, "--wandb=disabled", capsys=capsys)
    assert code == 2
    assert errors.startswith("error: ")
    assert f"{tmp_path}/file/store" in errors
    assert "BENTOML_HOME" in errors
    assert not Path("runs").exists()
