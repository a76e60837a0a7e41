"""The container image and its rolling update, on Docker's engine. `.ci/docker` installs Docker."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import rollout
import yaml
from expected_answers import assert_same, encoded, expected
from load import LoadResult, open_loop, request_bytes
from PIL import Image
from rollout import Deployment, containers, deployed, wait_for
from server import BENTOML, PROJECT, Address, Reply, environment, form, publish
from tiny_model import export_full_size_model

pytestmark = [pytest.mark.slow, pytest.mark.container, pytest.mark.timeout(900)]

BASE = yaml.safe_load((PROJECT / "bentofile.yaml").read_text())["docker"]["base_image"]
PROXY = yaml.safe_load((PROJECT / "deploy" / "stack.yaml").read_text())["services"]["proxy"]["image"]
CERTIFICATES = Path("/usr/local/share/ca-certificates")  # Debian's folder for local certificates
MEGABYTES_OVER_BASE = 198  # without the model: 220 with a model for photos, which has 22
STOP_GRACE_S = 20
REQUESTS = 20_000


@dataclass(frozen=True)
class BuiltImage:
    name: str
    model: str  # NAME:VERSION
    artifact: Path
    bento: str  # NAME:VERSION


def docker(*arguments: str, data: bytes = b"") -> str:
    done = subprocess.run(["docker", *arguments], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def build(home: Path, artifact: Path, image: str) -> BuiltImage:
    """`bentoml build` and `bentoml containerize`."""
    model = publish(artifact, home)
    done = subprocess.run(
        [BENTOML, "build", "--output=tag"],
        cwd=PROJECT,
        env=environment(home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    bento = done.stdout.strip().rpartition("__tag__:")[2]
    containerize(home, bento, image)
    return BuiltImage(image, model, artifact, bento)


def containerize(home: Path, bento: str, image: str, *options: str, buildkit_path: str | None = None) -> None:
    """`bentoml containerize` with the package index and certificates of this machine."""
    variables = {"DOCKER_BUILDKIT": "1", "PATH": buildkit_path} if buildkit_path else {"DOCKER_BUILDKIT": "0"}
    arguments = (
        [f"--opt=build-arg=PIP_INDEX_URL={os.environ['PIP_INDEX_URL']}"] if "PIP_INDEX_URL" in os.environ else []
    )
    if certificates := "\n".join(file.read_text() for file in sorted(CERTIFICATES.glob("*.crt"))):
        arguments.append(f"--opt=build-arg=CA_CERTIFICATES={certificates}")
    done = subprocess.run(
        [BENTOML, "containerize", bento, "--image-tag", image, *arguments, *options],
        cwd=PROJECT,
        env=environment(home) | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def path_with_buildkit() -> str | None:
    """A PATH whose docker has BuildKit, built in or as a plug-in; None without one."""
    for folder in os.environ["PATH"].split(os.pathsep):
        if not shutil.which("docker", path=folder):
            continue
        done = subprocess.run(
            [f"{folder}/docker", "build", "--quiet", "-"],
            input=f"FROM {BASE}".encode(),
            env=os.environ | {"DOCKER_BUILDKIT": "1"},
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            return folder + os.pathsep + os.environ["PATH"]
    return None


@pytest.fixture(scope="module")
def engine() -> None:
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker engine answers")
    for image in (BASE, PROXY):
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
            pytest.skip(f"the image {image} is not here; .ci/docker makes it")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bentoml")


@pytest.fixture(scope="module")
def image(engine: None, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuiltImage]:
    """An image with a network of realistic size: a small one would cost nothing to start or run."""
    artifact = export_full_size_model(tmp_path_factory.mktemp("one") / "export", seed=1)
    yield build(home, artifact, "trainer-test:one")
    docker("image", "rm", "--force", "trainer-test:one")


@pytest.fixture(scope="module")
def next_image(image: BuiltImage, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuiltImage]:
    """An image of the same service with another network."""
    artifact = export_full_size_model(tmp_path_factory.mktemp("two") / "export", seed=2)
    yield build(home, artifact, "trainer-test:two")
    docker("image", "rm", "--force", "trainer-test:two")


@contextmanager
def running(image: BuiltImage, **variables: str) -> Iterator[str]:
    """A healthy container without network, capabilities or a writable file system."""
    locked = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none")
    settings = [f"--env={name}={value}" for name, value in variables.items()]
    name = docker("run", "--detach", *locked, *settings, image.name)
    try:
        wait_for(lambda: docker("inspect", "--format", "{{.State.Health.Status}}", name) == "healthy")
        yield name
    finally:
        docker("rm", "--force", name)


@pytest.fixture
def container(image: BuiltImage) -> Iterator[str]:
    with running(image) as name:
        yield name


def request_inside(container: str, path: str, body: bytes) -> dict[str, object]:
    """Send a request from inside the container, which has no network."""
    code = (
        "import sys; from urllib.request import Request, urlopen; "
        f"print(urlopen(Request('http://127.0.0.1:3000{path}', data=sys.stdin.buffer.read() or None)).read().decode())"
    )
    answer: dict[str, object] = json.loads(docker("exec", "--interactive", container, "python", "-c", code, data=body))
    return answer


def test_the_container_answers_without_network_or_capabilities(container: str, image: BuiltImage) -> None:
    sample = encoded()
    answer = request_inside(container, "/predict", sample)
    assert answer["model"] == image.model
    assert_same(answer, expected(sample, image.artifact))
    assert request_inside(container, "/model", b"")["model"] == image.model
    assert docker("exec", container, "id", "-u") == "10001"


def test_the_image_holds_only_what_serving_needs(container: str, image: BuiltImage) -> None:
    code = "import importlib.util as i; print([m for m in %r if i.find_spec(m)])"
    unwanted = [
        "tensorflow",
        "wandb",
        "typer",
        "optuna",
        "trainer.cli",
        "trainer.data",
        "trainer.training",
        "pip",
        "uv",
    ]
    assert docker("exec", "--workdir=/app/src", container, "python", "-c", code % unwanted) == "[]"
    tools = "for tool in gcc cc git make; do command -v $tool; done; true"
    assert docker("exec", container, "sh", "-c", tools) == ""
    model = f"/app/models/{image.model.replace(':', '/')}"
    assert docker("exec", container, "ls", model).split() == ["model.tflite", "model.yaml", "spec.json"]
    base, whole = (int(docker("image", "inspect", "--format", "{{.Size}}", name)) for name in (BASE, image.name))
    size = int(docker("exec", container, "du", "--summarize", "--bytes", "/app/models").split()[0])
    assert whole - base - size <= MEGABYTES_OVER_BASE * 1e6


def test_several_workers_answer_every_format(image: BuiltImage) -> None:
    """Also BentoML's own server, which another entry point starts, finds all that it needs."""
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8))
    pillow_heif.register_heif_opener()
    with running(image, TRAINER_WORKERS="2") as container:
        for format in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "AVIF", "HEIF"):
            file = BytesIO()
            pixels.save(file, format)
            answer = request_inside(container, "/predict", file.getvalue())
            assert_same(answer, expected(file.getvalue(), image.artifact))


