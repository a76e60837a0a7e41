"""Clients in Java: its own HTTP client, which offers HTTP/2 with every request, and one as Triton's."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from expected_answers import assert_same, encoded, expected
from server import Server, serving

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


# As Triton's client for Java: no Content-Type, three tries whatever the status, no field that its classes lack, and the
# sizes of the binary tensors added up behind the JSON. An error is text.
V2_CODE = r"""
import java.net.URI;
import java.net.http.*;
import java.nio.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import java.util.regex.*;

class V2Client {
    static final Set<String> FIELDS = Set.of(
        "model_name", "model_version", "id", "outputs", "name", "datatype", "shape", "parameters", "binary_data_size");

    public static void main(String[] arguments) throws Exception {
        var image = Files.readAllBytes(Path.of(arguments[1]));
        var size = image.length + 4;
        var json = ("{\"id\":\"j\",\"inputs\":[{\"name\":\"encoded\",\"datatype\":\"BYTES\","
            + "\"shape\":[1],\"parameters\":{\"binary_data_size\":" + size + "}}],"
            + "\"parameters\":{\"binary_data_output\":true}}").getBytes(StandardCharsets.UTF_8);
        var body = ByteBuffer.allocate(json.length + size).order(ByteOrder.LITTLE_ENDIAN);
        body.put(json).putInt(image.length).put(image);
        for (var model : List.of("tiny", "other")) {
            var request = HttpRequest.newBuilder(URI.create(arguments[0] + "/v2/models/" + model + "/infer"))
                .header("Inference-Header-Content-Length", "" + json.length)
                .POST(HttpRequest.BodyPublishers.ofByteArray(body.array())).build();
            HttpResponse<byte[]> response = null;
            for (int turn = 0; turn < 3 && (response == null || response.statusCode() != 200); turn++)
                response = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofByteArray());
            if (response.statusCode() != 200) {
                var text = new String(response.body(), StandardCharsets.UTF_8);
                var error = Pattern.compile("\\{\"error\":\"([^\"]*)\"\\}").matcher(text);
                System.out.println(response.statusCode() + " " + (error.matches() ? error.group(1) : text));
                continue;
            }
            int position = Integer.parseInt(response.headers().firstValue("Inference-Header-Content-Length").get());
            var head = new String(response.body(), 0, position, StandardCharsets.UTF_8);
            for (var key = Pattern.compile("\"(\\w+)\":").matcher(head); key.find();)
                if (!FIELDS.contains(key.group(1))) throw new IllegalStateException("unknown field " + key.group(1));
            var sizes = new ArrayList<Integer>();
            for (var found = Pattern.compile("binary_data_size\":(\\d+)").matcher(head); found.find();)
                sizes.add(Integer.parseInt(found.group(1)));
            if (position + sizes.stream().mapToInt(i -> i).sum() != response.body().length)
                throw new IllegalStateException("the sizes do not add up");
            var rest = ByteBuffer.wrap(response.body()).order(ByteOrder.LITTLE_ENDIAN);
            rest.position(position + sizes.get(0));
            var label = new byte[rest.getInt()];
            rest.get(label);
            System.out.println("200 " + new String(label, StandardCharsets.UTF_8) + " " + rest.get());
        }
    }
}
"""


@pytest.fixture(scope="module")
def server(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not shutil.which("java"):
        pytest.skip("there is no java here")
    with serving(tiny_artifact, tmp_path_factory.mktemp("served")) as running:
        yield running


def run_java(code: str, folder: Path, *arguments: str) -> list[str]:
    """Lines that a program prints, which is one file."""
    (folder / "Client.java").write_text(code)
    command = ["java", str(folder / "Client.java"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_java_s_own_client_gets_its_answer(server: Server, tiny_artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(encoded())
    lines = run_java(CODE, tmp_path, f"{server.url}/predict", str(tmp_path / "image.png"))
    assert [line[:4] for line in lines] == ["200 "] * 3
    for line in lines:
        assert_same(json.loads(line[4:]), expected(encoded(), tiny_artifact))


def test_a_client_of_the_open_inference_protocol(server: Server, tiny_artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(encoded())
    wanted = expected(encoded(), tiny_artifact)
    assert run_java(V2_CODE, tmp_path, server.url, str(tmp_path / "image.png")) == [
        f"200 {wanted['label']} {wanted['known']:d}",
        f"404 the model 'other' is not served here: {server.tag} is",
    ]
