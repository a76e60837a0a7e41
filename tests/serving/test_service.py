from __future__ import annotations

import gzip
import http.client
import io
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expected_answers import assert_same, encoded, expected
from PIL import Image
from server import Server, environment, form, read_reply, serving
from tiny_model import LABELS, PIXELS, THRESHOLD

from trainer.data import load
from trainer.images.decode import decode

MIB = 2**20


@pytest.fixture(scope="module")
def server(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("served")
    with serving(tiny_artifact, home, TRAINER_DRAIN_FILE=str(home / "drain")) as running:
        yield running


def png_that_says(width: int, height: int) -> bytes:
    """A small PNG whose header claims another size, under a right checksum."""
    import zlib

    data = encoded()
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + data[24:29]
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]


def with_a_wrong_checksum(png: bytes) -> bytes:
    position = png.index(b"IDAT") + 10
    return png[:position] + bytes([png[position] ^ 1]) + png[position + 1 :]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "GIF", "WebP"])
def test_answer_is_the_engine_s(server: Server, tiny_artifact: Path, format: str) -> None:
    image = encoded(format)
    reply = server.predict(image)
    assert reply.status == 200
    assert list(reply.value) == ["label", "index", "probability", "known", "top", "model"]
    assert reply.value["model"] == server.tag
    assert reply.value["top"][0] == {key: reply.value[key] for key in ("label", "index", "probability")}
    assert_same(reply.value, expected(image, tiny_artifact))


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "text/plain", "application/json", "application/vnd.bentoml+pickle", ""],
)
def test_the_content_type_does_not_matter(server: Server, content_type: str) -> None:
    """The first is what `curl --data-binary` sends."""
    reply = server.predict(encoded(), content_type)
    assert (reply.status, reply.value["model"]) == (200, server.tag)


def test_bytes_of_an_image_are_one_whatever_form_they_claim_to_be(server: Server) -> None:
    assert server.predict(encoded(), "multipart/form-data; boundary=frame").status == 200


def test_an_image_in_a_form_or_in_chunks_is_the_same_image(server: Server) -> None:
    image = encoded()
    plain = server.predict(image).value
    assert server.predict(*form(("image", image))).value == plain
    assert server.predict(image[start : start + 100] for start in range(0, len(image), 100)).value == plain


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param(b"", 400, "empty_body", id="empty"),
        pytest.param(b"hello", 415, "unsupported_type", id="text"),
        pytest.param(b"http://127.0.0.1:1/x.png", 415, "unsupported_type", id="URL"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_type", id="SVG"),
        pytest.param(b"II*\0" + bytes(100), 415, "unsupported_type", id="TIFF"),
        pytest.param(b"\x80\x04\x95" + bytes(100), 415, "unsupported_type", id="pickle"),
        pytest.param(encoded("JPEG")[:-200], 422, "corrupt_image", id="truncated JPEG"),
        pytest.param(encoded()[:-20], 422, "corrupt_image", id="truncated PNG"),
        pytest.param(with_a_wrong_checksum(encoded()), 422, "corrupt_image", id="PNG checksum"),
        pytest.param(png_that_says(30_000, 30_000), 413, "too_many_pixels", id="30,000x30,000"),
        pytest.param(encoded() + bytes(11 * MIB), 413, "too_large", id="11 MiB"),
    ],
)
def test_bad_images_are_refused_with_a_code(server: Server, body: bytes, status: int, code: str) -> None:
    reply = server.predict(body, "image/png")
    assert (reply.status, reply.code) == (status, code)
    item = server.ask("POST", "/predict_batch", *form(("images", body), ("images", encoded()))).value["predictions"]
    assert item[0]["error"]["code"] == code
    assert item[1]["label"] in LABELS
    for path in ("/preview", "/explain"):
        assert server.ask("POST", path, body).code == code


def test_what_curl_alters_says_how_to_send_it(server: Server) -> None:
    data = encoded().replace(b"\n", b"").replace(b"\r", b"")  # as `curl -d @FILE` does
    reply = server.predict(data, "application/x-www-form-urlencoded")
    assert reply.status == 415
    assert "with curl: --data-binary @FILE" in reply.value["error"]["message"]


def test_what_is_no_picture_says_how_to_send_one(server: Server) -> None:
    for path in ("/predict", "/preview", "/explain"):
        for kind in ("application/json", "application/x-www-form-urlencoded"):  # `curl -d` says so
            reply = server.ask("POST", path, b'{"image": "aGVsbG8="}', kind)
            assert reply.status == 415
            assert reply.value["error"]["message"].endswith("(send the picture's bytes, not JSON)")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(
        "POST", "/predict", gzip.compress(encoded()), {"Content-Encoding": "gzip", "Expect": "100-continue"}
    )
    reply = read_reply(connection)
    connection.close()
    assert reply.status == 415
    assert "Content-Encoding: gzip is not read: send the picture's bytes as they are" in reply.value["error"]["message"]


