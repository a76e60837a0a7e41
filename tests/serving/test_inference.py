"""Predictions, previews and explanations of a running server, against the engine and the cache of training."""

from __future__ import annotations

import io
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expected_answers import assert_same, encoded, expected
from PIL import Image
from server import Server, form
from tiny_model import PIXELS

from trainer.data import load
from trainer.images.decode import decode


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "GIF", "WebP"])
def test_a_prediction_equals_the_engine_s(tiny_server: Server, tiny_artifact: Path, format: str) -> None:
    image = encoded(format)
    reply = tiny_server.predict(image)
    assert reply.status == 200
    assert list(reply.value) == ["label", "index", "probability", "known", "top", "model"]
    assert reply.value["model"] == tiny_server.tag
    assert reply.value["top"][0] == {key: reply.value[key] for key in ("label", "index", "probability")}
    assert_same(reply.value, expected(image, tiny_artifact))


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "text/plain", "application/json", "application/vnd.bentoml+pickle", ""],
)
def test_the_content_type_does_not_matter(tiny_server: Server, content_type: str) -> None:
    """The first is what `curl --data-binary` sends."""
    reply = tiny_server.predict(encoded(), content_type)
    assert (reply.status, reply.value["model"]) == (200, tiny_server.tag)


def test_an_image_with_the_content_type_of_a_form_is_an_image(tiny_server: Server) -> None:
    assert tiny_server.predict(encoded(), "multipart/form-data; boundary=frame").status == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "Multipart/Form-Data; boundary=frame",
        "MULTIPART/FORM-DATA;BOUNDARY=frame",
        '  multipart/form-data ; charset=utf-8; Boundary="frame"',
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/predict_batch", "/preview"])
def test_media_types_parameters_and_headers_of_parts_have_any_case(
    tiny_server: Server, path: str, content_type: str
) -> None:
    body, _ = form(("images" if path == "/predict_batch" else "image", encoded()))
    upper = body.replace(b"Content-Disposition: form-data; name=", b"CONTENT-DISPOSITION: Form-Data; NAME=")
    for sent in (body, upper.replace(b"filename=", b"FileName=")):
        reply = tiny_server.ask("POST", path, sent, headers={"CONTENT-TYPE": content_type})
        assert reply.status == 200, reply.body


def test_an_image_in_a_form_or_in_chunks_is_the_same_image(tiny_server: Server) -> None:
    image = encoded()
    plain = tiny_server.predict(image).value
    assert tiny_server.predict(*form(("image", image))).value == plain
    assert tiny_server.predict(image[start : start + 100] for start in range(0, len(image), 100)).value == plain


def test_a_batch_is_answered_in_order_with_errors_in_place(tiny_server: Server, tiny_artifact: Path) -> None:
    images = [encoded(), b"hello", encoded("JPEG"), b""] * 64
    reply = tiny_server.ask("POST", "/predict_batch", *form(*(("images", image) for image in images)))
    assert reply.status == 200
    assert list(reply.value) == ["model", "predictions"]
    answers = reply.value["predictions"]
    assert len(answers) == 256
    png, jpeg = expected(images[0], tiny_artifact), expected(images[2], tiny_artifact)
    for index in range(0, 256, 4):
        assert list(answers[index]) == ["label", "index", "probability", "known", "top"]
        assert_same(answers[index], png)
        assert answers[index + 1]["error"]["code"] == "unsupported_type"
        assert_same(answers[index + 2], jpeg)
        assert answers[index + 3]["error"]["code"] == "empty_body"


def test_preview_shows_the_input_of_the_model(tiny_server: Server) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), (200, 30, 30)).save(buffer, "JPEG")
    reply = tiny_server.ask("POST", "/preview", buffer.getvalue())
    assert (reply.status, reply.headers["content-type"]) == (200, "image/png")
    seen = np.asarray(Image.open(io.BytesIO(reply.body)))
    np.testing.assert_array_equal(seen, decode(buffer.getvalue(), PIXELS)[:, :, 0])


