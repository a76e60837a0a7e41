"""Generated input through the command line: exit code 0, 2 or 3, and never an internal error.

`GENERATED_EXAMPLES=5000 make test PYTEST_ARGS=tests/test_generated_input.py` is the long form. Both are seeded.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.main import get_command

from trainer.cli import app, run

pytestmark = [pytest.mark.timeout(7200), pytest.mark.usefixtures("in_tmp_path")]

EXAMPLES = int(os.environ.get("GENERATED_EXAMPLES", "25"))  # of each kind; 5000 take an hour or more

JUNK_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
JUNK_BYTES = st.binary(max_size=40)


def repeat(strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Call `check` with EXAMPLES of `strategy`, the same in every run."""
    seeded = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    seeded(given(strategy)(check))()


def check_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command line, which must succeed or be refused in one line."""
    code = run(arguments)
    printed = capsys.readouterr()
    errors = printed.err
    assert code in (0, 2, 3), errors
    assert "internal error" not in errors
    if code and "--debug" not in arguments and not printed.out.startswith("Usage: "):  # a group without a command
        assert errors.splitlines()[-1].startswith(("error: ", "next: "))
        assert "Traceback" not in errors


# Command lines

# None can be trained on, so that only the parsing is tested.
DATASETS = (
    *("folder:nowhere", "nowhere", "folder:", "csv:", "csv:x?image=", "csv:x?label=%", "tfds:", "tfds:a:9"),
    *("builtin:x", "x:y", ""),
)
WORDS = (
    "0 -1 1e400 nan inf 1e-5 abc 64 64x64 0x0 true None é ../x 10m 1h1m -5s 0s auto int8 none a,b {} $HOME -- - = %s"
)
VALUES = st.sampled_from([*WORDS.split(), "", "9" * 400, "[1, 2]", "`x`", "a b", "\n", "\t", "{0}"]) | JUNK_TEXT
UNKNOWN = ("--epochz", "--_wandb", "-x", "--debug", "--lr")


def commands() -> dict[str, list[str]]:
    """Each command with its options."""
    found: dict[str, list[str]] = {"fti": [], "help": []}

    def add(command: Any, path: str) -> None:
        found[path] = [name for parameter in command.params for name in parameter.opts if name.startswith("--")]
        for name, inner in getattr(command, "commands", {}).items():
            add(inner, f"{path} {name}".strip())

    add(get_command(app), "")
    return found


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    command, own = draw(st.sampled_from(sorted(commands().items())))
    arguments = command.split()
    if draw(st.booleans()):
        arguments += [f"--dataset={draw(st.sampled_from(DATASETS))}"]
    for _ in range(draw(st.integers(0, 4))):
        option = draw(st.sampled_from([*own, *UNKNOWN]))
        if option in ("--dataset", "--help", "--install-completion", "--show-completion"):
            continue
        value = draw(VALUES)
        arguments += draw(st.sampled_from([[option], [f"{option}={value}"], [option, value], [value]]))
    return arguments


def test_a_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    def check(arguments: list[str]) -> None:
        check_command(arguments, capsys)

    repeat(command_lines(), check)


# Sweep files

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 10**12)
    | st.floats()
    | st.dates()
    | st.text(max_size=8)
    | st.sampled_from(
        [
            *("1e-5", "1e5", "0x10", "inf", "uniform", "log_uniform_values", "q_uniform", "constant"),
            *("folder:nowhere", "builtin:digits"),
        ]
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
NAMES = (
    *("dataset", "epochs", "learning_rate", "learning-rate", "seed", "limit", "image_size", "augment", "flip", "wandb"),
    "nothing",
)
GOOD_DATASET = st.just({"value": "builtin:digits"})
SWEEP = st.fixed_dictionaries(
    {},
    optional={
        "name": SCALARS,
        "method": st.sampled_from(["grid", "random", "bayes", "hyperband"]) | JUNK,
        "metric": st.just({"name": "val_accuracy", "goal": "maximize"}) | JUNK,
        "parameters": st.fixed_dictionaries(
            {"dataset": GOOD_DATASET, "seed": st.just({"min": 0, "max": 9}) | PARAMETER}, optional={"epochs": PARAMETER}
        )
        | st.dictionaries(st.sampled_from(NAMES) | SCALARS, PARAMETER | JUNK, max_size=4)
        | JUNK,
        "command": st.just(["${env}", "trainer", "fit", "${args}"])
        | st.lists(st.sampled_from(["${env}", "${envvar:X}", "${args}", "trainer", "fit", "${"]) | SCALARS, max_size=5)
        | JUNK,
        "run_cap": SCALARS,
        "early_terminate": st.fixed_dictionaries({}, optional={"type": SCALARS, "min_iter": SCALARS, "eta": SCALARS})
        | JUNK,
        "programm": JUNK,
    },
)


def as_yaml(value: Any) -> bytes:
    try:
        return yaml.safe_dump(value, allow_unicode=True).encode()
    except (yaml.YAMLError, UnicodeEncodeError):
        return b""


def damaged(original: bytes) -> st.SearchStrategy[bytes]:
    """Copies of a file with a part replaced by junk."""
    positions = st.integers(0, len(original))
    return st.builds(
        lambda start, end, junk: original[:start] + junk + original[end:], positions, positions, JUNK_BYTES
    )


def test_a_sweep_file(capsys: pytest.CaptureFixture[str]) -> None:
    grid = (Path(__file__).parents[1] / "sweeps" / "grid.yaml").read_bytes()

    def check(content: bytes) -> None:
        Path("sweep.yaml").write_bytes(content)
        check_command(["sweep", "sweep.yaml", "--trials=0"], capsys)

    repeat(SWEEP.map(as_yaml) | JUNK.map(as_yaml) | damaged(grid), check)


# Data sets


def inspect(spec: str, *options: str) -> list[str]:
    return ["data", "inspect", spec, *options, "--sheet=sheet.png", "--json"]


CELLS = st.sampled_from(
    [*(f"{index}.png" for index in range(12)), "cat", "dog", "train", "test", "", "none.png", "image", "label", "split"]
)
ROWS = st.lists(st.lists(CELLS | JUNK_TEXT, max_size=4), max_size=14)
COLUMNS = st.sampled_from([["image", "label"], ["image", "label", "split"], ["label", "image"], ["image"], []])


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A table of existing images, mostly good, or rows of any cells."""
    header = draw(COLUMNS)
    rows = [[f"{index}.png", "cat" if index % 2 else "dog"] for index in range(12)]
    if draw(st.booleans()):
        rows[draw(st.integers(0, 11))] = draw(st.lists(CELLS | JUNK_TEXT, max_size=4))
    else:
        rows = draw(ROWS)
    separator, line_end = draw(st.sampled_from([",", ",", ";", "\t"])), draw(st.sampled_from(["\n", "\r\n", "\r"]))
    text = line_end.join(separator.join(row) for row in [header, *rows])
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16"])))


