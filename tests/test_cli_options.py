from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.main import get_command

from trainer.cli import app, run
from trainer.cli_options import boolean_flags, normalize_arguments, with_options
from trainer.config import FitConfig
from trainer.errors import InputError
from trainer.option_fields import option_field, searchable


@dataclass(frozen=True)
class Extended(FitConfig):
    """A new option is one field."""

    smoothing: float = option_field(0.1, low=0.0, high=0.5, help="Label smoothing, up to {high:g}.")
    tilt: str = option_field("auto", choices=("auto", "on", "off"), help="Tilt images: {choices}.")
    averaged: bool = option_field(True, help="The weights.")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Extended, bool]]:
    """Calls of a command that has the options of `Extended` and one of its own, which `run` runs meanwhile."""
    calls: list[tuple[Extended, bool]] = []
    extended = typer.Typer(rich_markup_mode=None)

    @extended.command()
    @with_options(Extended)
    def command(config: Extended, loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
        calls.append((config, loud))

    monkeypatch.setattr("trainer.cli.app", extended)
    return calls


def test_a_new_field_is_an_option_everywhere(calls: list[tuple[Extended, bool]]) -> None:
    options = ["--image-size=24x32", "--smoothing=0.2", "--tilt=off", "--averaged=False"]
    assert run(["--dataset=builtin:digits", *options, "--no-save", "--loud"]) == 0
    ((config, loud),) = calls
    assert (config.smoothing, config.tilt, config.averaged) == (0.2, "off", False)
    assert (config.image_size, config.save, loud) == ((24, 32), False, True)
    assert config.command() == ["trainer", "fit", "--dataset=builtin:digits", *options]
    assert config.result_settings()["smoothing"] == 0.2
    assert config.hash() != Extended("builtin:digits").hash()
    assert {"smoothing", "tilt", "averaged"} <= set(searchable(Extended))
    assert {"run_dir", "resume"}.isdisjoint(searchable(Extended))


def test_options_have_their_defaults(calls: list[tuple[Extended, bool]]) -> None:
    assert run(["--dataset=builtin:digits"]) == 0
    assert calls == [(Extended("builtin:digits"), False)]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--smoothing=0.9", "error: --smoothing: 0.9 is out of range; 0 to 0.5 is expected\n"),
        ("--tilt=of", "error: --tilt: 'of' is not one of auto, off, on; did you mean off?\n"),
        ("--averaged=maybe", "error: --averaged: 'maybe' is neither true nor false\n"),
    ],
)
def test_the_value_of_a_new_option_is_checked(
    argument: str, message: str, calls: list[tuple[Extended, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--dataset=builtin:digits", argument]) == 2
    assert capsys.readouterr().err == message
    assert calls == []


@pytest.mark.usefixtures("calls")
def test_the_help_of_a_new_option_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert run(["--help"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "--smoothing <float> Label smoothing, up to 0.5. [default: 0.1]" in lines
    assert "--tilt <str> Tilt images: auto, on or off. [default: auto]" in lines
    assert "--averaged / --no-averaged The weights. [default: averaged]" in lines


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
        (["sweep", "--save_best=true", "--retry-failed=false"], ["sweep", "--save-best"]),
        (["--debug=true", "--version=true"], ["--debug=true", "--version=true"]),  # of the program, not of a command
        (["fit", "--_wandb={}", "--_wandb_x=1", "--epochs=1"], ["fit", "--epochs=1"]),
        (["fit", "--wandb_x=1"], ["fit", "--wandb-x=1"]),
        (["--debug", "fit"], ["fit"]),
        (["predict", "m", "--", "--debug_x"], ["predict", "m", "--", "--debug_x"]),
    ],
)
def test_arguments_are_normalized(given: list[str], normal: list[str]) -> None:
    assert normalize_arguments(given, boolean_flags(get_command(app))) == normal


@pytest.mark.parametrize("words", [["digits"], ["--dataset", "digits"], ["--dataset=digits", "digits"]])
def test_the_data_set_may_stand_first(words: list[str], calls: list[tuple[Extended, bool]]) -> None:
    assert run([*words, "--seed=1"]) == 0
    assert calls == [(Extended("digits", seed=1), False)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("photos", "folder:photos"),
        ("folder:./photos/", "photos/../photos"),
        ("~/photos", "folder:~/photos"),
        ("csv:a.csv?label=x", "csv:./a.csv?label=x"),
    ],
)
def test_a_data_set_may_be_named_twice(first: str, second: str, calls: list[tuple[Extended, bool]]) -> None:
    assert run([first, "--dataset", second]) == 0
    assert calls == [(Extended(first), False)]


@pytest.mark.parametrize("words", [["a", "--dataset=b"], ["csv:a", "--dataset=folder:a"], ["tfds:a", "--dataset=a"]])
def test_two_data_sets_are_refused(
    words: list[str], calls: list[tuple[Extended, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    assert f"--dataset: both {words[0]!r}" in capsys.readouterr().err
    assert calls == []


def test_a_flag_that_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(InputError, match="--save: 'maybe' is neither true nor false"):
        normalize_arguments(["--save=maybe"], {"save": "--no-save"})
