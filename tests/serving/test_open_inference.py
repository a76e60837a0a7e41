"""Open Inference Protocol v2 of a running server: its paths, its wire format, and the clients that others have made."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import threading
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from expected_answers import assert_same, encoded, expected
from numpy.typing import NDArray
from open_inference_requests import LENGTH, document, elements, outputs_of, with_tensor
from pydantic import TypeAdapter
from server import Reply, Server
from tiny_model import CLASS_NAMES, PIXELS

from trainer import artifact
from trainer.artifact.engine import load_engine
from trainer.images.decode import decode
from trainer.serving.request import MIB
from trainer.serving.schemas import InferResponse, ModelMetadata, ModelReady, ServerLive, ServerMetadata, ServerReady
from trainer.serving.tensors import MAX_JSON_BYTES

INFER = "/v2/models/tiny/infer"
PIXEL_BYTES = PIXELS.height * PIXELS.width * PIXELS.channels
ONE_IMAGE = document("images", "UINT8", [1, 28, 28, 1])


def infer(server: Server, request: dict[str, Any], headers: dict[str, str] | None = None) -> Reply:
    return server.ask("POST", INFER, json.dumps(request).encode(), headers=headers)


def assert_refused(reply: Reply, status: int, message: str) -> None:
    assert reply.headers["content-type"] == "application/json"
    assert list(reply.value) == ["error"]
    assert (reply.status, message in reply.value["error"]) == (status, True), reply.body


@pytest.fixture(scope="module")
def probabilities(tiny_artifact: Path) -> NDArray[np.float32]:
    """The engine's own, for `encoded()` and for a black image."""
    images = np.stack([decode(encoded(), PIXELS), np.zeros((28, 28, 1), np.uint8)])
    return load_engine(artifact.load(tiny_artifact)).predict(images)["probabilities"]


# The paths


def test_the_server_and_its_model_are_described(tiny_server: Server) -> None:
    name, _, model_version = tiny_server.tag.partition(":")
    for path in ("/v2", "/v2/"):
        reply = tiny_server.ask("GET", path)
        assert reply.headers["content-type"] == "application/json"
        assert TypeAdapter(ServerMetadata).validate_json(reply.body) == {
            "name": "trainer",
            "version": version("trainer"),
            "extensions": ["binary_tensor_data"],
        }
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{model_version}"):
        reply = tiny_server.ask("GET", path)
        assert TypeAdapter(ModelMetadata).validate_json(reply.body) == {
            "name": "tiny",
            "versions": [model_version],
            "platform": "trainer",
            "inputs": [
                {"name": "images", "datatype": "UINT8", "shape": [-1, 28, 28, 1]},
                {"name": "encoded", "datatype": "BYTES", "shape": [-1]},
            ],
            "outputs": [
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "known", "datatype": "BOOL", "shape": [-1]},
            ],
        }
        ready = tiny_server.ask("GET", f"{path}/ready")
        assert TypeAdapter(ModelReady).validate_json(ready.body) == {"name": "tiny", "ready": True}


def test_health_is_told_with_a_body(tiny_server: Server) -> None:
    live, ready = (tiny_server.ask("GET", f"/v2/health/{what}") for what in ("live", "ready"))
    assert TypeAdapter(ServerLive).validate_json(live.body) == {"live": True}
    assert TypeAdapter(ServerReady).validate_json(ready.body) == {"ready": True}
    drain = tiny_server.log.parent / "drain"
    drain.touch()
    try:
        for path in ("/v2/health/ready", "/v2/models/tiny/ready"):
            assert_refused(tiny_server.ask("GET", path), 503, "starting or stopping")
        assert tiny_server.ask("GET", "/v2/health/live").status == 200
    finally:
        drain.unlink()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/tiny/versions/1/ready", 404),
        ("POST", "/v2/models/tiny/versions/1/infer", 404),
        ("POST", "/v2/models/%74iny%2Fother/infer", 404),
        ("POST", "/v2/repository/index", 404),
        ("GET", "/v2/models/tiny/config", 404),
        ("GET", "/v2/models/tiny/stats", 404),
        ("GET", "/v2/models", 404),
        ("GET", INFER, 405),
        ("POST", "/v2/health/ready", 405),
        ("POST", INFER, 400),
    ],
)
def test_errors_are_text(tiny_server: Server, method: str, path: str, status: int) -> None:
    assert_refused(tiny_server.ask(method, path), status, "")