def test_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 9), np.uint8)
    for index in range(12):
        Image.fromarray(pixels[index]).save(f"{index}.png")

    def check(content: bytes) -> None:
        Path("table.csv").write_bytes(content)
        check_command(inspect("csv:table.csv"), capsys)

    good = "\n".join(["image,label", *(f"{index}.png,{'cat' if index % 2 else 'dog'}" for index in range(12))])
    repeat(tables() | damaged(good.encode()), check)


def prepare(data_dir: Path) -> Path:
    """Write a TFDS data set of gray 9×9 images → its folder."""
    import tensorflow_datasets as tfds

    pixels = np.random.default_rng(0).integers(0, 256, (24, 9, 9, 1), np.uint8)
    examples = [(index, {"image": pixels[index], "label": index % 2}) for index in range(24)]
    tfds.dataset_builders.AdhocBuilder(
        name="animals",
        version="1.2.0",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=["cat", "dog"]),
            }
        ),
        split_datasets={"train": iter(examples[:16]), "test": iter(examples[16:])},
        data_dir=data_dir,
    ).download_and_prepare()
    return data_dir / "animals" / "1.2.0"


def entries(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value within a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inner for found in entries(item, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A JSON value with the value at `path` replaced."""
    if not path:
        return new
    inner = dict(value) if isinstance(value, dict) else list(value)
    inner[path[0]] = replaced(value[path[0]], path[1:], new)
    return inner


def faults(folder: Path) -> st.SearchStrategy[tuple[str, bytes | None]]:
    """A file of a TFDS data set, and its damaged content; None: the file is missing."""

    def of(file: Path) -> st.SearchStrategy[bytes | None]:
        content = file.read_bytes()
        choices = st.none() | damaged(content)
        if file.suffix == ".json":
            value = json.loads(content)
            wrong: st.SearchStrategy[Any] = (
                st.sampled_from(["", "x", "train", -1, 10**30, None, [], {}, True]) | JUNK_TEXT
            )
            edits = st.tuples(st.sampled_from(entries(value)), wrong)
            choices = choices | edits.map(lambda edit: json.dumps(replaced(value, *edit)).encode())
        return choices

    files = sorted(file for file in folder.iterdir() if file.is_file())
    return st.one_of([st.tuples(st.just(file.name), of(file)) for file in files])


def test_a_tfds_directory(capsys: pytest.CaptureFixture[str]) -> None:
    original = shutil.copytree(prepare(Path("prepared")), Path("original"))

    def check(fault: tuple[str, bytes | None]) -> None:
        shutil.rmtree("tfds", ignore_errors=True)
        folder = shutil.copytree(original, Path("tfds", "animals", "1.2.0"))
        name, content = fault
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
        check_command(inspect("tfds:animals", "--data-dir=tfds"), capsys)

    repeat(faults(original), check)