def test_a_start_compiles_nothing(image: BuiltImage) -> None:
    """Nothing that it imports lacks its compiled file, which a container cannot write."""
    with running(image, PYTHONVERBOSE="1") as container:
        request_inside(container, "/predict", encoded())
        logs = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True).stderr
    loaded = re.findall(r"^# code object from '(/.+)'$", logs, re.MULTILINE)
    assert len(loaded) > 500
    assert [file for file in loaded if file.endswith(".py")] == []


def test_the_bill_of_materials_names_all_that_is_installed(container: str) -> None:
    bill = json.loads(docker("exec", container, "cat", "/app/sbom.cdx.json"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    listed = {
        (component["purl"].partition("/")[0], component["name"], component["version"])
        for component in bill["components"]
    }
    code = "from importlib.metadata import distributions; print(*(f'{d.name}={d.version}' for d in distributions()))"
    packages = docker("exec", container, "python", "-c", code).split()
    debian = docker("exec", container, "dpkg-query", "--show", "--showformat", "${Package}=${Version} ").split()
    python = docker("exec", container, "python", "-c", "import platform; print(platform.python_version())")
    assert listed == {
        *(("pkg:pypi", *package.split("=", 1)) for package in packages),
        *(("pkg:deb", *package.split("=", 1)) for package in debian),
        ("pkg:generic", "python", python),
    }
    needs = {entry["ref"]: entry["dependsOn"] for entry in bill["dependencies"]}
    versions = dict(package.split("=", 1) for package in packages)
    assert f"pkg:pypi/starlette@{versions['starlette']}" in needs[f"pkg:pypi/bentoml@{versions['bentoml']}"]
    assert len(needs["classifier"]) == len(packages)


def test_the_image_has_labels(image: BuiltImage) -> None:
    config = json.loads(docker("image", "inspect", "--format", "{{json .Config}}", image.name))
    assert config["Labels"]["org.opencontainers.image.version"] == image.model
    assert config["Labels"]["trainer.test_accuracy"] == "0.5"
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert "BENTOML_DO_NOT_TRACK=True" in config["Env"]


def test_docker_stop_ends_the_container_cleanly(container: str) -> None:
    docker("stop", "--time", str(STOP_GRACE_S), container)
    # 137: killed at the end of the grace period
    assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"


def large_images() -> list[bytes]:
    """Small files that are large when decoded, close to the limit of 25 million pixels."""
    images = []
    for mode, format in (("RGBA", "PNG"), ("LA", "PNG"), ("RGB", "WEBP"), ("RGB", "JPEG"), ("P", "GIF")):
        file = BytesIO()
        Image.new(mode, (4990, 4990)).save(file, format, progressive=True)
        images.append(file.getvalue())
    return images


@pytest.mark.alone
def test_large_images_and_bodies_do_not_exhaust_memory(image: BuiltImage) -> None:
    """With the memory limit of deploy/: many large images and large bodies at once."""
    limit = yaml.safe_load((PROJECT / "deploy" / "stack.yaml").read_text())["services"]["classifier"]["deploy"]
    memory = limit["resources"]["limits"]["memory"]
    name = docker(
        "run", "--detach", f"--memory={memory}", f"--memory-swap={memory}", "--publish=127.0.0.1::3000", image.name
    )
    try:
        wait_for(lambda: docker("inspect", "--format", "{{.State.Health.Status}}", name) == "healthy")
        server = Address(int(docker("port", name, "3000").rpartition(":")[2]))
        small, large = encoded(), large_images()
        batch, content_type = form(*[("images", bytes(9 * 2**20))] * 7)
        wanted = server.predict(small).value
        requests: list[Callable[[], Reply]] = [partial(server.predict, data) for data in large * 8]
        requests += [partial(server.ask, "POST", "/predict_batch", batch, content_type)] * 8
        requests += [partial(server.predict, small)] * 200
        random.Random(0).shuffle(requests)
        with ThreadPoolExecutor(16) as pool:
            replies = list(pool.map(lambda request: request(), requests))
        statuses = Counter(reply.status for reply in replies)
        assert set(statuses) <= {200, 413, 503, 504}
        assert statuses[200] > 200
        assert server.predict(small).value == wanted
        state = json.loads(docker("inspect", "--format", "{{json .State}}", name))
        assert (state["Running"], state["OOMKilled"]) == (True, False)
    finally:
        print(docker("logs", name)[-10_000:])
        docker("rm", "--force", name)


def test_the_index_and_the_certificates_leave_no_trace(image: BuiltImage) -> None:
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image.name)
    assert "COPY" in history  # the output is the history
    assert not re.search("CERTIFICATE|PIP_|pypi|ca.pem", history)
    assert "PIP_" not in docker("image", "inspect", image.name)


def test_another_model_changes_only_the_last_layers(image: BuiltImage, next_image: BuiltImage) -> None:
    one, two = (
        json.loads(docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", built.name))
        for built in (image, next_image)
    )
    same = sum(a == b for a, b in zip(one, two, strict=True))
    assert one[:same] == two[:same]
    assert len(one) - same == 3  # the model, the Bento's description, its build file


def test_another_build_has_the_same_contents(image: BuiltImage, home: Path) -> None:
    """With BuildKit where this machine has it, else by the older builder without its cache."""
    again = "trainer-test:again"
    containerize(home, image.bento, again, "--opt=no-cache", buildkit_path=path_with_buildkit())
    try:
        # /etc has files of the container itself.
        command = "find / -xdev -type f -not -path '/etc/*' -print0 | sort -z | xargs -0 sha256sum"
        one, two = (
            docker("run", "--rm", "--user=0", "--entrypoint=sh", name, "-c", command) for name in (image.name, again)
        )
        assert len(one) > 1_000_000
        assert set(one.splitlines()) ^ set(two.splitlines()) == set()
        labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", again))
        assert labels["org.opencontainers.image.version"] == image.model
    finally:
        docker("image", "rm", "--force", again)


@pytest.fixture(scope="module")
def swarm(engine: None) -> Iterator[None]:
    """A Swarm of this machine alone; left afterwards unless it was active before."""
    active = docker("info", "--format", "{{.Swarm.LocalNodeState}}") == "active"
    if not active:
        docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    yield
    if not active:
        docker("swarm", "leave", "--force")


@pytest.fixture(scope="module")
def deployment(swarm: None, image: BuiltImage) -> Iterator[Deployment]:
    with deployed(image.name) as running:
        yield running


class AnswerCheck:
    """Whether an answer is that of the version it names."""

    def __init__(self, sample: bytes, *images: BuiltImage) -> None:
        self.indices = {built.model: expected(sample, built.artifact)["index"] for built in images}
        self.seen: set[str] = set()

    def __call__(self, body: bytes) -> bool:
        answer = json.loads(body)
        self.seen.add(answer["model"])
        return bool(self.indices.get(answer["model"]) == answer["index"])


def image_with_different_answers(*images: BuiltImage) -> bytes:
    """An image that the versions classify differently, so that an answer of the wrong version is noticed."""
    for seed in range(100):
        buffer = BytesIO()
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (28, 28), np.uint8)).save(buffer, "PNG")
        if len({expected(buffer.getvalue(), built.artifact)["index"] for built in images}) == len(images):
            return buffer.getvalue()
    pytest.fail("the two networks agree on everything")


