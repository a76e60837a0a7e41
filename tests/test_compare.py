"""`trainer compare` on two trained models, in the store and at a server."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call
from fitted_store import fitting_in, use_copy
from PIL import Image
from server import publish, serving
from sklearn.datasets import load_digits

from trainer.artifact import store
from trainer.artifact.engine import PROBABILITIES, LiteRTEngine
from trainer.cli import run
from trainer.data.manifest import FILE, DataManifest, read_manifest
from trainer.data.sources.digits import DigitsSource
from trainer.data.splits import TEST, TRAIN, VAL, content_hash
from trainer.runs.promotion import compare_stored

FIT = ("fit", "builtin:digits", "--model=branched_cnn", "--augment=none", "--flip=off", "--quantize=none")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `store/`, which has the models `good` and `bad`, and with the `cache/` that they were fitted on."""
    folder = tmp_path_factory.mktemp("fitted")
    with fitting_in(folder):
        common = (*FIT, "--wandb=disabled", "--precision=float32")
        assert run([*common, "--name=good", "--epochs=2"]) == 0
        assert run([*common, "--name=bad", "--limit=300", "--epochs=1", "--promote"]) == 0
    return folder


@pytest.fixture
def good(fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> store.StoredModel:
    """The model `good`; the store of the test has `bad`, too."""
    use_copy(fitted, tmp_path, monkeypatch)
    return store.find("good")


def manifest_of(name: str) -> DataManifest:
    manifest = read_manifest(store.find(name).path)
    assert manifest
    return manifest


def held_out_digits() -> dict[str, int]:
    """Name and class of the digits that neither was trained on: `bad` was on some of the training images of `good`."""
    manifest = manifest_of("good")
    found = {}
    for example in DigitsSource().examples():
        assert isinstance(example.data, bytes)
        if manifest.splits_of(np.array([content_hash(example.data)], np.uint64)) != TRAIN:
            found[example.name] = example.label
    return found


def shown_images(page: str) -> list[dict[str, tuple[Any, str, str, str]]]:
    """For A and for B alone: name → (pixels, truth, answer of A, answer of B) of each image on the page."""
    galleries = re.split(r"<h2>[AB] alone is right", page)[1:]
    pattern = (
        r'<img src="data:image/png;base64,([^"]+)".*?<b>(\w+)</b><br>\s*A: (\w+) .*?<br>\s*B: (\w+) .*?'
        r'class="file">(\S+)</span>'
    )
    return [
        {
            name: (np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))), truth, a, b)
            for png, truth, a, b, name in re.findall(pattern, gallery, re.DOTALL)
        }
        for gallery in galleries
    ]


def test_a_worse_model_is_exit_code_4(good: store.StoredModel, capsys: pytest.CaptureFixture[str]) -> None:
    code, (result,), errors = call("compare", "good", "bad", "--json", capsys=capsys)
    a, b = result["a"], result["b"]
    assert (code, result["verdict"]) == (4, "worse")
    assert errors.splitlines()[-1].startswith(f"error: {b['model']} is worse than {good.tag} beyond chance: ")
    held_out = held_out_digits()
    assert (a["model"], result["dataset"]) == (good.tag, "builtin:digits")
    assert (result["images"], result["train_images"]) == (len(held_out), 1797 - len(held_out))
    assert result["val_images"] == manifest_of("good").count(VAL)
    assert a["correct"] - b["correct"] == result["only_a"] - result["only_b"]
    assert a["known_share"] > b["known_share"]
    assert result["p_worse"] < 1e-3
    assert result["p_better"] > 0.99
    assert sum(change["images"] for change in result["classes"].values()) == len(held_out)
    assert sum(change["b_correct"] for change in result["classes"].values()) == b["correct"]
    for side in (a, b):
        assert 0 < side["known_share"] <= 1
        assert 0 < side["calibration_error"] < 0.5
        assert side["known_accuracy"] >= side["accuracy"]
        assert set(side["batch_ms"]) == {"1", "32"}
    # Publishing compares the recorded predictions, which are the same.
    recorded = compare_stored(good.path, store.find("bad").path)
    assert recorded
    assert recorded.images == manifest_of("good").count(VAL) + manifest_of("good").count(TEST) == len(held_out)
    assert (recorded.a_correct.sum(), recorded.b_correct.sum()) == (a["correct"], b["correct"])
    assert recorded.p_worse == result["p_worse"]


