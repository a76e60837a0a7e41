"""Refusals of the Open Inference Protocol v2 by a running server: wrong JSON, tensors, images and compression."""

from __future__ import annotations

import base64
import gzip
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest
from expected_answers import assert_same, encoded, expected
from open_inference_requests import INFER, LENGTH, assert_refused, document, elements, infer, with_tensor
from server import Server
from tiny_model import PIXELS

from trainer.serving.request import MIB
from trainer.serving.tensors import MAX_JSON_BYTES

PIXEL_BYTES = PIXELS.height * PIXELS.width * PIXELS.channels
ONE_IMAGE = document("images", "UINT8", [1, 28, 28, 1])


@pytest.mark.parametrize(
    ("file", "status", "message"),
    [
        (b"hello", 415, "encoded[1]: not an image of a supported type"),
        (base64.b64encode(encoded()), 415, "encoded[1]: not an image of a supported type"),
        (b"", 400, "encoded[1]: "),
        (encoded()[:-200], 422, "encoded[1]: "),
        (encoded() + bytes(11 * MIB), 413, "encoded[1]: the image is too large"),
    ],
)
def test_a_bad_image_refuses_its_request_by_number(tiny_server: Server, file: bytes, status: int, message: str) -> None:
    body, headers = with_tensor(document("encoded", "BYTES", [3]), elements(encoded(), file, encoded()))
    assert_refused(tiny_server.ask("POST", INFER, body, headers=headers), status, message)


def test_a_bad_image_changes_no_other_answer(tiny_server: Server, tiny_artifact: Path) -> None:
    body, headers = with_tensor(document("encoded", "BYTES", [2]), elements(encoded(), encoded()[:-200]))
    replies: list[Any] = [None] * 16

    def ask(index: int) -> None:
        if index % 4:
            replies[index] = tiny_server.predict(encoded())
        else:
            replies[index] = tiny_server.ask("POST", INFER, body, headers=headers)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(replies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = expected(encoded(), tiny_artifact)
    for index, reply in enumerate(replies):
        if index % 4:
            assert_same(reply.value, wanted)
        else:
            assert_refused(reply, 422, "encoded[1]: ")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        pytest.param({}, "inputs: ", id="no inputs"),
        pytest.param({"inputs": []}, "inputs: ", id="an empty list"),
        pytest.param({"inputs": ONE_IMAGE["inputs"] * 2}, "inputs: ", id="two inputs"),
        pytest.param({"inputs": [0] * 200_000}, "inputs.0: ", id="many inputs"),
        pytest.param([], "valid dict", id="an array"),
        pytest.param(document("pixels", "UINT8", [1]), "'images' or 'encoded'", id="another input"),
        pytest.param(document("images", "FP32", [1, 28, 28, 1], data=[0.5]), "UINT8 of the shape", id="another type"),
        pytest.param(document("images", "UINT8", [1, 28, 28, 1]), "either data or", id="no data"),
        pytest.param(
            document("images", "UINT8", [1, 28, 28, 1], data=[0], parameters={"binary_data_size": 784}),
            "either data or",
            id="both kinds of data",
        ),
        pytest.param(document("images", "UINT8", [-1, 28, 28, 1], data=[0]), "1 to 256 images", id="a negative size"),
        pytest.param(document("images", "UINT8", [0, 28, 28, 1], data=[]), "1 to 256 images", id="no images"),
        pytest.param(document("images", "UINT8", [1, -28, -28, 1], data=[0]), "of the shape", id="negative sides"),
        pytest.param(document("images", "UINT8", [2**63, 28, 28, 1], data=[0]), "1 to 256", id="an overflow"),
        pytest.param(document("images", "UINT8", [1, 2**32, 2**32, 1], data=[0]), "of the shape", id="a product"),
        pytest.param(document("images", "UINT8", [10**4000] * 4, data=[0]), "of the shape", id="thousands of digits"),
        pytest.param(document("images", "UINT8", [1, 28, 28], data=[0]), "of the shape", id="another rank"),
        pytest.param(document("images", "UINT8", [1] * 100_000, data=[0]), "shape: ", id="many dimensions"),
        pytest.param(document("images", "UINT8", [True, 28, 28, 1], data=[0]), "valid integer", id="a truth value"),
        pytest.param(document("images", "UINT8", [1.0, 28, 28, 1], data=[0]), "valid integer", id="a fraction"),
        pytest.param(document("images", "UINT8", [1, 28, 28, 1], data=[0] * 783), "783 values", id="a value less"),
        pytest.param(document("images", "UINT8", [1, 28, 28, 1], data=[256] * 784), "0 to 255", id="too large a value"),
        pytest.param(document("images", "UINT8", [1, 28, 28, 1], data=["0"] * 784), "0 to 255", id="text for numbers"),
        pytest.param(document("images", "UINT8", [1, 28, 28, 1], data=[0] * 783 + [[0]]), "0 to 255", id="half nested"),
        pytest.param(document("images", "UINT8", [1, 28, 28, 1], data=[[0] * 784]), "nested", id="nested otherwise"),
        pytest.param(document("images", "UINT8", [1, 28, 28, 1], data={"a": 1}), "valid list", id="an object for data"),
        pytest.param(document("encoded", "UINT8", [1], data=["aGk="]), "BYTES of the shape", id="numbers for files"),
        pytest.param(
            document("encoded", "BYTES", [1, 2], data=["aGk="] * 2), "BYTES of the shape", id="pairs of files"
        ),
        pytest.param(document("encoded", "BYTES", [], data=["aGk="]), "BYTES of the shape", id="a scalar"),
        pytest.param(document("encoded", "BYTES", [2], data=["aGk="]), "1 elements", id="a file less"),
        pytest.param(document("encoded", "BYTES", [1], data=["é!"]), "base64", id="no base64"),
        pytest.param(document("encoded", "BYTES", [1], data=[None]), "base64", id="a null for a file"),
        pytest.param(ONE_IMAGE | {"id": 7}, "id: ", id="a number for the id"),
        pytest.param(ONE_IMAGE | {"id": "\ud800"}, "no JSON", id="half a surrogate pair"),
        pytest.param(ONE_IMAGE | {"parameters": {"binary_data_output": "yes"}}, "binary_data_output", id="a word"),
        pytest.param(ONE_IMAGE | {"outputs": [{"name": "logits"}]}, "'probabilities', 'label'", id="another output"),
        pytest.param(
            ONE_IMAGE | {"outputs": [{"name": "label", "parameters": {"classification": 3}}]},
            "classification",
            id="classification",
        ),
    ],
)
def test_wrong_json_is_refused(tiny_server: Server, request_: Any, message: str) -> None:
    reply = infer(tiny_server, request_)
    assert_refused(reply, 400, message)
    assert len(reply.body) < 400