def test_explain_highlights_the_object(tiny_server: Server) -> None:
    image_pixels = np.zeros((28, 28), np.uint8)
    image_pixels[16:26, 2:12] = np.random.default_rng(1).integers(60, 256, (10, 10))
    buffer = io.BytesIO()
    Image.fromarray(image_pixels).save(buffer, "PNG")
    replies = [
        tiny_server.ask("POST", "/explain", buffer.getvalue()),
        tiny_server.ask("POST", "/explain", *form(("image", buffer.getvalue()))),
    ]
    assert [(reply.status, reply.headers["content-type"]) for reply in replies] == [(200, "image/png")] * 2
    shown = np.asarray(Image.open(io.BytesIO(replies[0].body))).astype(int)
    assert replies[1].body == replies[0].body
    assert shown.shape == (28, 28, 3)
    coloured = np.ptp(shown, axis=2) > 20
    assert coloured[14:, :14].any()
    assert not coloured[:10, 16:].any()
    # It counts as nobody's answer.
    before = tiny_server.ask("GET", "/metrics").body
    tiny_server.ask("POST", "/explain", buffer.getvalue())
    unknown = re.compile(rb"^trainer_unknown_total .*$", re.MULTILINE)
    assert unknown.findall(tiny_server.ask("GET", "/metrics").body) == unknown.findall(before) != []


def images_of_every_kind() -> dict[str, bytes]:
    """File name → an encoded image, for every format, mode and orientation that has a rule of its own."""
    y, x = np.mgrid[:90, :120] / 120
    colour = Image.fromarray((np.stack([x, y, (x + y) / 2], -1) * 255).astype(np.uint8))
    clear = colour.convert("RGBA")
    clear.putalpha(Image.fromarray((x * 255).astype(np.uint8)))
    deep = Image.fromarray((x * 65535).astype(np.uint16))
    files: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "gray.jpg": (colour.convert("L"), {}),
        "colour.jpg": (colour, {}),
        "cmyk.jpg": (colour.convert("CMYK"), {}),
        "progressive.jpg": (colour, {"progressive": True}),
        "gray.png": (colour.convert("L"), {}),
        "colour.png": (colour, {}),
        "alpha.png": (clear, {}),
        "palette.png": (colour.quantize(16), {"transparency": 3}),
        "one-bit.png": (colour.convert("1"), {}),
        "deep.png": (deep, {}),
        "colour.webp": (colour, {}),
        "colour.bmp": (colour, {}),
        "palette.gif": (colour.quantize(64), {}),
    }
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files[f"turned-{orientation}.jpg"] = (colour, {"exif": exif})
    encoded = {}
    for name, (image, options) in files.items():
        buffer = io.BytesIO()
        suffix = name.rpartition(".")[2].upper()
        image.save(buffer, "JPEG" if suffix == "JPG" else suffix, **options)
        encoded[name] = buffer.getvalue()
    return encoded


def test_serving_and_training_decode_to_the_same_array(tiny_server: Server, tmp_path: Path) -> None:
    """The same file through `trainer.data` and through the server: the same array."""
    images = images_of_every_kind()
    for split in ("train", "val", "test"):
        for name, data in images.items():
            file = tmp_path / "data" / split / name.replace(".", "-") / name
            file.parent.mkdir(parents=True)
            file.write_bytes(data)
    dataset = load(f"folder:{tmp_path / 'data'}", pixels=PIXELS)
    cached = dict(zip(dataset.test.labels.tolist(), dataset.test.read(np.arange(len(dataset.test))), strict=True))
    assert len(cached) == len(images) == 21
    for name, data in images.items():
        previewed = np.asarray(Image.open(io.BytesIO(tiny_server.ask("POST", "/preview", data).body)))
        trained = cached[dataset.class_names.index(name.replace(".", "-"))]
        np.testing.assert_array_equal(previewed, trained[:, :, 0], err_msg=name)


def test_one_bad_image_changes_no_other_answer(tiny_server: Server, tiny_artifact: Path) -> None:
    good, bad = encoded(), encoded()[:-200]
    wanted = expected(good, tiny_artifact)
    for _ in range(10):
        replies = together(tiny_server, [good] * 31 + [bad])
        assert replies[-1].code == "corrupt_image"
        for reply in replies[:-1]:
            assert_same(reply.value, wanted)


def together(tiny_server: Server, bodies: list[bytes]) -> list[Any]:
    """The replies to requests that are sent at the same time."""
    replies: list[Any] = [None] * len(bodies)

    def ask(index: int) -> None:
        replies[index] = tiny_server.predict(bodies[index])

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies
