from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.main import get_command

from trainer.cli import app, run
from trainer.cli_options import flags, normalize_arguments, with_options
from trainer.config import FitConfig
from trainer.errors import InputError
from trainer.option_fields import option, searchable


@dataclass(frozen=True)
class Extended(FitConfig):
    """What a contributor does to add an option: one field."""

    smoothing: float = option(0.1, low=0.0, high=0.5, help="Of the labels, up to {high:g}.")
    tilt: str = option("auto", choices=("auto", "on", "off"), help="Tilt images: {choices}.")
    averaged: bool = option(True, help="The weights.")


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Extended, bool]]:
    """`run` runs a command that has the options of `Extended` and one of its own; what it was given."""
    calls: list[tuple[Extended, bool]] = []
    extended = typer.Typer()

    @extended.command()
    @with_options(Extended)
    def command(config: Extended, loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
        calls.append((config, loud))

    monkeypatch.setattr("trainer.cli.app", extended)
    return calls


def test_a_new_field_is_an_option_everywhere(given: list[tuple[Extended, bool]]) -> None:
    options = ["--image-size=24x32", "--smoothing=0.2", "--tilt=off", "--averaged=False"]
    assert run(["--dataset=builtin:digits", *options, "--no-save", "--loud"]) == 0
    ((config, loud),) = given
    assert (config.smoothing, config.tilt, config.averaged) == (0.2, "off", False)
    assert (config.image_size, config.save, loud) == ((24, 32), False, True)
    assert config.command() == ["trainer", "fit", "--dataset=builtin:digits", *options]
    assert config.decisive()["smoothing"] == 0.2
    assert config.hash() != Extended("builtin:digits").hash()
    assert {"smoothing", "tilt", "averaged"} <= set(searchable(Extended))
    assert {"run_dir", "resume"}.isdisjoint(searchable(Extended))


def test_what_is_not_given_is_the_default(given: list[tuple[Extended, bool]]) -> None:
    assert run(["--dataset=builtin:digits"]) == 0
    assert given == [(Extended("builtin:digits"), False)]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--smoothing=0.9", "error: --smoothing: 0.9 is out of range; 0 to 0.5 is expected\n"),
        ("--tilt=of", "error: --tilt: 'of' is not one of auto, off, on; did you mean off?\n"),
        ("--averaged=maybe", "error: --averaged: 'maybe' is neither true nor false\n"),
    ],
)
def test_its_value_is_checked(
    argument: str, message: str, given: list[tuple[Extended, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--dataset=builtin:digits", argument]) == 2
    assert capsys.readouterr().err == message
    assert given == []


@pytest.mark.usefixtures("given")
def test_its_help_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert run(["--help"]) == 0
    lines = [" ".join(line.strip("│ ").split()) for line in capsys.readouterr().out.splitlines()]
    assert "--smoothing <float> Of the labels, up to 0.5. [default: 0.1]" in lines
    assert "--tilt <str> Tilt images: auto, on or off. [default: auto]" in lines
    assert "--averaged --no-averaged <bool> The weights. [default: averaged]" in lines


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
        (["--debug=true", "--version=true"], ["--debug=true", "--version=true"]),  # no command's
        (["fit", "--_wandb={}", "--_wandb_x=1", "--epochs=1"], ["fit", "--epochs=1"]),
        (["fit", "--wandb_x=1"], ["fit", "--wandb-x=1"]),
        (["--debug", "fit"], ["fit"]),
        (["predict", "m", "--", "--debug_x"], ["predict", "m", "--", "--debug_x"]),
    ],
)
def test_one_spelling(given: list[str], normal: list[str]) -> None:
    assert normalize_arguments(given, flags(get_command(app))) == normal


@pytest.mark.parametrize("words", [["digits"], ["--dataset", "digits"], ["--dataset=digits", "digits"]])
def test_the_data_set_may_stand_first(words: list[str], given: list[tuple[Extended, bool]]) -> None:
    assert run([*words, "--seed=1"]) == 0
    assert given == [(Extended("digits", seed=1), False)]


def test_a_boolean_that_is_none() -> None:
    with pytest.raises(InputError, match="--save: 'maybe' is neither true nor false"):
        normalize_arguments(["--save=maybe"], {"save": "--no-save"})
