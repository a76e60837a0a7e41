"""Java's own HTTP client, which offers HTTP/2 with every request."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from expected_answers import assert_same, encoded, expected
from server import serving

pytestmark = pytest.mark.slow

CODE = """
import java.net.URI;
import java.net.http.*;
import java.nio.file.Path;

class Client {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newHttpClient();
        for (int turn = 0; turn < 3; turn++) {
            var request = HttpRequest.newBuilder(URI.create(arguments[0]))
                .POST(HttpRequest.BodyPublishers.ofFile(Path.of(arguments[1]))).build();
            var response = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(response.statusCode() + " " + response.body());
        }
    }
}
"""


def test_java_s_own_client_gets_its_answer(tiny_artifact: Path, tmp_path: Path) -> None:
    if not shutil.which("java"):
        pytest.skip("there is no java here")
    (tmp_path / "Client.java").write_text(CODE)
    (tmp_path / "image.png").write_bytes(encoded())
    with serving(tiny_artifact, tmp_path) as server:
        command = ["java", str(tmp_path / "Client.java"), f"{server.url}/predict", str(tmp_path / "image.png")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    lines = done.stdout.splitlines()
    assert [line[:4] for line in lines] == ["200 "] * 3
    for line in lines:
        assert_same(json.loads(line[4:]), expected(encoded(), tiny_artifact))
