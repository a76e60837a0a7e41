from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import call
from expected_answers import encoded, expected
from server import Server, publish

from trainer.artifact import store
from trainer.cli import run
from trainer.predict.table import COLUMNS, cell
from trainer.text import UNPRINTABLE

pytestmark = pytest.mark.usefixtures("in_tmp_path")

TABLE = Path("answers.csv")


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def make_images(count: int, folder: str = "images") -> list[str]:
    """Write `count` images into a folder → their paths."""
    Path(folder).mkdir()
    paths = [f"{folder}/{number:03}.png" for number in range(count)]
    for path in paths:
        Path(path).write_bytes(encoded())
    return paths


def mark_rows() -> None:
    """Change the label in each row: one that is predicted again loses the mark."""
    marked = [row | {"label": "mark"} for row in rows(TABLE.read_text())]
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(marked)


@pytest.fixture(scope="module")
def home(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two versions of the model `tiny`. Read only."""
    home = tmp_path_factory.mktemp("home")
    for _ in range(2):
        publish(tiny_artifact, home)
    return home


@pytest.fixture
def tags(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The versions' tags, the promoted one first."""
    monkeypatch.setenv("BENTOML_HOME", str(home))
    return [model.tag for model in store.models()]


def test_each_image_has_a_row(tags: list[str], tiny_artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = make_images(2)
    Path(bad).write_bytes(b"no image")
    assert run(["predict", "tiny", "images", "--csv", str(TABLE)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "error: 1 of 2 images have no answer: see the column error of answers.csv\n"
    wanted = expected(encoded(), tiny_artifact)
    first, second = rows(TABLE.read_text())
    assert list(first) == [
        *("path", "label", "probability", "known", "label_2", "probability_2", "label_3", "probability_3"),
        *("label_4", "probability_4", "label_5", "probability_5", "model", "error"),
    ]
    assert (first["path"], first["model"], first["error"]) == (good, tags[0], "")
    assert first["known"] == str(wanted["known"]).lower()
    labels = [first[name] for name in COLUMNS if name.startswith("label")]
    probabilities = [float(first[name]) for name in COLUMNS if name.startswith("probability")]
    assert labels == [score["label"] for score in wanted["top"]]
    assert probabilities == pytest.approx([score["probability"] for score in wanted["top"]], abs=2e-6)
    assert second == dict.fromkeys(COLUMNS, "") | {"path": bad, "model": tags[0], "error": second["error"]}
    assert second["error"].startswith("not an image of a supported type: ")

    assert run(["predict", "tiny", good, "--csv", "-"]) == 0
    assert rows(capsys.readouterr().out) == [first]


@pytest.mark.usefixtures("tags")
def test_a_table_is_continued_and_its_half_row_mended(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "trainer")
    paths = make_images(5)
    Path(paths[1]).write_bytes(b"no image")
    command = ["predict", "tiny", "images", f"--csv={TABLE}"]
    assert run(command) == 2
    whole = TABLE.read_bytes()
    mark_rows()
    marked = TABLE.read_bytes()
    lines = marked.splitlines(keepends=True)
    # Stopped within a row: whatever is left of it, the table ends as if it had not been stopped.
    Path(paths[1]).write_bytes(encoded())  # mended meanwhile: it is tried again
    for cut in (1, 10, len(lines[4]) - 1):
        TABLE.write_bytes(b"".join(lines[:4]) + lines[4][:cut])
        caplog.clear()
        assert run(command) == 0
        found = rows(TABLE.read_text())
        assert [row["path"] for row in found] == [paths[0], paths[2], paths[1], paths[3], paths[4]]
        assert [row["label"] == "mark" for row in found] == [True, True, False, False, False]
        assert "answers.csv has answers for 2 images already" in caplog.messages
        assert caplog.messages[-1] == "answers.csv: answers for 5 images"
    # Stopped within the header, or before it.
    for cut in (0, 1, 20):
        Path(paths[1]).write_bytes(b"no image")
        TABLE.write_bytes(whole[:cut])
        assert run(command) == 2
        assert TABLE.read_bytes() == whole
    # A spreadsheet has saved it.
    TABLE.write_bytes(b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n"))
    assert run(command) == 2
    assert TABLE.read_bytes().startswith(b"path,label")
    assert {row["path"] for row in rows(TABLE.read_text())} == set(paths)


def test_a_file_of_something_else_is_left_as_it_is(tags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    new, old = tags
    make_images(1)
    command = ["predict", "tiny", "images", f"--csv={TABLE}"]
    assert run(command) == 0
    row = TABLE.read_bytes()
    for content in (b"my notes", b"image,label\na.png,cat\n", row + b"a,b\n", row + b'"\n', row[:30] + b"\xff\n"):
        TABLE.write_bytes(content)
        assert run(command) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: --csv: "), content
        assert "is not a table of `trainer predict`; name another file" in error
        assert TABLE.read_bytes() == content
    row = row.replace(new.encode(), old.encode())
    TABLE.write_bytes(row)
    assert run(command) == 2
    message = f"answers.csv has answers of {old}, and the model is {new} now; name another file, or {old} as the model"
    assert message in capsys.readouterr().err
    assert TABLE.read_bytes() == row
    assert run(["predict", old, "images", f"--csv={TABLE}"]) == 0
    Path("folder").mkdir()
    reasons = {"folder": "Is a directory", "images/000.png/x.csv": "Not a directory", "no/x.csv": "No such file"}
    for name, reason in reasons.items():
        assert run(["predict", "tiny", "images", f"--csv={name}"]) == 2
        assert capsys.readouterr().err.startswith(f"error: --csv: {name} cannot be written: {reason}")
    assert run(["predict", "tiny", "images", f"--csv={TABLE}", "--json"]) == 2
    assert "error: --csv and --json: " in capsys.readouterr().err


@pytest.mark.usefixtures("tags")
def test_names_are_printable_and_no_formulas() -> None:
    names = [b"=cmd|' C calc'!A0.png", b"+1.png", b"-1.png", b"@x.png", b"'=1.png", "＝1.png".encode()]
    names += [b'a,b;"c"\t.png', b"line\r\nfeed,\x1b[2J.png", b"not utf-8 \xff.png", "日本 é.png".encode()]
    for name in names:
        Path(os.fsdecode(name)).write_bytes(encoded())
    assert run(["predict", "tiny", ".", f"--csv={TABLE}"]) == 0
    lines = TABLE.read_bytes().decode().splitlines()
    assert len(lines) == 1 + len(names)
    assert not any(UNPRINTABLE.search(line) for line in lines)
    found = [row["path"] for row in rows(TABLE.read_text())]
    assert not any(path.startswith(("=", "+", "-", "@", "＝")) for path in found)
    assert {"'=cmd|' C calc'!A0.png", "''=1.png", 'a,b;"c"\\t.png', r"not utf-8 \udcff.png", "日本 é.png"} <= set(found)
    assert len(set(found)) == len(names)
    written = TABLE.read_bytes()
    assert run(["predict", "tiny", ".", f"--csv={TABLE}"]) == 0  # every one is found again
    assert TABLE.read_bytes() == written
    assert cell("=1") != cell("'=1")


def test_ctrl_c_leaves_a_whole_table_which_the_same_command_continues(home: Path) -> None:
    paths = make_images(36)
    os.mkfifo("images/pipe")  # its reader waits, so that the command is stopped there and nowhere else
    command = [sys.executable, "-m", "trainer", "predict", "tiny", "images", "images/pipe", f"--csv={TABLE}"]
    variables = os.environ | {"BENTOML_HOME": str(home)}
    with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True) as process:
        while not TABLE.exists() or TABLE.read_text().count("\n") < 33:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.stderr
        assert process.stderr.readline() == "SIGINT: stopped; run the same command again to continue\n"
        Path("images/pipe").write_bytes(encoded())
        assert process.wait(30) == 130
    assert [row["path"] for row in rows(TABLE.read_text())] == paths[:32]
    os.unlink("images/pipe")
    mark_rows()
    done = subprocess.run([*command[:6], command[7]], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "answers.csv has answers for 32 images already" in done.stderr
    found = rows(TABLE.read_text())
    assert [row["path"] for row in found] == paths
    assert [row["label"] == "mark" for row in found] == [True] * 32 + [False] * 4


def test_a_server_answers_for_a_table(tiny_server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    paths = make_images(3)
    Path(paths[2]).write_bytes(b"no image")
    command = ["predict", "--url", tiny_server.url, "images"]
    assert run([*command, f"--csv={TABLE}"]) == 2
    found = rows(TABLE.read_text())
    assert [row["path"] for row in found] == paths
    assert {row["model"] for row in found} == {tiny_server.tag}
    code, answers, _ = call(*command, "--json", capsys=capsys)
    assert (code, [answer["label"] for answer in answers]) == (2, [row["label"] for row in found[:2]])
    assert found[2]["error"].startswith("not an image of a supported type")
    TABLE.write_text(TABLE.read_text().replace(tiny_server.tag, "tiny:other"))
    assert run([*command, f"--csv={TABLE}"]) == 2
    assert f"has answers of tiny:other, and the model is {tiny_server.tag} now" in capsys.readouterr().err
