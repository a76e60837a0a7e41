"""Open Inference Protocol v2 of a running server: its paths, its wire format, and the clients that others have made."""

from __future__ import annotations

import base64
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from expected_answers import encoded, expected
from numpy.typing import NDArray
from open_inference_requests import INFER, LENGTH, assert_refused, document, elements, infer, outputs_of, with_tensor
from pydantic import TypeAdapter
from server import Server
from tiny_model import CLASS_NAMES, PIXELS

from trainer import artifact
from trainer.artifact.engine import load_engine
from trainer.images.decode import decode
from trainer.serving.schemas import InferResponse, ModelMetadata, ModelReady, ServerLive, ServerMetadata, ServerReady

PIXEL_BYTES = PIXELS.height * PIXELS.width * PIXELS.channels
ONE_IMAGE = document("images", "UINT8", [1, 28, 28, 1])


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
