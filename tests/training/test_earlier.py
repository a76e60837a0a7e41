"""`--start-from`: real fits that go on from a stored version, and the options that it decides."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from command_line import call
from fitted_store import fitting_in, use_copy
from PIL import Image
from sklearn.datasets import load_digits

from trainer import artifact
from trainer.artifact import store
from trainer.artifact.engine import PROBABILITIES, LiteRTEngine
from trainer.cli import run
from trainer.config import FitConfig
from trainer.data.manifest import read_manifest
from trainer.data.splits import TRAIN
from trainer.errors import InputError
from trainer.export.stored_weights import read_weights
from trainer.models.efficientnet_lite import EFFICIENTNET_LITE0
from trainer.training.earlier import find_earlier
from trainer.training.network import Network
from trainer.training.settings import load_dataset, resolve

FIT = ("fit", "--augment=none", "--flip=off", "--quantize=none", "--wandb=disabled", "--precision=float32")


def write_digits(root: Path, digits: str, *, each: int) -> Path:
    """Write a folder of the first digits of each class as PNG files."""
    source = load_digits()
    for name in digits:
        (root / name).mkdir(parents=True)
        for index in np.flatnonzero(source.target == int(name))[:each]:
            Image.fromarray((source.images[index] * 15.9).astype(np.uint8)).save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `store/`, which has the model `photos` of the digits 0 to 3, its images and the cache."""
    folder = tmp_path_factory.mktemp("fitted")
    with fitting_in(folder):
        write_digits(folder / "photos", "0123", each=80)
        assert run([*FIT, "photos", "--model=branched_cnn", "--epochs=6"]) == 0
    return folder


