from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expected_answers import encoded, expected
from numpy.typing import NDArray
from PIL import Image
from server import Server, publish
from tiny_model import THRESHOLD, export_tiny_model

import trainer
from trainer import ArtifactError, ImageError, InputError, Model, Prediction, Score, TrainerError, load_model
from trainer.artifact import store
from trainer.cli import run

# Modes of PIL images that no PNG has → the mode of their file.
FILE_MODES = {"CMYK": "RGB", "HSV": "RGB", "PA": "RGBA", "RGBX": "RGB", "RGBa": "RGBA", "YCbCr": "RGB"}


@pytest.fixture(scope="module")
def model(tiny_server: Server) -> Model:
    """The model of the tiny server, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(tiny_server.log.parent))
        return load_model("tiny")


def random_pixels(*shape: int, count: int = 1) -> list[NDArray[np.uint8]]:
    generator = np.random.default_rng(5)
    return [generator.integers(0, 256, shape, np.uint8) for _ in range(count)]


def png(image: Image.Image, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def test_answers_are_the_server_s(model: Model, tiny_server: Server, tmp_path: Path) -> None:
    files = [encoded(name) for name in ("PNG", "JPEG", "WebP", "BMP", "GIF", "AVIF")]
    files += [png(Image.fromarray(pixels)) for pixels in random_pixels(40, 30, 3, count=30)]
    paths = [tmp_path / f"{number}.img" for number in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    answers = [json.loads(json.dumps(asdict(model.predict(data)) | {"model": model.tag})) for data in files]
    assert answers == [tiny_server.predict(data).value for data in files]
    assert len({answer["index"] for answer in answers}) > 1
    singly = [model.predict(path) for path in paths]
    assert singly == [model.predict(str(path)) for path in paths] == [model.predict(data) for data in files]
    # In order, whatever the batches, and the threads that run them.
    for batch_size in (1, 2, 7, 100):
        assert model.predict_many(iter(paths), batch_size=batch_size) == singly


def test_a_prediction_has_documented_attributes(model: Model) -> None:
    answer = model.predict(encoded())
    assert isinstance(answer, Prediction)
    assert answer.top[0] == Score(answer.label, answer.index, answer.probability)
    assert model.class_names[answer.index] == answer.label
    assert len(answer.top) == 5
    assert model.threshold == THRESHOLD
    assert answer.known == (answer.probability >= THRESHOLD)
    assert str(Prediction("cat", 0, 0.98765, True, ())) == "cat (98.77%)"
    assert str(Prediction("cat", 0, 0.5, False, ())) == "cat (50.00%; not sure: perhaps none of the classes)"
    assert str(Prediction("cat\x1b[2J", 0, 1.0, True, ())) == r"cat\x1b[2J (100.00%)"
    assert repr(model) == f"<Model {model.tag}: 10 classes>"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B", *FILE_MODES])
def test_a_pil_image_is_answered_as_its_file(mode: str, model: Model, tiny_server: Server) -> None:
    (pixels,) = random_pixels(20, 24, 4)
    image = Image.fromarray(pixels)
    if mode.startswith("I;16"):
        image = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
    elif mode not in ("RGBA", "RGBa"):
        image = image.convert("LA" if mode == "PA" else "RGB")
    image = image.convert(mode)
    file = png(image.convert(FILE_MODES[mode]) if mode in FILE_MODES else image)
    answer = json.loads(json.dumps(asdict(model.predict(image)) | {"model": model.tag}))
    assert answer == tiny_server.predict(file).value


def test_an_array_is_answered_as_its_image(model: Model) -> None:
    (gray,) = random_pixels(28, 28)
    wanted = model.predict(png(Image.fromarray(gray)))
    assert model.predict(gray) == model.predict(gray[:, :, None]) == wanted
    assert model.predict(np.asfortranarray(gray)) == model.predict(gray[:, ::-1][:, ::-1]) == wanted
    for channels in (3, 4):
        (colour,) = random_pixels(33, 21, channels)
        assert model.predict(colour) == model.predict(png(Image.fromarray(colour)))


def test_an_opened_photo_is_turned_upright(model: Model, tmp_path: Path) -> None:
    (pixels,) = random_pixels(28, 28)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "lying.png", exif=exif)
    with Image.open(tmp_path / "lying.png") as lying:
        assert model.predict(lying) == model.predict(tmp_path / "lying.png")
    assert model.predict(tmp_path / "lying.png") == model.predict(np.rot90(pixels, -1))
    assert model.predict(tmp_path / "lying.png") != model.predict(pixels)


@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        ("absent.png", InputError, "absent.png: No such file or directory"),
        (Path(), InputError, ".: Is a directory"),
        ("a\0b", InputError, "embedded null byte"),
        (b"", ImageError, "empty"),
        (b"text", ImageError, "not an image of a supported type"),
        (np.zeros((28, 28), np.float32), InputError, "an array of float32 is no image: uint8 from 0 to 255"),
        (np.zeros((28, 28), np.uint16), InputError, "an array of uint16 is no image"),
        (np.zeros((0, 28), np.uint8), InputError, r"the shape \(0, 28\)"),
        (np.zeros((1, 28, 28, 3), np.uint8), InputError, r"the shape \(1, 28, 28, 3\) is no image"),
        (np.zeros((28, 28, 2), np.uint8), InputError, r"the shape \(28, 28, 2\)"),
        (Image.new("F", (9, 9)), InputError, "mode F is not read"),
        (Image.new("L", (6000, 5000)), ImageError, "at most 25 million"),
        (7, InputError, "not int"),
        (None, InputError, "not NoneType"),
    ],
)
def test_other_images_are_refused_in_one_line(
    image: object, kind: type[TrainerError], message: str, model: Model
) -> None:
    with pytest.raises(kind, match=message) as caught:
        model.predict(image)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_truncated_pil_image_is_refused(model: Model, tmp_path: Path) -> None:
    whole = png(Image.fromarray(random_pixels(200, 200, 3)[0]), "JPEG")
    with Image.open(io.BytesIO(whole[: len(whole) // 2])) as image, pytest.raises(ImageError, match="truncated"):
        model.predict(image)


def test_a_faulty_image_has_its_error_in_its_place(model: Model, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    images: list[Any] = [encoded(), tmp_path / "bad.png", "absent.png", encoded(), np.zeros(3)]
    answers = model.predict_many(images, batch_size=2)
    good = model.predict(encoded())
    assert answers[0] == answers[3] == good
    bad, absent, array = (str(answers[place]) for place in (1, 2, 4))
    assert isinstance(answers[1], ImageError)
    assert answers[1].code == "unsupported_type"
    assert bad.startswith(f"{tmp_path / 'bad.png'}: not an image of a supported type")
    assert absent == "absent.png: No such file or directory"
    assert array.startswith("an array of float64 is no image")
    assert model.predict_many([]) == []
    with pytest.raises(InputError, match="batch_size: 0 is not at least 1"):
        model.predict_many([encoded()], batch_size=0)


def test_an_answer_that_is_not_finite_is_an_error_of_that_image(infinite_artifact: Path, tmp_path: Path) -> None:
    tag = store.publish(infinite_artifact, "infinite")
    infinite = load_model("infinite")
    black, white = np.zeros((28, 28), np.uint8), np.full((28, 28), 255, np.uint8)
    answers = infinite.predict_many([white, black, white], batch_size=3)
    assert [isinstance(answer, ArtifactError) for answer in answers] == [True, False, True]
    with pytest.raises(ArtifactError, match=f"{tag}: the model's answer is not finite"):
        infinite.predict(white)


def test_threads_may_share_a_model(model: Model) -> None:
    images = random_pixels(28, 28, count=60)
    wanted = model.predict_many(images)
    found: dict[int, list[Prediction | TrainerError]] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: model.predict_many(images, batch_size=n)}))
        for n in (1, 3, 9)
    ]
    for thread in threads:
        thread.start()
    singly = [model.predict(image) for image in images]
    for thread in threads:
        thread.join()
    assert singly == wanted
    assert found == dict.fromkeys((1, 3, 9), wanted)


def test_a_model_that_is_missing_or_damaged_is_refused(tiny_artifact: Path) -> None:
    with pytest.raises(InputError, match="holds no model of trainer"):
        load_model("tiny")
    tag = store.publish(tiny_artifact, "tiny")
    assert load_model(tag).tag == load_model("tiny").tag == load_model("tiny:latest").tag == tag
    with pytest.raises(InputError, match="did you mean tiny"):
        load_model("tinny")
    file = store.find(tag).path / "model.tflite"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="its sha256 differs"):
        load_model("tiny")


def test_the_package_is_light_and_a_model_needs_no_tensorflow(tiny_artifact: Path, tmp_path: Path) -> None:
    publish(tiny_artifact, tmp_path)
    (tmp_path / "7.png").write_bytes(encoded())
    code = (
        "import sys, trainer\n"
        "heavy = {'numpy', 'PIL', 'bentoml', 'scipy', 'tensorflow', 'typer', 'wandb'}\n"
        "assert not heavy & set(sys.modules)\n"
        "answer = trainer.load_model('tiny').predict('7.png')\n"
        "assert heavy & set(sys.modules) == {'numpy', 'PIL'}, heavy & set(sys.modules)\n"
        "print(answer.label)\n"
    )
    variables = os.environ | {"BENTOML_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == (f"{expected(encoded(), tiny_artifact)['label']}\n", "")


def test_every_public_name_exists_and_is_documented() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
    assert dir(trainer) == sorted(trainer.__all__)
    for name in trainer.__all__:
        assert getattr(trainer, name).__doc__, name
        assert f"`{name}" in documented, name
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        getattr(trainer, "load_modle")  # noqa: B009 - mypy knows that it is missing
    assert (Path(trainer.__file__).parent / "py.typed").is_file()


def test_no_prediction_is_known_where_no_probability_is_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certain = export_tiny_model(tmp_path / "export", logit_scale=1e5)
    spec = certain / "spec.json"
    for threshold, known in ((0.999999, True), (1.0, False)):
        spec.write_text(json.dumps(json.loads(spec.read_text()) | {"threshold": threshold}))
        store.publish(certain, "certain")
        (tmp_path / "7.png").write_bytes(encoded())
        assert run(["predict", "--json", "certain", str(tmp_path / "7.png")]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert (answer["probability"], answer["known"]) == (1.0, known)
