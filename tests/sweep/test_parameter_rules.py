from __future__ import annotations

import math
from pathlib import Path
from typing import NoReturn

import pytest
import yaml
from test_sweep_file import HEAD, read

from trainer.errors import InputError
from trainer.sweep.parameter_rules import read_parameter


def refuse(key: str, problem: str) -> NoReturn:
    raise InputError(f"{key}: {problem}")


@pytest.mark.parametrize(
    ("rules", "value", "expected"),
    [
        ("{min: 0.1, max: 0.5}", 0.3, (0.1, 0.5, 0.3)),
        ("{min: 1e-5, max: 1E+2}", 0.3, (1e-5, 100, 0.3)),
        ("{distribution: log_uniform_values, min: 1e-5, max: 1e-2}", 1e-3, (1e-5, 1e-2, 1e-3)),
        ("{distribution: q_uniform, min: 0, max: 1, q: 0.25}", 0.3, (0, 1, 0.25)),
        ("{distribution: log_uniform, min: -2, max: 0}", 0.5, (math.exp(-2), 1, 0.5)),
        ("{distribution: inv_log_uniform, min: 0, max: 2}", 0.5, (math.exp(-2), 1, 0.5)),
        ("{distribution: q_log_uniform_values, min: 1, max: 9, q: 2}", 4.9, (1, 9, 4)),
        ("{distribution: inv_log_uniform_values, min: 1, max: 9}", 4.9, (1, 9, 4.9)),
        ("{distribution: normal, mu: 2, sigma: 3}", 0.5, (1e-6, 1 - 1e-6, 2)),
        ("{distribution: q_normal, mu: 2.2}", 0.5, (1e-6, 1 - 1e-6, 2)),
        ("{distribution: log_normal, mu: 1}", 0.5, (1e-6, 1 - 1e-6, math.e)),
        ("{distribution: beta, a: 2, b: 2}", 0.5, (1e-6, 1 - 1e-6, 0.5)),
    ],
)
def test_distributions(rules: str, value: float, expected: tuple[float, float, float]) -> None:
    parameter = read_parameter("dropout", yaml.safe_load(rules), refuse)
    assert (parameter.low, parameter.high, parameter.transform(value)) == pytest.approx(expected)


def test_whole_numbers_are_counted(tmp_path: Path) -> None:
    spec = read(tmp_path, HEAD + "  epochs: {min: 2, max: 4}\n  optimizer: {values: [sgd, adam, sgd]}\n")
    assert spec.parameters["epochs"].values() == range(2, 5)
    assert spec.parameters["optimizer"].values() == ("sgd", "adam")
    assert spec.count() == 6


def test_a_large_range_is_counted_and_not_expanded(tmp_path: Path) -> None:
    spec = read(tmp_path, HEAD + "  seed: {min: 0, max: 2147483647}\n  optimizer: {values: [sgd, adam]}\n")
    assert spec.count() == 2**32
