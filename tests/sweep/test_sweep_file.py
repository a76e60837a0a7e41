from __future__ import annotations

from pathlib import Path

import pytest

from trainer.errors import InputError
from trainer.sweep.space import Hyperband, SweepSpec
from trainer.sweep.sweep_file import read_spec

SWEEPS = Path(__file__).parents[2] / "sweeps"

HEAD = """\
method: random
metric: {name: val_accuracy, goal: maximize}
parameters:
  dataset: {value: "builtin:digits"}
"""


def read(tmp_path: Path, text: str) -> SweepSpec:
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    return read_spec(file)


@pytest.mark.parametrize("file", sorted(SWEEPS.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_project_s_own_sweep_files(file: Path) -> None:
    spec = read_spec(file)
    assert "--no-save" in spec.command
    assert {"dataset", "epochs"} <= set(spec.parameters)


def test_params_become_options(tmp_path: Path) -> None:
    spec = read(
        tmp_path,
        HEAD + '  learning-rate: {values: [0.1, 0.01]}\n  save: {value: false}\ncommand: ["${env}", trainer, fit, '
        '--epochs=1, "${args}"]\n',
    )
    assert spec.options({"learning_rate": 0.1, "save": False}) == ["--epochs=1", "--learning_rate=0.1", "--save=false"]
    assert spec.count() == 2


def test_environment_variables_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_1", "/data/${args}")  # not substituted a second time
    text = HEAD + '  epochs: {value: 1}\ncommand: [trainer, fit, "--data-dir=${envvar:DATA_1}/x", "${args}"]\n'
    spec = read(tmp_path, text)
    assert spec.options({"epochs": 1}) == ["--data-dir=/data/${args}/x", "--epochs=1"]
    monkeypatch.delenv("DATA_1")
    with pytest.raises(InputError, match=r"line 6, command: \$\{envvar:DATA_1\}: .* variable DATA_1 is not set"):
        read(tmp_path, text)


def test_on_and_off_are_words_of_options_that_take_them(tmp_path: Path) -> None:
    spec = read(tmp_path, HEAD + "  flip: {values: [on, off, auto]}\n  save: {value: no}\n")
    assert spec.parameters["flip"].choices == ("on", "off", "auto")
    assert spec.options({"flip": "on", "save": False}) == ["--no-save", "--flip=on", "--save=false"]


def test_an_alias_that_contains_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sweep.yaml: nested too deeply"):
        read(tmp_path, "method: grid\nparameters: &a {epochs: *a}\n")


def test_data_set_of_the_command_alone(tmp_path: Path) -> None:
    text = "method: random\nmetric: {name: val_accuracy, goal: maximize}\nparameters: {seed: {value: 1}}\n"
    for words in ("images", "--dataset, images", "--dataset=images"):
        spec = read(tmp_path, f'{text}command: [trainer, fit, --no-save, {words}, --data-dir=prepared, "${{args}}"]\n')
        assert (spec.datasets, spec.data_dir) == (("images",), Path("prepared"))


def test_hyperband(tmp_path: Path) -> None:
    body = HEAD + "  epochs: {value: 9}\nearly_terminate: "
    assert read(tmp_path, body + "{type: hyperband, min_iter: 3}").hyperband == Hyperband(3, 3)
    assert read(tmp_path, body + "{type: hyperband, max_iter: 27, s: 2, eta: 3}").hyperband == Hyperband(3, 3)


def test_the_name_changes_with_the_search_and_not_with_a_comment(tmp_path: Path) -> None:
    first = read(tmp_path, HEAD + "  epochs: {values: [1, 2]}\n")
    assert read(tmp_path, "# why\n" + HEAD + "  epochs: {values: [1, 2]}\n").name == first.name
    assert read(tmp_path, HEAD + "  epochs: {values: [1, 3]}\n").name != first.name


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        (HEAD.replace("random", "randm") + "  epochs: {value: 1}\n", 1, "method: 'randm'"),
        (HEAD + "  epoch: {value: 1}\n", 5, "no option --epoch"),
        (HEAD + "  epochs: {values: []}\n", 5, "parameters.epochs.values"),
        (HEAD + "  epochs:\n    min: 9\n    max: 2\n", 6, "9 is above max, 2"),
        (HEAD + "  epochs: 3\n", 5, "`value`, `values` or a distribution"),
        (HEAD + "  dropout: {distribution: uniform, min: 0}\n", 5, "parameters.dropout.max"),
        (HEAD + "  dropout: {distribution: gamma, min: 0}\n", 5, "'gamma' is not one of"),
        (HEAD + "  dropout: {distribution: log_uniform_values, min: 0, max: 1}\n", 5, "no logarithm"),
        (HEAD + "  dropout: {min: 0, max: 1, q: 2}\n", 5, "no q"),
        (HEAD + "  epochs: {values: [1, 2], probabilities: [0.1, 0.9]}\n", 5, "probabilities are drawn by W&B only"),
        (HEAD + "  epochs: {parameters: {value: 1}}\n", 5, "nested"),
        (HEAD + "  epochs: {value: 1}\ncommand: [python, other.py]\n", 6, "only `trainer fit`"),
        (HEAD + "  epochs: {value: 1}\nearly_terminate: {type: median}\n", 6, "type: hyperband"),
        (HEAD + "  epochs: {value: 1}\nrun_cap: 0\n", 6, "run_cap"),
        (HEAD + "  epochs: {value: 1}\nparamters: {}\n", 6, "no such key"),
        ("method: grid\nparameters:\n  epochs: {value: 1}\n", 1, "metric"),
        (HEAD.replace("val_acc", "test_acc") + "  epochs: {value: 1}\n", 2, "'test_accuracy' is not val_accuracy"),
        (HEAD.replace("maximize", "minimize") + "  epochs: {value: 1}\n", 2, "goal: maximize"),
        (HEAD.replace("random", "grid") + "  dropout: {min: 0.0, max: 1.0}\n", 5, "a grid needs"),
        (HEAD.replace("random", "grid") + "  epochs: {min: 0, max: 2000000000}\n", 3, "more than 100,000 combinations"),
        (HEAD + "  epochs: {value: 1\n", 6, "not YAML"),
        (HEAD + "  dropout:\n    distribution: 5\n    min: 0\n", 6, "5 is no name of a distribution"),
        (HEAD + "  dropout: {min: 1e-x, max: 1}\n", 5, "'1e-x' is no number"),
        (HEAD + "  dropout: {min: .nan, max: 1.0}\n", 5, "nan is no number"),
        (HEAD + f"  dropout: {{min: 0, max: {10**400}}}\n", 5, "is no number"),
        (HEAD + "  dropout: {distribution: log_uniform, min: 0, max: 1000}\n", 5, "out of a number's range"),
        (HEAD + "  dropout: {distribution: log_uniform, min: -1000, max: 0}\n", 5, "out of a number's range"),
        (
            HEAD + '  epochs: {value: 1}\ncommand: [trainer, fit, "${args}", "--name=${project}"]\n',
            6,
            "${project} is not",
        ),
        (HEAD + '  epochs: {value: 1}\ncommand: [trainer, fit, "${args}", "--name=${args}"]\n', 6, "${args} is not"),
        # Values that `trainer fit` would refuse.
        (HEAD + "  epochs: {values: [1, 0]}\n", 5, "parameters.epochs: 0 is out of range; 1 to 10000"),
        (HEAD + "  learning-rate: {min: 0.001, max: 100}\n", 5, "parameters.learning-rate: 100.0 is out of range"),
        (HEAD + "  epochs: {min: 1.0, max: 5.5}\n", 5, "a whole number is expected"),
        (HEAD + "  dropout: {distribution: normal, mu: 2, sigma: 0.1}\n", 5, "is out of range; 0 to 0.95"),
        (HEAD + "  augment: {values: [none, lihgt]}\n", 5, "did you mean light?"),
        (HEAD + "  class_weights: {values: [no, balanced]}\n", 5, "parameters.class_weights: 'false' is not one of"),
        (HEAD + "  model: {values: [compact_resnet, resnet]}\n", 5, "parameters.model: 'resnet' is not one of"),
        (HEAD + "  time_limit: {value: 90}\n", 5, "parameters.time_limit: '90' is no duration"),
        (HEAD + "  data_dir: {values: [a, b]}\n", 5, "one folder is expected"),
        (
            HEAD + '  seed: {value: 1}\ncommand: [trainer, fit, --epochs=0, "${args}"]\n',
            6,
            "command: --epochs: 0 is out",
        ),
        (
            HEAD + '  seed: {value: 1}\ncommand: [trainer, fit, --epoch=1, "${args}"]\n',
            6,
            "command: no such option: --epoch",
        ),
        (HEAD + '  seed: {value: 1}\ncommand: [trainer, fit, --help, "${args}"]\n', 6, "command: --help"),
        (
            HEAD + '  seed: {value: 1}\ncommand: [trainer, fit, "${args}", --run-dir=x]\n',
            6,
            "--run-dir and --resume are set",
        ),
        (HEAD + '  seed: {value: 1}\ncommand: [trainer, fit, "${args}", --seed=2]\n', 6, "--seed is also a parameter"),
        (HEAD.replace('  dataset: {value: "builtin:digits"}\n', "  seed: {value: 1}\n"), 3, "--dataset is missing"),
        (HEAD + "  epochs: {value: 1}\n  epochs: {value: 2}\n", 6, "parameters.epochs: is there twice"),
        (HEAD + "  batch-size: {value: 8}\n  batch_size: {value: 9}\n", 6, "is there twice, also as batch-size"),
        (HEAD + "  epochs: {value: 1}\nrun_cap: true\n", 6, "run_cap"),
    ],
)
def test_bad_files_are_refused_with_file_line_and_key(tmp_path: Path, text: str, line: int, part: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'sweep.yaml'}, line {line}")
    assert part in message
    assert "\n" not in message
