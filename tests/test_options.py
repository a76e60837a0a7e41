from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from trainer.config import FitConfig, InputError, option, searchable
from trainer.options import with_options


@dataclass(frozen=True)
class Extended(FitConfig):
    """What a contributor does to add an option: one field."""

    smoothing: float = option(0.1, low=0.0, high=0.5, help="Of the labels.")


def called(*arguments: str) -> tuple[Extended, bool]:
    """Run a command that has the options of `Extended` and one of its own; what it was given."""
    given = []
    app = typer.Typer()

    @app.command()
    @with_options(Extended)
    def command(config: Extended, loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
        given.append((config, loud))

    result = CliRunner().invoke(app, ["--dataset=builtin:digits", *arguments], catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    if not given:
        pytest.fail(result.output)
    return given[0]


def test_a_new_field_is_an_option_everywhere() -> None:
    config, loud = called("--smoothing=0.2", "--image-size=24x32", "--no-save", "--loud")
    assert (config.smoothing, config.image_size, config.save, loud) == (0.2, (24, 32), False, True)
    assert config.command() == ["trainer", "fit", "--dataset=builtin:digits", "--image-size=24x32", "--smoothing=0.2"]
    assert config.decisive()["smoothing"] == 0.2
    assert config.hash() != Extended("builtin:digits").hash()
    assert "smoothing" in searchable(Extended)
    assert {"run_dir", "resume"}.isdisjoint(searchable(Extended))
    assert called()[0] == Extended("builtin:digits")


def test_its_value_is_checked() -> None:
    with pytest.raises(InputError, match=r"--smoothing: 0\.9 is out of range; 0 to 0\.5 is expected"):
        called("--smoothing=0.9")


def test_its_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"--smoothing[\s\S]*Of the labels\."):
        called("--help")
