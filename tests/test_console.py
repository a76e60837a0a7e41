from __future__ import annotations

import errno

import pytest

from trainer.config import InputError, Interrupted, RunError
from trainer.console import fail, normalize_arguments


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        (["fit", "--batch_size=64"], ["fit", "--batch-size=64"]),
        (["fit", "--run_dir", "my_runs"], ["fit", "--run-dir", "my_runs"]),
        (["fit", "--run_dir=a_b"], ["fit", "--run-dir=a_b"]),
        (["fit", "--save=true"], ["fit", "--save"]),
        (["fit", "--save=False"], ["fit", "--no-save"]),
        (["fit", "--no-save=true"], ["fit", "--no-save"]),
        (["fit", "--no_save=false"], ["fit", "--save"]),
        (["fit", "--json=true"], ["fit", "--json"]),
        (["fit", "--json=false"], ["fit"]),
        (["fit", "--_wandb={}", "--_wandb_x=1", "--epochs=1"], ["fit", "--epochs=1"]),
        (["fit", "--wandb_x=1"], ["fit", "--wandb-x=1"]),
        (["--debug", "fit"], ["fit"]),
        (["predict", "m", "--", "--debug_x"], ["predict", "m", "--", "--debug_x"]),
    ],
)
def test_one_spelling(given: list[str], normal: list[str]) -> None:
    assert normalize_arguments(given) == normal


def test_a_boolean_that_is_none() -> None:
    with pytest.raises(InputError, match="--save: 'maybe' is neither true nor false"):
        normalize_arguments(["--save=maybe"])


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
