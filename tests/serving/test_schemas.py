"""One schema of the responses: documented, validated, and read by every client that the documentation shows."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expected_answers import assert_same, encoded, expected
from PIL import Image
from pydantic import TypeAdapter
from server import PROJECT, Server, environment, form
from tiny_model import PIXELS

from trainer.images.decode import decode
from trainer.serving.schemas import Error, Model, Prediction, Predictions


def test_responses_match_the_schemas(tiny_server: Server) -> None:
    TypeAdapter(Prediction).validate_json(tiny_server.predict(encoded()).body)
    TypeAdapter(Model).validate_json(tiny_server.ask("GET", "/model").body)
    TypeAdapter(Error).validate_json(tiny_server.predict(b"hello").body)
    batch = tiny_server.ask("POST", "/predict_batch", *form(("images", encoded()), ("images", b"hello")))
    TypeAdapter(Predictions).validate_json(batch.body)


def test_openapi_and_bentoml_document_the_same_responses(tiny_server: Server) -> None:
    openapi = tiny_server.ask("GET", "/docs.json").value["components"]["schemas"]
    routes = {route["name"]: route["output"] for route in tiny_server.ask("GET", "/schema.json").value["routes"]}
    assert {"label", "index", "probability", "known", "top", "model"} == set(openapi["Prediction"]["properties"])
    assert set(routes["predict"]["properties"]) == set(openapi["Prediction"]["properties"])
    assert set(routes["predict_batch"]["properties"]) == set(openapi["Predictions"]["properties"])


def documented(language: str, server: Server) -> list[str]:
    """The code blocks of `docs/serving.md` in a language, for this server and its model."""
    page = (PROJECT / "docs" / "serving.md").read_text()
    found = re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    name = server.tag.partition(":")[0]
    return [re.sub(r"photos(?=/infer|\")", name, block.replace(":3000", f":{server.port}")) for block in found]


class Documentation:
    """The clients of `docs/serving.md`, run in a folder with an image against a real server."""

    def __init__(self, server: Server, artifact: Path, folder: Path) -> None:
        self.server, self.folder, self.image = server, folder, encoded("JPEG")
        (folder / "some-image.jpg").write_bytes(self.image)
        self.expected = expected(self.image, artifact)  # with `known`

    def run(self, *command: str) -> list[str]:
        """Lines of stdout. BentoML's client warns when it is imported and when it is collected."""
        done = subprocess.run(
            command, cwd=self.folder, env=environment(self.folder), capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().splitlines()

    def check(self, prediction: dict[str, Any], batch: dict[str, Any] | None = None) -> None:
        assert set(prediction) == {"label", "index", "probability", "known", "top", "model"}
        assert prediction["model"] == self.server.tag
        assert_same(prediction, self.expected)
        if batch:
            assert batch["model"] == self.server.tag
            assert len(batch["predictions"]) == 2
            for item in batch["predictions"]:
                assert_same(item, self.expected)

    def check_images(self) -> None:
        with Image.open(self.folder / "preview.png") as preview:
            np.testing.assert_array_equal(np.asarray(preview), decode(self.image, PIXELS)[:, :, 0])
        with Image.open(self.folder / "explanation.png") as explanation:
            assert explanation.size == preview.size
        for name in ("preview.png", "explanation.png"):
            (self.folder / name).unlink()


@pytest.fixture
def documentation(tiny_server: Server, tiny_artifact: Path, tmp_path: Path) -> Documentation:
    return Documentation(tiny_server, tiny_artifact, tmp_path)


def test_curl_gets_every_response(documentation: Documentation) -> None:
    if not shutil.which("curl"):
        pytest.skip("there is no curl here")
    block, protocol = documented("sh", documentation.server)
    outputs = [documentation.run("bash", "-c", f"{command} --silent") for command in block.splitlines()]
    prediction, batch, preview, explanation, model = ("".join(lines) for lines in outputs)
    assert (preview, explanation) == ("", "")
    documentation.check(json.loads(prediction), json.loads(batch))
    documentation.check_images()
    TypeAdapter(Model).validate_json(model)
    (response,) = documentation.run("bash", "-c", protocol.replace("curl ", "curl --silent "))
    answers = {output["name"]: output["data"] for output in json.loads(response)["outputs"]}
    for name in ("label", "known"):
        assert answers[name] == [documentation.expected[name]]


def test_python_clients_get_every_response(documentation: Documentation) -> None:
    requests, bentoml, triton = documented("python", documentation.server)
    (prediction,) = documentation.run(sys.executable, "-c", requests)
    documentation.check(ast.literal_eval(prediction))
    prediction, batch = documentation.run(sys.executable, "-c", bentoml)
    documentation.check(ast.literal_eval(prediction), ast.literal_eval(batch))
    documentation.check_images()
    (printed,) = documentation.run(sys.executable, "-c", triton)
    label, probability, known = printed.split()
    assert (label, known) == (documentation.expected["label"], str(documentation.expected["known"]))
    assert float(probability) == pytest.approx(documentation.expected["probability"], abs=1e-6)


def test_javascript_gets_the_response(documentation: Documentation) -> None:
    if not shutil.which("node"):
        pytest.skip("there is no node here")
    (block,) = documented("js", documentation.server)
    file = 'const file = new Blob([require("fs").readFileSync("some-image.jpg")]);'
    (prediction,) = documentation.run("node", "--eval", f"(async () => {{ {file} {block} }})()")
    documentation.check(json.loads(prediction))