def test_a_body_that_is_too_large_is_refused_while_it_is_read(server: Server) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 400 * MIB:
            sent += MIB
            yield bytes(MIB)

    try:
        assert server.predict(endless()).code == "too_large"
    except (BrokenPipeError, ConnectionResetError):  # refused in the middle of our writing: just as good
        assert sent < 400 * MIB
    assert server.predict(encoded()).status == 200


@pytest.mark.parametrize(
    ("path", "files", "field"),
    [
        ("/predict", [], "image"),
        ("/predict", [], None),
        ("/predict", [("picture", encoded())], None),
        ("/predict", [("image", encoded())], "more"),
        ("/predict", [("image", encoded())] * 2, None),
        ("/predict_batch", [], None),
        ("/predict_batch", [("image", encoded())], None),
        ("/predict_batch", [("images", encoded())], "images"),
        ("/predict_batch", [("images", encoded())] * 257, None),
    ],
)
def test_forms_of_another_shape_are_bad_requests(
    server: Server, path: str, files: list[tuple[str, bytes]], field: str | None
) -> None:
    reply = server.ask("POST", path, *form(*files, field=field))
    assert (reply.status, reply.code) == (400, "bad_request")


@pytest.mark.parametrize("content_type", ["multipart/form-data", "application/json", "multipart/form-data; boundary=x"])
def test_a_batch_that_is_no_form_is_a_bad_request(server: Server, content_type: str) -> None:
    assert server.ask("POST", "/predict_batch", b"{}", content_type).code == "bad_request"
    assert server.ask("POST", "/predict_batch", b"", content_type).code == "empty_body"


def test_a_batch_is_answered_in_order_with_errors_in_their_places(server: Server, tiny_artifact: Path) -> None:
    images = [encoded(), b"hello", encoded("JPEG"), b""] * 64
    reply = server.ask("POST", "/predict_batch", *form(*(("images", image) for image in images)))
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


def test_preview_is_what_the_model_sees(server: Server) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), (200, 30, 30)).save(buffer, "JPEG")
    reply = server.ask("POST", "/preview", buffer.getvalue())
    assert (reply.status, reply.headers["content-type"]) == (200, "image/png")
    seen = np.asarray(Image.open(io.BytesIO(reply.body)))
    np.testing.assert_array_equal(seen, decode(buffer.getvalue(), PIXELS)[:, :, 0])


def test_explain_shows_where_the_answer_comes_from(server: Server) -> None:
    picture = np.zeros((28, 28), np.uint8)
    picture[16:26, 2:12] = np.random.default_rng(1).integers(60, 256, (10, 10))
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    replies = [
        server.ask("POST", "/explain", buffer.getvalue()),
        server.ask("POST", "/explain", *form(("image", buffer.getvalue()))),
    ]
    assert [(reply.status, reply.headers["content-type"]) for reply in replies] == [(200, "image/png")] * 2
    drawn = np.asarray(Image.open(io.BytesIO(replies[0].body))).astype(int)
    assert replies[1].body == replies[0].body
    assert drawn.shape == (28, 28, 3)
    coloured = np.ptp(drawn, axis=2) > 20
    assert coloured[14:, :14].any()
    assert not coloured[:10, 16:].any()
    # It counts as nobody's answer.
    before = server.ask("GET", "/metrics").body
    server.ask("POST", "/explain", buffer.getvalue())
    unknown = re.compile(rb"^trainer_unknown_total .*$", re.MULTILINE)
    assert unknown.findall(server.ask("GET", "/metrics").body) == unknown.findall(before) != []


def pictures_of_every_kind() -> dict[str, bytes]:
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


def test_the_model_is_fed_what_training_cached(server: Server, tmp_path: Path) -> None:
    """The same file through `trainer.data` and through the server: the same array."""
    pictures = pictures_of_every_kind()
    for split in ("train", "val", "test"):
        for name, data in pictures.items():
            file = tmp_path / "data" / split / name.replace(".", "-") / name
            file.parent.mkdir(parents=True)
            file.write_bytes(data)
    dataset = load(f"folder:{tmp_path / 'data'}", pixels=PIXELS)
    cached = dict(zip(dataset.test.labels.tolist(), dataset.test.read(np.arange(len(dataset.test))), strict=True))
    assert len(cached) == len(pictures) == 21
    for name, data in pictures.items():
        fed = np.asarray(Image.open(io.BytesIO(server.ask("POST", "/preview", data).body)))
        trained = cached[dataset.class_names.index(name.replace(".", "-"))]
        np.testing.assert_array_equal(fed, trained[:, :, 0], err_msg=name)


def test_what_is_not_there_and_what_is_not_allowed(server: Server) -> None:
    assert (server.ask("GET", "/nothing").status, server.ask("GET", "/nothing").code) == (404, "not_found")
    for method, path, allow in (("GET", "/predict", "POST"), ("DELETE", "/model", "GET, HEAD"), ("POST", "/livez", "")):
        reply = server.ask(method, path)
        assert (reply.status, reply.code) == (405, "method_not_allowed")
        assert allow in reply.headers["allow"]