def test_the_page_shows_the_images_that_one_alone_gets_right(
    good: store.StoredModel, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["compare", "bad", "good"]) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1] == f"next: trainer serve {good.tag}"
    assert "B is better beyond chance (p = " in printed.out
    (page,) = Path("report").glob("good-*-beside-bad-*/comparison.html")
    only_bad, only_good = shown_images(page.read_text())
    assert len(only_good) == 40  # the most confident mistakes of `bad`
    pictures = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    digits = {f"digits[{index}]": (pictures[index], str(label)) for index, label in enumerate(load_digits().target)}
    good_engine, bad_engine = (LiteRTEngine(store.find(name).path / "model.tflite") for name in ("good", "bad"))
    held_out = held_out_digits()
    for name, (pixels, truth, bad, right) in (only_bad | only_good).items():
        picture, label = digits[name]
        np.testing.assert_array_equal(pixels, picture)
        assert truth == label == str(held_out[name])
        answers = [
            str(engine.predict(picture[None, :, :, None])[PROBABILITIES].argmax())
            for engine in (bad_engine, good_engine)
        ]
        assert [bad, right] == answers
        assert (right == truth) == (name in only_good)
        assert (bad == truth) == (name in only_bad)


def renamed(model: store.StoredModel, folder: Path, names: dict[str, str]) -> str:
    """The tag of a copy of the model with other names for some of its classes."""
    export = shutil.copytree(model.path, folder / "renamed")
    (export / "model.yaml").unlink()
    spec = json.loads((export / "spec.json").read_text())
    spec["labels"] = [names.get(label, label) for label in spec["labels"]]
    (export / "spec.json").write_text(json.dumps(spec))
    return store.publish(export, "renamed")


def test_models_are_compared_on_the_classes_that_both_have(
    good: store.StoredModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    tag = renamed(good, tmp_path, {"9": "nine"})
    code, (result,), _ = call("compare", "good", tag, "--json", capsys=capsys)
    held_out = held_out_digits()
    nines = sum(label == 9 for label in held_out.values())
    assert (code, result["verdict"], result["other_classes"]) == (0, "no difference shown", nines)
    assert set(result["classes"]) == set("012345678")
    assert result["images"] == len(held_out) - nines
    # A version without a manifest may have learned from every image.
    path = store.find(tag).path
    (path / FILE).unlink()
    spec = json.loads((path / "spec.json").read_text())
    del spec["files"][FILE]
    (path / "spec.json").write_text(json.dumps(spec | {"dataset": "folder:gone"}))
    code, (result,), _ = call("compare", "good", tag, "--dataset=builtin:digits", "--json", capsys=capsys)
    assert (code, result["relation"]) == (0, f"may be training images of {tag}")
    assert "does not record its training images" in caplog.text


def test_wrong_input_is_refused_in_one_line(
    good: store.StoredModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tag = renamed(good, tmp_path, {str(digit): f"number {digit}" for digit in range(10)})
    seen = tmp_path / "seen" / "7"
    seen.mkdir(parents=True)
    held_out = held_out_digits()
    for example in DigitsSource().examples():
        assert isinstance(example.data, bytes)
        if example.label == 7 and example.name not in held_out:
            (seen / f"{example.name}.png").write_bytes(example.data)
    for arguments, part in (
        (["good"], "a second model is expected, or --url"),
        (["good", "gone"], "gone: no model 'gone' in the store"),
        (["good", tag], f"{good.tag} and {tag} have no class in common"),
        (["good", "bad", "--dataset", str(seen.parent)], "nothing is left to compare: of its"),
        (["good", "bad", "--token-file=x"], "--token-file: only a server wants a token"),
        (["good", "--url=http://127.0.0.1:1"], "--url: no answer from http://127.0.0.1:1"),
    ):
        code, results, errors = call("compare", *arguments, capsys=capsys)
        assert (code, results) == (2, []), arguments
        assert part in errors.splitlines()[-1], arguments


def test_a_running_server_is_compared_with_a_stored_model(
    good: store.StoredModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, home = store.find("bad").path, tmp_path / "home"
    first = publish(good.path, home, "first")
    with serving(bad, home) as server:
        monkeypatch.setenv("BENTOML_HOME", str(home))
        code, (stored,), _ = call("compare", first, server.tag, "--json", capsys=capsys)
        assert code == 4
        code, (served,), _ = call("compare", first, f"--url={server.url}", "--json", capsys=capsys)
        assert code == 4
        assert served["b"]["model"] == server.tag
        assert served["b"] | {"batch_ms": None} == stored["b"] | {"batch_ms": None}
        assert served["classes"] == stored["classes"]
        code, _, errors = call("compare", server.tag, first, f"--url={server.url}", capsys=capsys)
        assert code == 2
        assert f"answers with {server.tag}, and not with {first}" in errors
        # The store of another machine has the first model only.
        other = tmp_path / "other"
        tag = publish(good.path, other, "first")
        monkeypatch.setenv("BENTOML_HOME", str(other))
        code, (unknown,), _ = call("compare", tag, f"--url={server.url}", "--json", capsys=capsys)
        assert (code, unknown["relation"]) == (4, f"may be training images of {server.tag}")
        assert unknown["b"] == served["b"] | {"batch_ms": None}
