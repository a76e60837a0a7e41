"""Documentation: links, file and test names are right; the commands of the README and the example run as written."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from server import PROJECT, Server, wait_until_ready

README = PROJECT / "README.md"
EXAMPLE = PROJECT / "docs" / "example.md"
TRAINER = PROJECT / "trainer"
PAGES = (README, PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md")))
IMAGES = PROJECT.parent / "shared" / "data" / "cifar10_folder"
CLASSES = ("cat", "dog", "horse")
BIN = Path(sys.executable).parent

# Prefixes of commands that are not run here, and why.
NOT_RUN = {
    "make demo": "installs everything once more",
    "source": "the tests run in the environment already",
    "bentoml containerize": "needs Docker: test_container.py",
    "docker": "needs Docker: test_container.py",
    "make deploy": "needs Docker: test_container.py",
    "python -c": "needs the network",
    "trainer fit --dataset tfds:mnist": "takes minutes: test_real_mnist.py",
}
# Expected output of the other commands, by prefix: a command in neither table fails the test.
EXPECTED_OUTPUT = {
    "trainer data inspect": r"180 images of .*\n(.*\n)*0 rejected, 0 ignored",
    "trainer fit": r"report in runs/\S+/report/report\.html\n(good|doubtful|bad): right \d+ (.*\n)+saved as photos:",
    "trainer models": r"│ photos:",
    "trainer predict": rf"some-image\.jpg: ({'|'.join(CLASSES)}) \(\d",
    "trainer evaluate": r"test accuracy [\d.]+%, .* report in report/photos-\w+/report\.html",
    "cp": r"^$",
    "trainer sweep": r"\w+ in runs/sweep-\w+-\w+/sweep\.html",
    "bentoml build": r"Successfully built Bento",
    "curl": r'^{"label":"\w+","index":\d',
}
# The sweep files are shortened, to save minutes: file → its parts and what replaces them.
SHORTENED = {
    "photos.yaml": (("[0.0001, 0.0003, 0.001]", "[0.0003]"), ("value: 3\n", "value: 1\n")),
    "grid.yaml": (("value: 5\n", "value: 1\n"),),
}
INTERRUPTED = "# Ctrl-C"  # comment of a command that is stopped after its first epoch; the next one continues


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of a page's code blocks, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    return [line for language, text in blocks(page) if language == "sh" for line in lines(text)]


def lines(text: str) -> list[str]:
    """Commands of a code block; a backslash at the end of a line continues the command."""
    return text.replace("\\\n", "").splitlines()


class Reader:
    """Runs the commands of a page in a separate folder; stops the server that it started."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.environment = os.environ | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "BENTOML_HOST": "127.0.0.1",
            "BENTOML_PORT": str(port),
        }
        self.server: Server | None = None
        self.answer: dict[str, Any] = {}  # last response of the server
        self.interrupted = False  # whether the last command was

    def follow(self, page: Path) -> None:
        for language, text in blocks(page):
            mine = text.replace(":3000", f":{self.port}")
            if language == "sh":
                for command in lines(mine):
                    self.type(command)
            elif language == "python":
                assert self.run([sys.executable, "-c", mine]).strip() in self.labels()
            elif language == "json":
                assert list(self.answer) == list(json.loads(mine))

    def type(self, command: str) -> None:
        if command.startswith(tuple(NOT_RUN)):
            return
        if command.startswith(("trainer serve", "bentoml serve")):
            self.serve(command)
            return
        if INTERRUPTED in command:
            self.interrupt(command)
            return
        output = self.run(["bash", "-euo", "pipefail", "-c", command])
        (expected,) = (EXPECTED_OUTPUT[start] for start in EXPECTED_OUTPUT if command.startswith(start))
        assert re.search(expected, output, re.MULTILINE), f"{command}\n{output}"
        if command.startswith("curl"):
            self.answer = json.loads(output)
            assert self.answer["label"] in self.labels()

    def run(self, command: list[str]) -> str:
        """Runs a command that must succeed; returns its stdout."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
        assert ("continuing at step" in done.stderr) == self.interrupted, done.stderr
        self.interrupted = False
        return done.stdout

    def interrupt(self, command: str) -> None:
        # A process group of its own: Ctrl-C reaches all of it, as in a terminal.
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stderr
        with process.stderr as log:
            printed = []
            for line in log:
                printed.append(line)
                if "epoch 1/" in line:
                    os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130, "".join(printed)
        assert printed[-2] == "SIGINT: stopped; run the same command again to continue\n"
        assert printed[-1].startswith("next: trainer fit --resume runs/")
        self.interrupted = True

    def serve(self, command: str) -> None:
        self.close()
        log = self.folder / "serve.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.server = Server(self.port, "", process, log)
        wait_until_ready(self.server)

    def labels(self) -> list[str]:
        assert self.server
        return list(self.server.ask("GET", "/model").value["labels"])

    def close(self) -> None:
        if self.server:
            self.server.process.terminate()
            self.server.process.wait(30)


@contextmanager
def reader(folder: Path, port: int, *, width: int) -> Iterator[Reader]:
    """Reader in a copy of the project with 60 photos of this width per class. Deletes the runs, which are large."""
    shutil.copytree(
        PROJECT,
        folder,
        ignore=lambda parent, names: [
            name
            for name in names
            if name.startswith(".")
            or name == "__pycache__"
            or (Path(parent) == PROJECT and name in ("runs", "wandb", "report"))
        ],
    )
    for label in CLASSES:
        (folder / "photos" / label).mkdir(parents=True)
        for image in sorted((IMAGES / "train" / label).iterdir())[:60]:
            photo(image, width).save(folder / "photos" / label / image.name)
    photo(min((IMAGES / "test" / CLASSES[0]).iterdir()), width).save(folder / "some-image.jpg")
    for name, changes in SHORTENED.items():
        file = folder / "sweeps" / name
        for old, new in changes:
            assert old in file.read_text()
            file.write_text(file.read_text().replace(old, new))
    page_reader = Reader(folder, port)
    try:
        yield page_reader
    finally:
        page_reader.close()
        shutil.rmtree(folder / "runs", ignore_errors=True)


def photo(file: Path, width: int) -> Image.Image:
    return Image.open(file).resize((width, width * 3 // 4))


# 32 pixels take the network for small images; 320 stand for a phone's photos.
@pytest.mark.slow
@pytest.mark.docs
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not IMAGES.is_dir(), reason="the CIFAR-10 folder is not beside the checkout")
@pytest.mark.parametrize(("page", "width"), [(README, 32), (EXAMPLE, 320)], ids=["README", "example"])
def test_commands_of_a_page_run(page: Path, width: int, tmp_path: Path, unused_ports: list[int]) -> None:
    with reader(tmp_path / "project", unused_ports[0], width=width) as page_reader:
        page_reader.follow(page)
        assert page_reader.labels() == list(CLASSES)


def test_both_tables_name_only_commands_of_the_pages() -> None:
    all_commands = commands(README) + commands(EXAMPLE)
    prefixes = (*NOT_RUN, *EXPECTED_OUTPUT)
    assert [start for start in prefixes if not any(line.startswith(start) for line in all_commands)] == []


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_have_a_target(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?://)([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


# decisions.md also names files that were deleted.
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "decisions.md"], ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    named = re.findall(r"`((?:\w+/)+(?:[\w.-]+\.\w+)?)`", page.read_text())
    roots = (PROJECT, TRAINER)
    ours = [name for name in named if any((root / name.split("/")[0]).is_dir() for root in roots)]
    assert [name for name in ours if not any((root / name).exists() for root in roots)] == []


def anchors(page: Path) -> list[str]:
    """Anchors of a page's headings, as GitHub forms them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_every_row_of_bad_input_names_an_existing_test() -> None:
    named = re.findall(r"`(tests/\S+\.py)::(\w+)`", (PROJECT / "docs" / "bad-input.md").read_text())
    assert len(named) > 30
    assert [(file, test) for file, test in named if f"def {test}(" not in (PROJECT / file).read_text()] == []