def test_an_output_named_twice_is_refused(tiny_server: Server) -> None:
    request = document("images", "UINT8", [1, 28, 28, 1], data=[0] * PIXEL_BYTES, outputs=[{"name": "label"}] * 2)
    assert_refused(infer(tiny_server, request), 400, "named twice")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 100_000, encoded()])
def test_no_json_is_refused(tiny_server: Server, body: bytes) -> None:
    assert_refused(tiny_server.ask("POST", INFER, body), 400, "")


@pytest.mark.parametrize("length", ["-1", "1e3", "abc", "", "0x10", "99999", "9" * 5000, "²", "1 2"])
def test_a_wrong_length_header_is_refused(tiny_server: Server, length: str) -> None:
    reply = tiny_server.ask("POST", INFER, b"{}" + bytes(100), headers={LENGTH: length})
    assert_refused(reply, 400, "Inference-Header-Content-Length")


@pytest.mark.parametrize(
    ("request_", "tensor", "message"),
    [
        (ONE_IMAGE, bytes(783), "783 values"),
        (document("encoded", "BYTES", [1]), elements(b"hello")[:-1], "within element 0"),
        (document("encoded", "BYTES", [1]), b"\xff\xff\xff\xff", "within element 0"),
        (document("encoded", "BYTES", [1]), b"\0\0\0", "within element 0"),
        (document("encoded", "BYTES", [1]), elements(b"a", b"b"), "goes on after element 0"),
        (document("encoded", "BYTES", [256]), elements(*[b""] * 100_000), "goes on after element 255"),
    ],
)
def test_wrong_tensors_are_refused(tiny_server: Server, request_: dict[str, Any], tensor: bytes, message: str) -> None:
    assert_refused(tiny_server.ask("POST", INFER, *_sent(request_, tensor)), 400, message)


def _sent(request: dict[str, Any], tensor: bytes) -> tuple[bytes, str, dict[str, str]]:
    body, headers = with_tensor(request, tensor)
    return body, "", headers


def test_tensors_of_another_size_than_announced_are_refused(tiny_server: Server) -> None:
    body, headers = with_tensor(ONE_IMAGE, bytes(PIXEL_BYTES))
    for other in (body + b"\0", body[:-1], body[: int(headers[LENGTH])]):
        assert_refused(tiny_server.ask("POST", INFER, other, headers=headers), 400, "784 are announced")
    assert_refused(tiny_server.ask("POST", INFER, body[: int(headers[LENGTH])]), 400, "784 are announced")


def test_json_that_is_too_large_is_refused_with_a_way_out(tiny_server: Server) -> None:
    for data in ([0] * 300_000, ["a" * (MAX_JSON_BYTES + 1)]):
        reply = infer(tiny_server, document("images", "UINT8", [256, 28, 28, 1], data=data))
        assert_refused(reply, 413, "send the images as a binary tensor")


# Compression


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_requests_and_answers(tiny_server: Server, encoding: str) -> None:
    body, headers = with_tensor(
        document("images", "UINT8", [64, 28, 28, 1]) | {"parameters": {"binary_data_output": True}},
        bytes(64 * PIXEL_BYTES),
    )
    plain = tiny_server.ask("POST", INFER, body, headers=headers)
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    headers |= {"Content-Encoding": encoding, "Accept-Encoding": f"br;q=1, {encoding};q=0.5, identity;q=0"}
    reply = tiny_server.ask("POST", INFER, packed, headers=headers)
    assert (reply.status, reply.headers["content-encoding"]) == (200, encoding)
    assert reply.headers[LENGTH.lower()] == plain.headers[LENGTH.lower()]  # of the JSON before compression
    reply.body = zlib.decompress(reply.body, 47)
    assert reply.body == plain.body


@pytest.mark.parametrize(
    ("encoding", "body", "status", "message"),
    [
        ("gzip", b"{}", 400, "not valid gzip"),
        ("gzip", gzip.compress(b"{}" * 100)[:-9], 400, "ends before"),
        ("gzip", gzip.compress(b"{}") + b"more", 400, "goes on after"),
        ("deflate", zlib.compress(b"{}", wbits=-15), 400, "not valid deflate"),
        ("br", b"{}", 415, "gzip and deflate"),
        ("gzip", b"", 400, "no body"),
        ("gzip", gzip.compress(bytes(300 * MIB), 1), 413, "at most 64 MiB"),
    ],
)
def test_damaged_and_huge_compressed_requests_are_refused(
    tiny_server: Server, encoding: str, body: bytes, status: int, message: str
) -> None:
    reply = tiny_server.ask("POST", INFER, body, headers={"Content-Encoding": encoding})
    assert_refused(reply, status, message)
