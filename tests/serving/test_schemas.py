"""One schema of the responses: documented, validated, and read by BentoML's client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from expected_answers import assert_same, encoded, expected
from pydantic import TypeAdapter
from server import Server, environment, form

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


CLIENT = """
import json, pathlib, sys, bentoml
path = pathlib.Path(sys.argv[2])
with bentoml.SyncHTTPClient(sys.argv[1]) as client:
    print(json.dumps(client.predict(path.read_bytes())))
    print(json.dumps(client.predict_batch(images=[path, path])))
    print(client.preview(path.read_bytes())[:4])
    print(client.explain(path.read_bytes())[:4])
"""


def test_bentoml_s_client_gets_every_response(tiny_server: Server, tiny_artifact: Path, tmp_path: Path) -> None:
    """In a process of its own: the client warns when it is imported and when it is collected."""
    (tmp_path / "image.png").write_bytes(encoded())
    command = [sys.executable, "-c", CLIENT, tiny_server.url, str(tmp_path / "image.png")]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    prediction, predictions, *pngs = done.stdout.splitlines()
    assert pngs == [r"b'\x89PNG'"] * 2, done.stderr
    answer, batch = json.loads(prediction), json.loads(predictions)
    assert answer["model"] == batch["model"] == tiny_server.tag
    for item in (answer, *batch["predictions"]):
        assert_same(item, expected(encoded(), tiny_artifact))  # `known` included
    assert len(batch["predictions"]) == 2
