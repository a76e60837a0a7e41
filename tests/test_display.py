from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from trainer.config import Interrupted
from trainer.console import print_next, print_saved, serve_command
from trainer.display import TrainingDisplay


def test_signals_wait_only_while_deferred() -> None:
    with TrainingDisplay() as display:
        with display.defer_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(Interrupted) as caught:
                display.check_interrupted()
        assert caught.value.exit_code == 143
        with pytest.raises(Interrupted) as caught:
            os.kill(os.getpid(), signal.SIGINT)
        assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_closing_line_is_on_stderr_and_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    print_next("trainer", "fit", "--dataset", Path("my pictures"))
    print_next(*serve_command("digits:v1"))
    printed = capsys.readouterr()
    assert printed.err == "next: trainer fit --dataset 'my pictures'\nnext: bentoml serve --arg model=digits:v1\n"
    assert printed.out == ""


@pytest.mark.parametrize(
    ("worse_than", "command"),
    [(None, "bentoml serve --arg model=pets"), ("pets:old", "bentoml models delete pets:new")],
)
def test_what_was_published_is_served_or_taken_back(
    worse_than: str | None, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_saved("pets:new", worse_than)
    printed = capsys.readouterr()
    assert printed.out == "saved as pets:new\n"
    assert printed.err == f"next: {command}\n"
