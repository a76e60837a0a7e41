from __future__ import annotations

import errno
from pathlib import Path

import pytest

from trainer.console import close_with_next, fail, masked, print_next, print_saved, serve_command
from trainer.errors import InputError, Interrupted, RunError


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (InputError("a\nb"), 2, "error: a b\n"),
        (RunError("x"), 3, "error: x\n"),
        (Interrupted("x", 143), 143, "x\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 3, "error: the disk is full"),
        (ValueError("x"), 1, "error: internal error: ValueError: x"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    error: BaseException, code: int, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail(error) == code
    printed = capsys.readouterr().err
    assert printed.startswith(shown)
    assert printed.count("\n") == 1


def test_an_error_closes_with_the_command_that_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    error = RunError("x")
    error.add_note("of another library")
    close_with_next(error, "trainer", "fit", "--resume", "my run")
    assert fail(error) == 3
    assert capsys.readouterr().err == "error: x\nnext: trainer fit --resume 'my run'\n"


def test_the_closing_line_is_on_stderr_and_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    print_next("trainer", "fit", "--dataset", Path("my pictures"))
    print_next(*serve_command("digits:v1"))
    printed = capsys.readouterr()
    assert printed.err == "next: trainer fit --dataset 'my pictures'\nnext: trainer serve digits:v1\n"
    assert printed.out == ""


@pytest.mark.parametrize(
    ("latest", "saved", "command"),
    [
        ("pets:new", "", "trainer serve pets"),
        ("pets:old", ", not promoted; `trainer promote pets:new` promotes it", "trainer serve pets:old"),
        (None, ", not promoted; `trainer promote pets:new` promotes it", "trainer models"),
    ],
)
def test_the_better_version_is_served(
    latest: str | None, saved: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_saved("pets:new", latest)
    printed = capsys.readouterr()
    assert printed.out == f"saved as pets:new{saved}\n"
    assert printed.err == f"next: {command}\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no answer from postgresql://me:s3cret@db:5432/x here", "no answer from postgresql://me:***@db:5432/x here"),
        (
            "'mysql+pymysql://me:a/b@c@db/x?sslpassword=abc&timeout=1'",
            "'mysql+pymysql://me:***@db/x?sslpassword=***&timeout=1'",
        ),
        ("redis://:s3cret@db", "redis://:***@db"),
        (
            "sqlite:///trials.db and http://127.0.0.1:3000/predict",
            "sqlite:///trials.db and http://127.0.0.1:3000/predict",
        ),
        ("csv:my@home.csv?image=file&label=kind", "csv:my@home.csv?image=file&label=kind"),
    ],
)
def test_passwords_of_urls_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown
