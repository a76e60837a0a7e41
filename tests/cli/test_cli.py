from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import FIT, call, make_folder, next_command, write_digit

from trainer.artifact import store
from trainer.cli import app, run
from trainer.data.cache.entries import cache_dir

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def test_bad_arguments_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_digit(tmp_path / "digit.png", 0)
    for command, part in (
        (["predict", "nothing", "digit.png"], "trainer fit"),
        (["predict", "digit.png"], "trainer predict MODEL IMAGE"),
        (["predict", "--url", "http://127.0.0.1:1", "digit.png"], "no answer from http://127.0.0.1:1"),
        (["evaluate", "nothing", "--dataset", "builtin:digits"], "trainer fit"),
        (["evaluate", "x", "a", "--dataset", "b"], "--dataset: both 'a' and 'b' are given; one is expected"),
        (["evaluate", "x", "--dataset", "builtin:digits", "--engine=torch"], "--engine: 'torch' is not one of"),
        (["save", "."], "no run folder"),
        (["promote", "nothing"], "trainer fit"),
        (["data", "inspect", "absent"], "absent"),
        (["fit"], "--dataset is missing: expected tfds:NAME, folder:PATH, a path, csv:FILE, or builtin:digits"),
        (["train", "builtin:digits"], "no such command: train; did you mean fit?"),
        (["compare", "nothing"], "trainer fit"),
        (["evalute"], "did you mean evaluate?"),
        (["inspect", "photos"], "did you mean data inspect?"),
        (["data", "inspect"], "--dataset is missing: expected tfds:NAME"),
        (["data", "inspekt"], "did you mean inspect?"),
    ):
        code, _, errors = call(*command, capsys=capsys)
        assert code == 2, command
        assert part in errors.strip().splitlines()[-1], command


def test_each_command_names_the_next_one(
    tiny_artifact: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO, "trainer")
    first = "trainer fit --dataset builtin:digits"
    assert next_command("models", capsys=capsys) == first
    kept = store.find(store.publish(tiny_artifact, "kept", lambda latest: ["worse"]))
    assert next_command("models", capsys=capsys) == f"trainer promote {kept.tag}"
    shutil.rmtree(kept.path.parent)
    folder = make_folder(tmp_path / "my images", {"cat": 30, "dog": 30}, gray=True)
    assert next_command("data", "inspect", folder, capsys=capsys) == f"trainer fit --dataset '{folder}'"
    with_options = next_command("data", "inspect", "builtin:digits", "--data-dir", "d", capsys=capsys)
    assert with_options == "trainer fit --dataset builtin:digits --data-dir d"

    quick = ("--epochs=1", "--flip=off", "--quantize=none")
    fit = ("fit", folder, *quick, "--wandb=disabled", "--run-dir=run")
    assert next_command(*fit, "--no-save", capsys=capsys) == "trainer save run"
    served = "trainer serve "
    # The images are noise, and the model guesses.
    assert next_command("save", "run", "--promote", capsys=capsys) == f"{served}my-images"
    (saved,) = store.models()
    tag = saved.tag
    assert next_command("promote", tag, capsys=capsys) == f"{served}my-images"
    assert next_command("models", capsys=capsys) == served + tag
    assert next_command("predict", "my-images", folder / "cat" / "0.png", capsys=capsys) == f"{served}my-images"
    Path("report").touch()  # no folder of this name can be made
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert next_command("evaluate", tag, folder, capsys=capsys) == served + tag
    (report,) = tmp_path.glob("trainer-report-*/report.html")
    assert f"{Path('report').absolute()} cannot be written: the report goes to {report.parent}" in caplog.messages
    assert next_command(*fit, capsys=capsys) == f"{served}my-images"  # finished, and its model is in the store already
    assert next_command("save", "run", "--promote", capsys=capsys) == f"{served}my-images"
    assert store.models() == [store.find("my-images")]  # the same version again
    assert f"saved already as {tag}: no other version is made" in caplog.text
    assert run(["cache", "info"]) == 0
    entries = len([path for path in cache_dir().iterdir() if path.is_dir()])
    size = sum(path.stat().st_size for path in cache_dir().glob("*/*"))
    assert capsys.readouterr().out == f"{cache_dir()}: {entries} entries, {size / 1e6:.0f} MB\n"
    assert run(["cache", "prune"]) == 0
    assert capsys.readouterr() == (f"{entries} entries deleted, {size / 1e6:.0f} MB freed\n", "")

    answer = {"path": "a b.png", "label": "cat", "probability": 0.5}
    monkeypatch.setattr("trainer.predict.remote.RemoteFiles.predict", lambda *_: iter([answer]))
    remote = next_command("predict", "--url", "http://127.0.0.1:3000/", "a b.png", capsys=capsys)
    assert remote == "curl --data-binary '@a b.png' http://127.0.0.1:3000/predict"


def test_json_output_suggests_no_next_command(
    capsys: pytest.CaptureFixture[str], tiny_artifact: Path, tmp_path: Path
) -> None:
    store.publish(tiny_artifact, "tiny")
    write_digit(tmp_path / "digit.png", 7)
    for command in (
        ["models"],
        ["promote", "tiny"],
        ["predict", "tiny", "digit.png"],
        ["data", "inspect", "builtin:digits"],
    ):
        code, results, errors = call(*command, "--json", capsys=capsys)
        assert (code, len(results)) == (0, 1), command
        assert "next:" not in errors, command


def test_the_error_for_a_user_without_a_home_names_the_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # a user without an entry in the system
    for command in (["models"], ["data", "inspect", "builtin:digits"], ["cache", "prune"], FIT):
        code, _, errors = call(*command, capsys=capsys)
        assert code == 2
        assert errors.startswith("error: the user 54321 has no home folder; set HOME")
    assert list(Path().iterdir()) == []


def commands(path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every group and command by its path; () is the whole program."""
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    found: dict[tuple[str, ...], Any] = {path: command}
    for name in getattr(command, "commands", ()):
        found |= commands((*path, name))
    return found


@pytest.mark.parametrize("path", commands())
def test_the_help_of_each_command_has_an_example_that_parses(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert run([*path, "--help"]) == 0
    (example,) = re.findall(r"Example: trainer (.+?) *\n", capsys.readouterr().out)
    arguments = shlex.split(example)
    assert tuple(arguments[: len(path)]) == path
    leaf = max((other for other in commands() if tuple(arguments[: len(other)]) == other), key=len)
    # Raises a usage error for an unknown option, or an argument too few or too many.
    context = commands()[leaf].make_context(leaf[-1], arguments[len(leaf) :])
    assert leaf == path or len(leaf) == len(path) + 1
    assert context.command.name == leaf[-1]


def test_shell_completion_is_light() -> None:
    code = (
        "import sys; sys.argv = ['trainer']; from trainer.cli import main\n"
        "try: main()\n"
        "finally: assert not {'tensorflow', 'keras', 'wandb', 'bentoml', 'numpy'} & set(sys.modules)"
    )
    for words, expected in (("ev", ["evaluate"]), ("fit --drop", ["--dropout"]), ("data ", ["inspect"])):
        variables = {"_TRAINER_COMPLETE": "complete_bash", "COMP_WORDS": f"trainer {words}"}
        variables["COMP_CWORD"] = str(len(words.split(" ")))
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == expected
        assert done.stderr == ""


def test_light_commands_never_import_tensorflow() -> None:
    code = (
        "import sys; from trainer.cli import run; run(['models']); run(['predict', 'x', 'y']); run(['fit', '--help']);"
        "assert not {'tensorflow', 'keras', 'wandb'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