@pytest.fixture
def photos(fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> store.StoredModel:
    """The model `photos`, in a store of the test."""
    use_copy(fitted, tmp_path, monkeypatch)
    return store.find("photos")


def test_new_photos_and_classes(
    photos: store.StoredModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_digits(tmp_path / "photos", "9123", each=110)  # 0 is gone, 9 is new, and each has 30 images more
    with caplog.at_level(logging.INFO, "trainer"):
        code, (result,), errors = call(
            *FIT, str(folder), "--start-from=photos", "--run-dir=run", "--json", capsys=capsys
        )
    assert code == 0, errors
    assert "new classes, which" in caplog.text
    assert result["epochs"] < 6  # a third of those from the beginning
    assert result["test_accuracy"] > 0.8
    assert result["promoted"] is False
    assert result["reasons"] == ["0 is gone: clients will never get it again"]
    new, old = artifact.load(store.find(result["tag"]).path), artifact.load(photos.path)
    assert new.config["start_from"] == photos.tag
    assert (new.config["model"], new.pixels) == ("branched_cnn", old.pixels)
    assert json.loads(Path("run/run.json").read_text())["options"]["start_from"] == photos.tag
    manifest, before = read_manifest(new.path), read_manifest(old.path)
    assert manifest
    assert before
    assert set(before.trained) < set(manifest.trained)
    assert (before.splits_of(manifest.content_hashes[manifest.held_out_rows]) != TRAIN).all()
    # The report has the predictions of both served networks for the held-out images of the shared classes.
    held_out = manifest.held_out_rows[manifest.labels[manifest.held_out_rows] != list(new.class_names).index("9")]
    labels = np.array(new.class_names)[manifest.labels[held_out]]
    now = labels == np.array(new.class_names)[manifest.predictions[held_out]]
    page = Path("run/report/report.html").read_text()
    section = page[page.index("<h2>Before and now</h2>") :].partition("</section>")[0]
    cell = r'<td class="number">(\S+)</td>\s*'
    rows = re.findall(rf"<tr><td><bdi>(\d)</bdi></td>{cell}{cell}{cell}{cell}</tr>", section)
    assert {row[0]: (int(row[1]), int(row[3])) for row in rows} == {
        name: (int((labels == name).sum()), int(now[labels == name].sum())) for name in "123"
    }
    for _, images, right_before, right_now, change in rows:
        assert 0 <= int(right_before) <= int(images)
        assert int(right_now) - int(right_before) == (0 if change == "=" else int(change))
    assert photos.tag in section
    assert "New, and not compared: <bdi>9</bdi>." in section
    assert "Gone, which keeps the version" in section
    # `photos` is the same version as before: the finished run is found, and nothing is published again.
    capsys.readouterr()
    code, (again,), errors = call(*FIT, str(folder), "--start-from=photos", "--run-dir=run", "--json", capsys=capsys)
    assert code == 0, errors
    assert again["tag"] == result["tag"]


@pytest.mark.usefixtures("photos")
def test_an_option_that_the_version_decides_is_refused_by_name(fitted: Path) -> None:
    data = str(fitted / "photos")
    for options, expected in (
        ({"model": "compact_resnet"}, "--model: compact_resnet contradicts --start-from: photos:"),
        ({"image_size": (24, 24)}, "--image-size: 24x24 contradicts --start-from: photos:"),
        ({"resize": "pad"}, "--resize: pad contradicts --start-from: photos:"),
        ({"normalize": "mnist"}, "--normalize: mnist contradicts"),
        ({"kernel_size": 5}, "--kernel-size: 5 contradicts"),
        ({"weights": "imagenet"}, "--weights: imagenet contradicts"),
        ({"start_from": "absent"}, "--start-from: absent: no model 'absent' in the store"),
    ):
        with pytest.raises(InputError, match=re.escape(expected)):
            find_earlier(FitConfig(**{"dataset": data, "start_from": "photos"} | options))
    config, earlier = find_earlier(FitConfig(data, start_from="photos", model="branched_cnn", image_size=(8, 8)))
    assert earlier
    assert config.start_from == earlier.tag == store.find("photos").tag
    assert find_earlier(FitConfig(data)) == (FitConfig(data), None)


def test_of_a_pretrained_version_the_last_layer_is_trained_unless_more_is_asked_for(
    photos: store.StoredModel, fitted: Path
) -> None:
    spec = json.loads((photos.path / "spec.json").read_text())
    spec["config"]["model"] = "efficientnet_lite0"
    (photos.path / "spec.json").write_text(json.dumps(spec))
    for options, expected in (
        ({}, "none"),
        ({"fine_tune": "all"}, "all"),
        ({"time_limit": 600.0}, "auto"),
        ({"epochs": 3}, "auto"),
        ({"augment": "light"}, "auto"),
    ):
        config, _ = find_earlier(FitConfig(**{"dataset": str(fitted / "photos"), "start_from": "photos"} | options))
        assert config.fine_tune == expected, options


def test_images_are_resized_as_for_the_version(photos: store.StoredModel, fitted: Path) -> None:
    spec = json.loads((photos.path / "spec.json").read_text())
    spec["pixels"]["resize"] = "pad"
    (photos.path / "spec.json").write_text(json.dumps(spec))
    config, earlier = find_earlier(FitConfig(str(fitted / "photos"), start_from="photos"))
    assert load_dataset(config, earlier).pixels == artifact.load(photos.path).pixels
    assert config.resize == "pad"


def test_a_version_that_cannot_be_gone_on_with_is_refused(
    photos: store.StoredModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_digits(tmp_path / "other", "78", each=20)
    assert run([*FIT, str(folder), "--start-from=photos"]) == 2
    assert "none of its classes (0, 1, 2, 3) is in the data" in capsys.readouterr().err
    assert not Path("runs").exists()
    (photos.path / "data_identity.npz").unlink()
    assert run([*FIT, str(folder), "--start-from=photos"]) == 2
    assert f"--start-from {photos.tag}: lacks data_identity.npz" in capsys.readouterr().err


def test_the_network_begins_with_the_answers_of_the_version(photos: store.StoredModel, tmp_path: Path) -> None:
    folder = write_digits(tmp_path / "photos", "3210", each=30)
    (folder / "0").rename(folder / "new")  # "0" is gone, and the order of the others stays
    network, inputs = started(FitConfig(str(folder), start_from="photos", quantize="none"))
    temperature = artifact.load(photos.path).temperature
    assert temperature
    expected = LiteRTEngine(photos.path / "model.tflite").predict(inputs)[PROBABILITIES][:, 1:] ** temperature
    answers = network.predict(inputs)[PROBABILITIES][:, :3]
    np.testing.assert_allclose(normalized(answers), normalized(expected), atol=1e-4)


def test_features_of_a_version_are_its_own_unless_only_its_last_layer_was_trained(photos: store.StoredModel) -> None:
    _, earlier = find_earlier(FitConfig("photos", start_from=photos.tag))
    assert earlier
    imagenet = EFFICIENTNET_LITE0.weights_id
    assert earlier.adapt(EFFICIENTNET_LITE0).weights_id != imagenet
    for config, own in (({"fine_tune": "none"}, False), ({"fine_tune": "none", "start_from": "x:1"}, True)):
        loaded = dataclasses.replace(earlier.artifact, config=config)
        adapted = dataclasses.replace(earlier, artifact=loaded).adapt(EFFICIENTNET_LITE0)
        assert (adapted.weights_id != imagenet) == own


def started(config: FitConfig) -> tuple[Network, Any]:
    """The network of a fit before its first step, and some of its images."""
    config, earlier = find_earlier(config)
    assert earlier
    dataset = load_dataset(config, earlier)
    network = Network(resolve(config, dataset, earlier=earlier), dataset, tf.distribute.get_strategy())
    weights = read_weights(earlier.artifact.saved_model, network.float32_model())
    network.start_from(weights, earlier.artifact.class_names, dataset.class_names)
    return network, dataset.train.read(np.arange(20))


def normalized(values: Any) -> Any:
    return values / values.sum(1, keepdims=True)