def test_model_view(server: Server) -> None:
    reply = server.ask("GET", "/model")
    assert reply.status == 200
    assert reply.value == {
        "model": server.tag,
        "labels": list(LABELS),
        "input": {"height": 28, "width": 28, "channels": 1, "normalize": "none"},
        "threshold": THRESHOLD,
        "metrics": {"test_accuracy": 0.5, "val_accuracy": 0.25},
    }
    assert server.ask("HEAD", "/model").body == b""


def test_the_page_needs_nothing_from_elsewhere(server: Server) -> None:
    reply = server.ask("GET", "/ui")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'self'" in reply.headers["content-security-policy"]
    assert b"http://" not in reply.body
    assert b"https://" not in reply.body


def test_bentoml_s_own_client(server: Server, tmp_path: Path) -> None:
    """In a process of its own: the client warns when it is imported and when it is collected."""
    (tmp_path / "image.png").write_bytes(encoded())
    code = (
        "import sys, bentoml, pathlib\n"
        "path = pathlib.Path(sys.argv[2])\n"
        "with bentoml.SyncHTTPClient(sys.argv[1]) as client:\n"
        "    print(client.predict(path.read_bytes())['model'])\n"
        "    print(len(client.predict_batch(images=[path, path])['predictions']))\n"
        "    print(client.preview(path.read_bytes())[:4])\n"
        "    print(client.explain(path.read_bytes())[:4])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, server.url, str(tmp_path / "image.png")],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split("\n")[:4] == [server.tag, "2", *[r"b'\x89PNG'"] * 2], done.stderr


def test_metrics_count_without_a_series_for_each_path(server: Server) -> None:
    server.predict(encoded())
    server.predict(b"hello")
    for index in range(50):
        server.ask("GET", f"/invented/{index}")
    reply = server.ask("GET", "/metrics")
    text = reply.body.decode()
    assert reply.headers["content-type"].startswith("text/plain")
    assert "invented" not in text
    for line in (
        'trainer_requests_total{code="200",endpoint="/predict"}',
        'trainer_requests_total{code="415",endpoint="/predict"}',
        'trainer_requests_total{code="404",endpoint="other"}',
        'trainer_request_seconds_bucket{endpoint="/predict",le="0.005"}',
        'trainer_batch_size_bucket{le="1.0"}',
        "trainer_engine_seconds_count",
        "trainer_decode_seconds_count",
        "trainer_queue_depth 0.0",
        f'trainer_model_info{{model="{server.tag}"}} 1.0',
    ):
        assert line in text


def test_the_log_has_a_line_for_the_model_and_for_each_error_and_none_for_a_success(server: Server) -> None:
    assert f"serving {server.tag} on litert" in server.log.read_text()
    before = len(server.log.read_text())
    server.predict(encoded())
    server.predict(b"hello")
    server.ask("GET", "/nothing")
    time.sleep(0.2)  # a line is written after its answer
    server.ask("GET", "/%0a%9b")
    time.sleep(0.2)
    lines = server.log.read_text()[before:].splitlines()
    for line, expected_line in zip(
        lines,
        (
            r"/predict 415 unsupported_type \d+\.\d ms: not an image of a supported type.*",
            r"/nothing 404 not_found \d+\.\d ms: '/nothing' is no address here; .*",
            r"/\\n\ufffd 404 not_found .*",
        ),
        strict=True,
    ):
        assert re.fullmatch(rf"\d\d:\d\d:\d\d WARNING {expected_line}", line), line


def test_a_client_that_leaves_disturbs_nobody(server: Server) -> None:
    for _ in range(20):
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("POST", "/predict", encoded())
        connection.close()
    half = http.client.HTTPConnection("127.0.0.1", server.port)
    half.putrequest("POST", "/predict")
    half.putheader("Content-Length", "1000")
    half.endheaders(b"the rest never comes")
    half.close()
    assert server.predict(encoded()).status == 200
    assert "Traceback" not in server.log.read_text()


def test_one_bad_image_changes_no_other_answer(server: Server, tiny_artifact: Path) -> None:
    good, bad = encoded(), encoded()[:-20]
    wanted = expected(good, tiny_artifact)
    for _ in range(10):
        replies = together(server, [good] * 31 + [bad])
        assert replies[-1].code == "corrupt_image"
        for reply in replies[:-1]:
            assert_same(reply.value, wanted)


def together(server: Server, bodies: list[bytes]) -> list[Any]:
    """The replies to requests that are sent at the same time."""
    replies: list[Any] = [None] * len(bodies)

    def ask(index: int) -> None:
        replies[index] = server.predict(bodies[index])

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies


def test_the_drain_file_turns_readyz_off_while_requests_are_served(server: Server) -> None:
    drain = server.log.parent / "drain"
    assert server.ask("GET", "/readyz").status == 200
    drain.touch()
    try:
        reply = server.ask("GET", "/readyz")
        assert (reply.status, reply.code) == (503, "not_ready")
        assert server.ask("GET", "/livez").status == 200
        assert server.predict(encoded()).status == 200
    finally:
        drain.unlink()
    assert server.ask("GET", "/readyz").status == 200


def test_sigterm_ends_it(server: Server) -> None:
    """The last of the tests that use the server."""
    server.process.terminate()
    assert server.process.wait(20) == 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{server.url}/livez", timeout=2)
