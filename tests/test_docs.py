"""The commands of the README and of the worked example, run as they stand; and the links of all pages."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest

from trainer.data.digits import DigitsSource

PROJECT = Path(__file__).parents[1]
README = PROJECT / "README.md"
EXAMPLE = PROJECT / "docs" / "example.md"
PAGES = [README, *sorted((PROJECT / "docs").glob("*.md"))]
CIFAR = PROJECT.parent / "shared" / "data" / "cifar10_folder" / "train"
BIN = Path(sys.executable).parent
# Commands that are not run here, by how they begin, and why.
NOT_RUN = {
    "make demo": "CI would set up a second time; the same script is tested by itself",
    "make test": "these are the tests",
    "bentoml containerize": "test_container.py",
    "docker": "test_container.py",
    "make deploy": "test_container.py",
    "make rollout": "test_container.py",
    "make rollback": "test_container.py",
    "kubectl": "needs a cluster",
    "(cd deploy/kubernetes/sweep": "needs kustomize",
    "trainer sweep sweeps/random.yaml --storage postgresql": "needs a database",
}


def blocks(page: Path, language: str = "sh") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A copy of the project's files, as a clone has them, with a photo that the pages speak of."""
    wanted = "*.md", "*.yaml", "*.py", "*.lock", "pyproject.toml"
    for file in (file for pattern in wanted for file in PROJECT.glob(pattern)):
        shutil.copy(file, tmp_path)
    for folder in ("trainer", "sweeps", "deploy", "scripts"):
        shutil.copytree(PROJECT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@contextmanager
def answering(command: str, folder: Path, port: int) -> Iterator[None]:
    """`bentoml serve …` until the end of the page."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command} --host 127.0.0.1 --port {port}"],
        cwd=folder,
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert process.poll() is None, command
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(30)


def bash(script: str, folder: Path, *, interrupt: bool = False) -> tuple[int, str]:
    """The exit code and all that it prints; or interrupted as with Ctrl-C after the first epoch."""
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", f"exec {script}" if interrupt else script],
        cwd=folder,
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    printed = []
    for line in process.stdout:
        printed.append(line)
        if interrupt and "epoch 1/" in line:
            process.send_signal(signal.SIGINT)
    process.stdout.close()
    return process.wait(), "".join(printed)


def run_page(page: Path, folder: Path) -> str:
    """Run every block in the page's order; a block that comes twice is interrupted the first time. All output."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    scripts = blocks(page)
    output = ""
    servers = []
    try:
        for index, block in enumerate(scripts):
            lines = []
            for line in block.replace(":3000", f":{port}").splitlines():
                if line.startswith("bentoml serve"):
                    server = answering(line.partition("#")[0], folder, port)
                    server.__enter__()
                    servers.append(server)
                elif not line.startswith(tuple(NOT_RUN)):
                    lines.append(line)
            interrupt = block in scripts[index + 1 :]
            code, printed = bash("\n".join(lines), folder, interrupt=interrupt)
            assert code == (130 if interrupt else 0), f"{block}\n{printed}"
            output += printed
        for block in blocks(page, "python"):
            program = block.replace(":3000", f":{port}")
            done = subprocess.run(
                [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            output += done.stdout
    finally:
        for server in servers:
            server.__exit__(None, None, None)
    return output


@pytest.mark.slow
@pytest.mark.docs
@pytest.mark.timeout(1200)
def test_the_readme_s_commands(workplace: Path) -> None:
    for index, example in enumerate(islice(DigitsSource().examples(), 300)):
        if (digit := str(example.label)) in "147":
            folder = workplace / "photos" / f"digit-{digit}"
            folder.mkdir(parents=True, exist_ok=True)
            assert isinstance(example.data, bytes)
            (folder / f"{index}.png").write_bytes(example.data)
    (workplace / "some-picture.jpg").write_bytes(next((workplace / "photos" / "digit-4").iterdir()).read_bytes())
    output = run_page(README, workplace)
    assert output.count('"label":"digit-4"') == 1  # curl
    assert output.count("'label': 'digit-4'") == 1  # Python
    assert "Successfully built Bento" in output


@pytest.mark.slow
@pytest.mark.docs
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not CIFAR.is_dir(), reason="no folder of colour pictures beside the checkout")
def test_the_worked_example(workplace: Path) -> None:
    for name in ("airplane", "frog", "ship"):
        (workplace / "photos" / name).mkdir(parents=True)
        for file in islice(sorted((CIFAR / name).iterdir()), 120):
            shutil.copy(file, workplace / "photos" / name)
    shutil.copy(next((CIFAR / "frog").iterdir()), workplace / "some-picture.jpg")
    output = run_page(EXAMPLE, workplace)
    assert "continuing at step" in output
    assert (workplace / "runs" / "photos" / "report" / "report.html").is_file()
    (answer,) = re.findall(r'"label":"(\w+)".*"model":"photos:', output)
    assert answer in ("airplane", "frog", "ship")


def test_what_is_not_run_is_there() -> None:
    lines = [line for page in (README, EXAMPLE) for block in blocks(page) for line in block.splitlines()]
    assert [start for start in NOT_RUN if not any(line.startswith(start) for line in lines)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [heading.lower().replace(" ", "-") for heading in headings], target
