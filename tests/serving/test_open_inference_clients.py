"""Clients of the Open Inference Protocol v2 that others have made, against a running server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from expected_answers import encoded, expected
from open_inference_requests import INFER, LENGTH, document, elements
from server import Server
from tiny_model import PIXELS

from trainer.images.decode import decode


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