def test_a_head_that_is_too_large_is_refused_as_text(tiny_server: Server) -> None:
    reply = tiny_server.ask("POST", f"{INFER}?a=b", b"{}", headers={LENGTH: "1" * 20_000})
    assert_refused(reply, 431, "head is too large")


def test_names_of_models_make_no_series_of_metrics(tiny_server: Server) -> None:
    infer(tiny_server, {**ONE_IMAGE})
    tiny_server.ask("GET", "/v2/models/invented/versions/7")
    text = tiny_server.ask("GET", "/metrics").body.decode()
    assert 'trainer_requests_total{code="400",endpoint="/v2/models/{name}/infer"}' in text
    assert "invented" not in text


# Inputs and outputs


def test_json_alone(tiny_server: Server, tiny_artifact: Path, probabilities: NDArray[np.float32]) -> None:
    """Flat or nested numbers; the answer has flat data, the id, and nothing that a strict client does not know."""
    pixels = np.stack([decode(encoded(), PIXELS), np.zeros((28, 28, 1), np.uint8)])
    wanted = expected(encoded(), tiny_artifact)
    for data in (pixels.ravel().tolist(), pixels.tolist()):
        reply = infer(tiny_server, document("images", "UINT8", [2, 28, 28, 1], data=data, id="a … é"))
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        assert LENGTH.lower() not in reply.headers
        answer = TypeAdapter(InferResponse).validate_json(reply.body, strict=True)
        assert f"{answer['model_name']}:{answer['model_version']}" == tiny_server.tag
        assert answer["id"] == "a … é"
        assert [(output["name"], output["datatype"], output["shape"]) for output in answer["outputs"]] == [
            ("probabilities", "FP32", [2, 10]),
            ("label", "BYTES", [2]),
            ("known", "BOOL", [2]),
        ]
        outputs = outputs_of(reply)
        np.testing.assert_allclose(outputs["probabilities"], probabilities, atol=2e-6)
        assert (outputs["label"][0], outputs["known"][0]) == (wanted["label"], wanted["known"])
        assert outputs["label"][1] == CLASS_NAMES[probabilities[1].argmax()]


def test_binary_tensors(tiny_server: Server, probabilities: NDArray[np.float32]) -> None:
    pixels = np.stack([decode(encoded(), PIXELS), np.zeros((28, 28, 1), np.uint8)])
    request = document("images", "UINT8", [2, 28, 28, 1])
    body, headers = with_tensor(request, pixels.tobytes())
    as_json = tiny_server.ask("POST", INFER, body, headers=headers)
    assert LENGTH.lower() not in as_json.headers
    body, headers = with_tensor(request | {"parameters": {"binary_data_output": True}}, pixels.tobytes())
    in_binary = tiny_server.ask("POST", INFER, body, headers=headers)
    assert in_binary.headers["content-type"] == "application/octet-stream"
    for reply in (as_json, in_binary):
        assert list(outputs_of(reply)) == ["probabilities", "label", "known"]
        np.testing.assert_allclose(outputs_of(reply)["probabilities"], probabilities, atol=2e-6)
    for name, values in outputs_of(as_json).items():
        np.testing.assert_array_equal(outputs_of(in_binary)[name], values)


