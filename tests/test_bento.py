"""`bentoml build`: the contents of the Bento. Its container image has tests in `test_container.py`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from expected_answers import assert_same, encoded, expected
from server import BENTOML, PROJECT, environment, publish, serving


def build(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(BENTOML), "build", *arguments]
    return subprocess.run(command, cwd=PROJECT, env=environment(home), capture_output=True, text=True, check=False)


def bento_at(home: Path) -> Path:
    bentos = home / "bentos" / "classifier"
    return bentos / (bentos / "latest").read_text()


@pytest.fixture(scope="module")
def home(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with three versions, and a Bento built with the second."""
    folder = tmp_path_factory.mktemp("bentoml")
    tags = [publish(tiny_artifact, folder) for _ in range(3)]
    done = build(folder, "--arg", f"model={tags[1]}")
    assert done.returncode == 0, done.stderr
    assert f"the model of this service: {tags[1]}" in done.stdout + done.stderr
    (folder / "pinned").write_text(tags[1])
    return folder


def test_an_empty_store_is_refused_with_the_command_that_makes_a_model(tmp_path: Path) -> None:
    done = build(tmp_path)
    assert done.returncode != 0
    assert "holds no model of trainer; `trainer fit --dataset builtin:digits` makes one" in done.stderr + done.stdout


def test_an_unknown_model_is_refused(home: Path) -> None:
    done = build(home, "--arg", "model=tinny")
    assert done.returncode != 0
    assert "did you mean tiny?" in done.stderr + done.stdout


def test_the_model_is_pinned(home: Path) -> None:
    description = yaml.safe_load((bento_at(home) / "bento.yaml").read_text())
    models = [model["tag"] for service in description["services"] for model in service["models"]]
    assert models == [(home / "pinned").read_text()]


def test_a_bento_serves_its_own_model_whatever_is_newer(home: Path, tiny_artifact: Path) -> None:
    command = (str(BENTOML), "serve", "classifier:latest")
    with serving(tiny_artifact, home, command=command) as server:  # publishes a newer one
        assert server.ask("GET", "/model").value["model"] == (home / "pinned").read_text() != server.tag


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"model": "tiny"}, "watch_s: a Bento holds one version of its model"),
        (None, "TRAINER_WATCH_S: '2' is wrong: the model tiny:"),  # as it was built: of a version
    ],
)
def test_a_bento_that_is_to_watch_the_store_is_refused(
    arguments: dict[str, str] | None, reason: str, home: Path, tmp_path: Path
) -> None:
    bento = shutil.copytree(bento_at(home), tmp_path / "bento")
    description = yaml.safe_load((bento / "bento.yaml").read_text())
    description["args"] = arguments or description["args"]
    (bento / "bento.yaml").write_text(yaml.safe_dump(description))
    done = subprocess.run(
        [sys.executable, "-m", "trainer.serving", str(bento)],
        env=environment(home) | {"TRAINER_WATCH_S": "2"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode not in (0, 143)
    assert reason in done.stdout + done.stderr


def test_the_server_of_the_image_runs_in_one_process(home: Path, tiny_artifact: Path) -> None:
    command = (sys.executable, "-m", "trainer.serving", str(bento_at(home)))
    (home / "tokens").write_text("correct-horse\n")
    variables: dict[str, Any] = {
        "TRAINER_TOKEN_FILE": str(home / "tokens"),
        "TRAINER_LOG_JSON": "true",
        "TRAINER_START_SHARE": "0.7",
    }
    token = {"Authorization": "Bearer correct-horse"}
    with serving(tiny_artifact, home, command=command, **variables) as server:
        assert server.ask("GET", "/model", headers=token).value["model"] == (home / "pinned").read_text()
        answer = server.ask("POST", "/predict", encoded(), headers=token)
        assert_same(answer.value, expected(encoded(), tiny_artifact))
        assert server.ask("GET", "/nothing", headers=token).code == "not_found"
        assert server.predict(encoded()).code == "unauthorized"
        assert server.workers() == []
        server.process.terminate()
        assert server.process.wait(20) == 0
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
        assert [line["code"] for line in lines if "code" in line] == ["not_found", "unauthorized"]


def test_the_server_of_the_image_with_several_workers_is_bentoml_s(home: Path, tiny_artifact: Path) -> None:
    command = (sys.executable, "-m", "trainer.serving", str(bento_at(home)))
    path = f"{BENTOML.parent}:{os.environ['PATH']}"
    with serving(tiny_artifact, home, command=command, TRAINER_WORKERS="2", PATH=path) as server:
        assert_same(server.predict(encoded()).value, expected(encoded(), tiny_artifact))
        assert len(server.workers()) >= 2


@pytest.mark.parametrize("share", ["0", "1.1", "half"])
def test_a_start_share_is_above_0_and_at_most_1(share: str) -> None:
    command = [sys.executable, "-m", "trainer.serving", ".", f"--start-share={share}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"invalid share value: '{share}'" in done.stderr


def test_the_modules_of_the_service_are_packed_and_no_others(home: Path) -> None:
    source = bento_at(home) / "src"
    files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert {"service.py", "trainer/artifact/engine.py", "trainer/serving/ui.html"} <= files
    assert {"requirements-serve.lock", "requirements-serve-tracing.lock"} <= files
    packed = {Path(file.split("/")[1]).stem for file in files if file.startswith("trainer/")}
    code = "import sys, service; print(*(name for name in sys.modules if name.startswith('trainer.')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert packed == {"__init__", *(module.split(".")[1] for module in done.stdout.split())}


def test_the_dockerfile_can_be_made_from_any_folder(home: Path, tmp_path: Path) -> None:
    """With the command `bentoml` as this package corrects it."""
    made = make_dockerfile(home, tmp_path, "import bentoml_cli.cli; ")
    assert made.returncode == 0, made.stderr
    base = yaml.safe_load((PROJECT / "bentofile.yaml").read_text())["docker"]["base_image"]
    assert made.stdout.count(f"FROM {base}") == 3
    assert f'org.opencontainers.image.version="{(home / "pinned").read_text()}"' in made.stdout


def test_bentoml_issue_5566_is_still_there(home: Path, tmp_path: Path) -> None:
    """Where this fails, `trainer/containerize.py` and its entry point can go."""
    made = make_dockerfile(home, tmp_path, "")
    assert "Accessing file outside of current working directory is not allowed" in made.stderr


def make_dockerfile(home: Path, folder: Path, before: str) -> subprocess.CompletedProcess[str]:
    """Run the steps of `bentoml containerize` before Docker, in `folder`."""
    code = before + (
        "import bentoml; from bentoml._internal.container import construct_containerfile as make\n"
        "with make(bentoml.get('classifier:latest')) as (_, file): print(open(file).read())"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(home), capture_output=True, text=True, check=False
    )


def test_the_image_has_the_versions_that_are_tested() -> None:
    def versions(file: str) -> set[str]:
        return set(re.findall(r"^[a-z0-9-]+==[^ ;]+", (PROJECT / file).read_text(), re.MULTILINE))

    packed = versions("requirements-serve.lock")
    assert packed < versions("requirements-serve-tracing.lock") < versions("requirements.lock")
    names = {version.split("==")[0] for version in packed}
    assert {"bentoml", "ai-edge-litert", "pillow"} <= names
    assert not names & {"tensorflow", "wandb", "typer", "optuna", "matplotlib", "scikit-learn"}