@pytest.fixture(scope="module")
def half_of_capacity(deployment: Deployment) -> float:
    """Half of the capacity, in requests per second."""
    return rollout.capacity(deployment.port, request_bytes("/predict", encoded(), "image/png")) / 2


@pytest.mark.alone
def test_a_rolling_update_under_load_loses_no_request(
    deployment: Deployment, half_of_capacity: float, image: BuiltImage, next_image: BuiltImage
) -> None:
    sample = image_with_different_answers(image, next_image)
    check = AnswerCheck(sample, image, next_image)
    request = request_bytes("/predict", sample, "image/png")
    loads: list[LoadResult] = []
    while len(loads) < 3 or sum(load.sent for load in loads) < REQUESTS:
        new = (next_image, image)[len(loads) % 2]
        process = deployment.rollback() if len(loads) == 1 else deployment.rollout(new.name)
        loads.append(rollout.during(process, deployment.port, request, half_of_capacity, check))
        output, _ = process.communicate()
        assert process.returncode == 0, output
        assert deployment.tags() == {new.model}
    assert [(load.failed, load.wrong) for load in loads] == [(0, 0)] * len(loads), [load.statuses for load in loads]
    assert check.seen == {image.model, next_image.model}


@pytest.mark.alone
def test_a_killed_replica_loses_only_its_requests_in_flight(deployment: Deployment, half_of_capacity: float) -> None:
    request = request_bytes("/predict", encoded(), "image/png")
    rate = half_of_capacity / 2  # the other replica can serve it alone
    back_after = 0.0

    def kill_one() -> None:
        nonlocal back_after
        time.sleep(2)
        docker("kill", "--signal=KILL", containers()[0])
        wait_for(lambda: len(containers()) == 1)
        back_after = wait_for(lambda: len(containers()) == 2)

    killer = threading.Thread(target=kill_one)
    killer.start()
    load = open_loop(deployment.port, request, rate=rate, seconds=5, connections=64, keep_going=killer.is_alive)
    assert 0 < back_after < 30
    assert load.failed <= 16  # its requests in flight
    assert load.sent > 1000