def test_encoded_images_equal_those_of_predict(tiny_server: Server, tiny_artifact: Path) -> None:
    files = [encoded("PNG"), encoded("JPEG"), encoded("WebP")]
    texts = [base64.b64encode(file).decode() for file in files]
    for shape, data in (([3], texts), ([3, 1], texts), ([3, 1], [[text] for text in texts])):
        replies = [infer(tiny_server, document("encoded", "BYTES", shape, data=data))]
        body, headers = with_tensor(document("encoded", "BYTES", shape), elements(*files))
        replies.append(tiny_server.ask("POST", INFER, body, headers=headers))
        for reply in replies:
            outputs = outputs_of(reply)
            for index, file in enumerate(files):
                wanted = expected(file, tiny_artifact)
                assert (outputs["label"][index], outputs["known"][index]) == (wanted["label"], wanted["known"])
                assert outputs["probabilities"][index].max() == pytest.approx(wanted["probability"], abs=2e-6)


def test_a_raw_request_is_one_encoded_image(tiny_server: Server, tiny_artifact: Path) -> None:
    reply = tiny_server.ask("POST", INFER, encoded(), headers={LENGTH: "0"})
    assert reply.headers["content-type"] == "application/octet-stream"
    assert all(
        "parameters" in output for output in json.loads(reply.body[: int(reply.headers[LENGTH.lower()])])["outputs"]
    )
    assert outputs_of(reply)["label"].tolist() == [expected(encoded(), tiny_artifact)["label"]]
    assert_refused(tiny_server.ask("POST", INFER, b"hello", headers={LENGTH: "0"}), 415, "encoded[0]: not an image")


def test_outputs_are_answered_as_requested(tiny_server: Server) -> None:
    request = document(
        *("images", "UINT8", [1, 28, 28, 1]),
        data=[0] * PIXEL_BYTES,
        outputs=[{"name": "label", "parameters": {"binary_data": False}}, {"name": "probabilities"}],
    )
    request["parameters"] = {"binary_data_output": True, "priority": 1, "timeout": 5}
    reply = infer(tiny_server, request)
    head = json.loads(reply.body[: int(reply.headers[LENGTH.lower()])])
    assert [(output["name"], "data" in output) for output in head["outputs"]] == [
        ("label", True),
        ("probabilities", False),
    ]
    assert outputs_of(reply)["probabilities"].shape == (1, 10)


def test_a_length_header_of_pure_json_is_read(tiny_server: Server) -> None:
    """The C++ client sends it always."""
    request = json.dumps(ONE_IMAGE["inputs"][0] | {"data": [0] * PIXEL_BYTES})
    body = f'{{"inputs":[{request}]}}'.encode()
    assert tiny_server.ask("POST", INFER, body, headers={LENGTH: str(len(body))}).status == 200


def test_as_many_images_as_in_a_batch(tiny_server: Server) -> None:
    body, headers = with_tensor(document("images", "UINT8", [256, 28, 28, 1]), bytes(256 * PIXEL_BYTES))
    assert outputs_of(tiny_server.ask("POST", INFER, body, headers=headers))["known"].shape == (256,)
    body, headers = with_tensor(document("images", "UINT8", [257, 28, 28, 1]), bytes(257 * PIXEL_BYTES))
    assert_refused(tiny_server.ask("POST", INFER, body, headers=headers), 400, "1 to 256 images")


# Refusals


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


# Other people's clients


