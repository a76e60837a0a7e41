"""Thousands of generated command lines and sweep files: each succeeds or is refused; none is an internal error."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.main import get_command

from trainer.cli import app, run
from trainer.errors import InputError
from trainer.sweep.sweep_file import read_spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("in_tmp_path")]

COMMANDS = ("fit", "evaluate", "predict", "models", "save", "sweep", "data inspect", "cache prune", "serve", "fti")
# None can be trained on, so that only the parsing is tested.
DATASETS = (
    "folder:nowhere",
    "nowhere",
    "folder:",
    "csv:",
    "csv:x?image=",
    "csv:x?label=%",
    "tfds:",
    "tfds:a:9",
    "builtin:x",
    "x:y",
    "",
)
WORDS = (
    "0 -1 1e400 nan inf 1e-5 abc 64 64x64 0x0 true None é ../x 10m 1h1m -5s 0s auto int8 none a,b {} $HOME -- - = %s"
)
VALUES = st.sampled_from([*WORDS.split(), "", "9" * 400, "[1, 2]", "`x`", "a b", "\n", "\t", "{0}"]) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12
)
SOME = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def options() -> list[str]:
    """The options of `fit`, some of other commands, and some unknown ones."""
    fit = get_command(app).commands["fit"]  # type: ignore[attr-defined]
    named = [name for parameter in fit.params for name in parameter.opts if name.startswith("--")]
    return [
        *named,
        "--trials",
        "--workers",
        "--json",
        "--engine",
        "--url",
        "--sheet",
        "--epochz",
        "--_wandb",
        "-x",
        "--debug",
    ]


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    arguments = draw(st.sampled_from(COMMANDS)).split()
    if draw(st.booleans()):
        arguments += [f"--dataset={draw(st.sampled_from(DATASETS))}"]
    for _ in range(draw(st.integers(0, 4))):
        option = draw(st.sampled_from(options()))
        if option in ("--dataset", "--help"):
            continue
        value = draw(VALUES)
        arguments += draw(st.sampled_from([[option], [f"{option}={value}"], [option, value], [value]]))
    return arguments


@settings(SOME, max_examples=2500)
@given(arguments=command_lines())
def test_a_command_line_is_done_or_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = run(arguments)
    errors = capsys.readouterr().err
    assert code in (0, 2), errors
    assert "internal error" not in errors
    if code == 2 and "--debug" not in arguments:
        assert "error: " in errors
        assert "Traceback" not in errors


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 10**12)
    | st.floats()
    | st.dates()
    | st.text(max_size=8)
    | st.sampled_from(
        ["1e-5", "1e5", "0x10", "inf", "uniform", "log_uniform_values", "q_uniform", "constant", "folder:nowhere"]
    )
)
JUNK = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
PARAMETER = st.dictionaries(
    st.sampled_from(["value", "values", "min", "max", "distribution", "q", "mu", "sigma", "probabilities", "minn"]),
    SCALARS | st.lists(SCALARS, max_size=4) | JUNK,
    max_size=4,
)
NAMES = [
    "dataset",
    "epochs",
    "learning_rate",
    "learning-rate",
    "seed",
    "limit",
    "image_size",
    "augment",
    "wandb",
    "nothing",
]
SWEEP = st.fixed_dictionaries(
    {},
    optional={
        "name": SCALARS,
        "method": st.sampled_from(["grid", "random", "bayes", "hyperband"]) | JUNK,
        "metric": st.just({"name": "val_accuracy", "goal": "maximize"}) | JUNK,
        "parameters": st.dictionaries(st.sampled_from(NAMES) | SCALARS, PARAMETER | JUNK, max_size=4) | JUNK,
        "command": st.just(["${env}", "trainer", "fit", "${args}"])
        | st.lists(st.sampled_from(["${env}", "${envvar:X}", "${args}", "trainer", "fit", "${"]) | SCALARS, max_size=5)
        | JUNK,
        "run_cap": SCALARS,
        "early_terminate": st.fixed_dictionaries({}, optional={"type": SCALARS, "min_iter": SCALARS, "eta": SCALARS})
        | JUNK,
        "programm": JUNK,
    },
)


def is_read_or_refused(file: Path) -> None:
    with contextlib.suppress(InputError):
        read_spec(file)


@settings(SOME, max_examples=2000)
@given(spec=SWEEP | JUNK)
def test_a_sweep_file_is_read_or_refused(spec: Any, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    try:
        file.write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")
    except (yaml.YAMLError, UnicodeEncodeError):
        return
    is_read_or_refused(file)


@settings(SOME, max_examples=500)
@given(data=st.binary(max_size=60), start=st.integers(0, 900), end=st.integers(0, 900))
def test_a_damaged_sweep_file_is_read_or_refused(data: bytes, start: int, end: int, tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "sweeps" / "grid.yaml").read_bytes()
    file = tmp_path / "sweep.yaml"
    file.write_bytes(text[:start] + data + text[end:])
    is_read_or_refused(file)