@pytest.mark.alone
def test_a_bad_version_is_rolled_back(deployment: Deployment, half_of_capacity: float, image: BuiltImage) -> None:
    """The model of the bad version was altered after it was saved."""
    before = deployment.tags()
    dockerfile = (
        f"FROM {image.name}\nUSER 0\nRUN for f in /app/models/*/*/model.tflite; do echo >> $f; done\nUSER 10001\n"
    )
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", "trainer-test:bad", "-"],
        input=dockerfile.encode(),
        env=os.environ | {"DOCKER_BUILDKIT": "0"},
        capture_output=True,
        check=True,
    )
    request = request_bytes("/predict", encoded(), "image/png")
    try:
        process = deployment.rollout("trainer-test:bad")
        load = rollout.during(process, deployment.port, request, half_of_capacity, lambda body: True)
        output, _ = process.communicate()
        assert process.returncode != 0
        assert "trainer-test:bad did not become healthy, trainer-test:" in output
        assert (load.failed, load.wrong) == (0, 0), load.statuses
        assert deployment.tags() == before
        again = deployment.rollback()
        output, _ = again.communicate()
        assert again.returncode != 0
        assert "already rolled back, to trainer-test:" in output
    finally:
        docker("image", "rm", "--force", "trainer-test:bad")