def test_triton_s_client_in_its_default_mode(tiny_server: Server, tiny_artifact: Path) -> None:
    files = [encoded("PNG"), encoded("JPEG")]
    wanted = [expected(file, tiny_artifact) for file in files]
    with triton.InferenceServerClient(f"127.0.0.1:{tiny_server.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert not client.is_model_ready("tiny", "1")
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        assert client.get_model_metadata("tiny", tiny_server.tag.partition(":")[2])["platform"] == "trainer"
        as_files = triton.InferInput("encoded", [2], "BYTES")
        as_files.set_data_from_numpy(np.array(files, object))
        as_pixels = triton.InferInput("images", [2, 28, 28, 1], "UINT8")
        as_pixels.set_data_from_numpy(np.stack([decode(file, PIXELS) for file in files]))
        as_numbers = triton.InferInput("images", [2, 28, 28, 1], "UINT8")
        as_numbers.set_data_from_numpy(np.stack([decode(file, PIXELS) for file in files]), binary_data=False)
        some = [triton.InferRequestedOutput("known"), triton.InferRequestedOutput("label", binary_data=False)]
        for data in (as_files, as_pixels, as_numbers):
            for packing in (None, "gzip", "deflate"):
                result = client.infer(
                    "tiny", [data], request_id="7", request_compression_algorithm=packing,
                    response_compression_algorithm=packing,
                )  # fmt: skip
                assert result.get_response()["id"] == "7"
                assert [label.decode() for label in result.as_numpy("label")] == [one["label"] for one in wanted]
                assert result.as_numpy("known").tolist() == [one["known"] for one in wanted]
                top = result.as_numpy("probabilities").max(axis=1)
                np.testing.assert_allclose(top, [one["probability"] for one in wanted], atol=2e-6)
            part = client.infer("tiny", [data], outputs=some)
            assert part.as_numpy("label").tolist() == [one["label"] for one in wanted]
            assert part.as_numpy("probabilities") is None
        with pytest.raises(triton.InferenceServerException, match="'other' is not served here"):
            client.infer("other", [as_files])
        with pytest.raises(triton.InferenceServerException, match="is no address here"):
            client.get_model_config("tiny")
        as_files.set_data_from_numpy(np.array([files[0], b"hello"], object))
        with pytest.raises(triton.InferenceServerException, match=r"encoded\[1\]: not an image"):
            client.infer("tiny", [as_files])


def test_kserve_s_client(tiny_server: Server, tiny_artifact: Path) -> None:
    """The requests of `kserve.InferenceRESTClient` 0.21, and everything that it reads of the answers.

    Its package needs Kubernetes' client, pandas and gRPC, and an older psutil than this project.
    """

    async def test() -> None:
        async with httpx.AsyncClient(base_url=tiny_server.url, trust_env=False) as client:
            assert (await client.get("/v2/health/live")).json().get("live") is True
            assert (await client.get("/v2/health/ready")).json().get("ready") is True
            assert (await client.get("/v2/models/tiny/ready")).is_success
            tensor = elements(encoded())
            request = {
                "id": "5e1d",
                "model_name": "tiny",
                **document("encoded", "BYTES", [1], parameters={"binary_data_size": len(tensor)}),
                "parameters": {"binary_data_output": True},
            }
            head = json.dumps(request).encode()
            headers = {LENGTH.lower(): str(len(head)), "content-type": "application/octet-stream"}
            reply = await client.post(INFER, content=head + tensor, headers=headers)
            length = int(reply.headers.get(LENGTH.lower(), len(reply.content)))
            answer = json.loads(reply.content[:length])
            assert (answer["model_name"], answer["id"]) == ("tiny", "5e1d")
            sizes = [output["parameters"]["binary_data_size"] for output in answer["outputs"]]
            assert length + sum(sizes) == len(reply.content)
            label = (
                answer["outputs"][1]["name"],
                reply.content[length + sizes[0] + 4 : length + sum(sizes[:2])].decode(),
            )
            assert label == ("label", expected(encoded(), tiny_artifact)["label"])
            del request["parameters"]
            request |= document("images", "UINT8", [1, 28, 28, 1], data=decode(encoded(), PIXELS).ravel().tolist())
            reply = await client.post(INFER, json=request)
            answer = json.loads(reply.content[: int(reply.headers.get(LENGTH.lower(), len(reply.content)))])
            assert answer["outputs"][1]["data"] == [label[1]]
            reply = await client.post("/v2/models/other/infer", json=request)
            assert reply.headers["content-type"] == "application/json"
            assert "'other' is not served here" in reply.json()["error"]

    asyncio.run(test())
