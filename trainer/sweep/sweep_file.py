"""A W&B sweep file, read and checked: https://docs.wandb.ai/guides/sweeps/define-sweep-configuration."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import yaml

from trainer.errors import InputError
from trainer.sweep.distributions import BY_QUANTILE, DEFAULTS, DISTRIBUTIONS, QUANTIZED, UNIFORM, by_quantile
from trainer.sweep.space import ARGS, METRIC, Hyperband, Parameter, SweepSpec, Value

METHODS = ("grid", "random", "bayes")
TOP_KEYS = (
    *("program", "command", "method", "metric", "parameters", "early_terminate"),
    *("name", "description", "project", "entity", "run_cap"),
)
# The part of a command that names the program, in the spellings that W&B's files have.
PROGRAM = (["trainer", "fit"], ["${program}", "fit"], ["python", "-m", "trainer", "fit"])
MACRO = re.compile(r"\$\{[^}]*\}?")
ENVVAR = re.compile(r"\$\{envvar:([A-Z0-9_]+)\}")  # as W&B has it
MAX_GRID = 100_000  # points; more are never run, and each is looked at

# (file, line number from 1, key) of what is being read
Where = tuple[Path, int, str]


def read_spec(path: Path, known_options: Sequence[str]) -> SweepSpec:
    """Read and check a sweep file. `known_options`: those of `trainer fit` that may be searched.

    Raises InputError, with file, line and key, for whatever W&B would refuse and for what only W&B can do.
    """
    return _Reader(path, known_options).read()


class _Reader:
    def __init__(self, path: Path, known_options: Sequence[str]) -> None:
        self._path = path
        self._options = {option.replace("-", "_") for option in known_options}
        self._lines: dict[str, int] = {}

    def read(self) -> SweepSpec:
        try:
            text = self._path.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"{self._path}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{self._path}: cannot be read: {error}") from error
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            content = yaml.safe_load(text)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise InputError(f"{self._path}, line {line}: not YAML: {error.problem}") from error
        except (yaml.YAMLError, ValueError) as error:  # a character, or a date, that there is none of
            raise InputError(f"{self._path}: not YAML: {error}") from error
        if not isinstance(content, dict):
            raise InputError(f"{self._path}: a mapping with method, metric and parameters is expected")
        self._note_lines(node, "")
        for key in content:
            if key not in TOP_KEYS:
                self._fail(str(key), f"no such key; there are {', '.join(TOP_KEYS)}")
        method = content.get("method")
        if method not in METHODS:
            self._fail("method", f"{method!r} is not one of {', '.join(METHODS)}")
        self._check_metric(content.get("metric"))
        parameters = self._parameters(content.get("parameters"))
        if method == "grid":
            self._check_grid(parameters)
        cap = content.get("run_cap")
        if cap is not None and not (isinstance(cap, int) and cap > 0):
            self._fail("run_cap", f"{cap!r} is no positive whole number")
        return SweepSpec(
            path=self._path,
            method=method,
            parameters=parameters,
            command=self._command(content.get("command")),
            hyperband=self._hyperband(content.get("early_terminate")),
            run_cap=cap,
        )

    def _note_lines(self, node: Any, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = f"{prefix}{key.value}"
                self._lines[name] = key.start_mark.line + 1
                self._note_lines(value, f"{name}.")

    def _fail(self, key: str, what: str) -> NoReturn:
        known = key
        while known and known not in self._lines:
            known = known.rpartition(".")[0]
        raise InputError(f"{self._path}, line {self._lines.get(known, 1)}, {key}: {what}")

    def _check_metric(self, metric: Any) -> None:
        if not isinstance(metric, dict):
            self._fail("metric", f"`name: {METRIC}` and `goal: maximize` are expected")
        if metric.get("name") != METRIC:
            self._fail("metric.name", f"{metric.get('name')!r} is not {METRIC}, the metric that is searched by")
        if metric.get("goal", "minimize") != "maximize":  # W&B minimizes where the file does not say
            self._fail("metric.goal", f"`goal: maximize` is expected for {METRIC}")

    def _check_grid(self, parameters: dict[str, Parameter]) -> None:
        for name, parameter in parameters.items():
            if parameter.count() is None:
                self._fail(f"parameters.{name}", "a grid needs `values`, `value` or whole numbers from min to max")
        if math.prod(parameter.count() or 0 for parameter in parameters.values()) > MAX_GRID:
            self._fail("parameters", f"a grid of more than {MAX_GRID:,} points; `method: random` draws from as many")

    def _command(self, command: Any) -> tuple[str, ...]:
        """What follows `trainer fit`."""
        if command is None:
            return ("--no-save", ARGS)
        if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
            self._fail("command", "a list of words is expected")
        words = [word for word in command if word not in ("${env}", "/usr/bin/env", "${interpreter}")]
        for program in PROGRAM:
            if words[: len(program)] == program:
                rest = tuple(words[len(program) :])
                break
        else:
            self._fail("command", "only `trainer fit` is run: ${env}, trainer, fit, --no-save, ${args} is expected")
        if rest.count(ARGS) != 1:
            self._fail("command", f"{ARGS} is expected once")
        return tuple(word if word == ARGS else self._filled_in(word) for word in rest)

    def _filled_in(self, word: str) -> str:
        """A word of the command with its environment variables."""
        for macro in MACRO.findall(word):
            variable = ENVVAR.fullmatch(macro)
            if not variable:
                self._fail("command", f"{macro} is not known here; {ARGS}, as a word, and ${{envvar:NAME}} are")
            if variable[1] not in os.environ:
                self._fail("command", f"{macro}: the environment variable {variable[1]} is not set")
        return ENVVAR.sub(lambda macro: os.environ[macro[1]], word)

    def _hyperband(self, rules: Any) -> Hyperband | None:
        if rules is None:
            return None
        if not isinstance(rules, dict) or rules.get("type") != "hyperband":
            self._fail("early_terminate", "`type: hyperband` is expected")
        eta = rules.get("eta", 3)
        if not isinstance(eta, int) or eta < 2:
            self._fail("early_terminate.eta", f"{eta!r} is no whole number from 2 on")
        minimum = rules.get("min_iter")
        if minimum is None:
            if not isinstance(rules.get("max_iter"), int) or not isinstance(rules.get("s"), int):
                self._fail("early_terminate", "min_iter, or max_iter and s, are expected")
            minimum = max(1, rules["max_iter"] // eta ** rules["s"])
        if not isinstance(minimum, int) or minimum < 1:
            self._fail("early_terminate.min_iter", f"{minimum!r} is no positive whole number")
        return Hyperband(minimum, eta)

    def _parameters(self, parameters: Any) -> dict[str, Parameter]:
        if not isinstance(parameters, dict) or not parameters:
            self._fail("parameters", "at least one parameter is expected")
        read = {}
        for name, rules in parameters.items():
            key = f"parameters.{name}"
            option = str(name).replace("-", "_")
            if option not in self._options:
                self._fail(key, f"`trainer fit` has no option --{str(name).replace('_', '-')}")
            if not isinstance(rules, dict):
                self._fail(key, "`value`, `values` or a distribution is expected")
            read[option] = self._parameter(key, rules)
        return read

    def _parameter(self, key: str, rules: dict[str, Any]) -> Parameter:
        if "parameters" in rules:
            self._fail(key, "nested parameters are not options of `trainer fit`")
        if "probabilities" in rules or rules.get("distribution") == "categorical_w_probabilities":
            self._fail(key, "values with probabilities are drawn by W&B only; repeat no value and leave them out")
        name = rules.get("distribution") or self._default_distribution(key, rules)
        if not isinstance(name, str):
            self._fail(f"{key}.distribution", f"{name!r} is no name of a distribution")
        quantized = name.startswith("q_")
        base = name.removeprefix("q_")
        if base not in DISTRIBUTIONS or (quantized and base not in QUANTIZED):
            self._fail(f"{key}.distribution", f"{name!r} is not one of {', '.join(DISTRIBUTIONS)}, or with q_ in front")
        needed = (*DISTRIBUTIONS[base], *(("q",) if quantized else ()))
        for one in rules:
            if one not in (*needed, "distribution"):
                self._fail(f"{key}.{one}", f"{name} takes {', '.join(needed)} and no {one}")
        if base == "constant":
            return Parameter(choices=(self._scalar(f"{key}.value", rules.get("value")),))
        if base == "categorical":
            values = rules.get("values")
            if not isinstance(values, list) or not values:
                self._fail(f"{key}.values", "at least one value is expected")
            scalars = [self._scalar(f"{key}.values", value) for value in values]
            return Parameter(choices=tuple(dict.fromkeys(scalars)))
        numbers = {}
        for one in needed:
            numbers[one] = self._number(f"{key}.{one}", rules.get(one, DEFAULTS.get(one)))
        try:
            return self._numeric(key, base, numbers)
        except OverflowError:
            self._fail(key, "e to the power of these is out of a number's range")

    def _number(self, key: str, value: Any) -> float:
        number = value
        if isinstance(value, str):  # `1e-5`: YAML's own numbers have a point before the exponent
            with suppress(ValueError):
                number = float(value)
        if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) <= sys.float_info.max:
            self._fail(key, f"{value!r} is no number")
        return number

    def _default_distribution(self, key: str, rules: dict[str, Any]) -> str:
        if "value" in rules:
            return "constant"
        if "values" in rules:
            return "categorical"
        if {"min", "max"} <= set(rules):
            whole = all(isinstance(rules[end], int) for end in UNIFORM)
            return "int_uniform" if whole else "uniform"
        self._fail(key, "`value`, `values`, or `min` and `max` are expected")

    def _scalar(self, key: str, value: Any) -> Value:
        if not isinstance(value, str | int | float | bool):
            self._fail(key, f"{value!r} is no word and no number")
        return value

    def _numeric(self, key: str, base: str, numbers: dict[str, float]) -> Parameter:
        low, high = numbers.get("min", 0.0), numbers.get("max", 1.0)
        if low > high:
            self._fail(f"{key}.min", f"{low:g} is above max, {high:g}")
        if base.endswith("_values") and low <= 0:
            self._fail(f"{key}.min", f"{low:g} has no logarithm; more than 0 is expected")
        if numbers.get("sigma", 1) <= 0 or min(numbers.get("a", 1), numbers.get("b", 1)) <= 0:
            self._fail(key, "sigma, a and b are more than 0")
        step = numbers.get("q")
        if step is not None and step <= 0:
            self._fail(f"{key}.q", f"{step:g} is no step; more than 0 is expected")

        def rounded(value: float) -> float:
            return value if step is None else round(value / step) * step

        if base == "int_uniform":
            if int(low) != low or int(high) != high:
                self._fail(key, "whole numbers are expected")
            return Parameter(low=low, high=high, integer=True)
        if base in BY_QUANTILE:
            return by_quantile(base, numbers, rounded)
        if base == "log_uniform":  # of exponents to the base e
            low, high = math.exp(low), math.exp(high)
        elif base == "inv_log_uniform":  # 1/x is log-uniform
            low, high = math.exp(-high), math.exp(-low)
        if base != "uniform" and low == 0:  # rounded to it
            raise OverflowError
        return Parameter(low=low, high=high, log=base != "uniform", transform=rounded)
