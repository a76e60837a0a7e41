"""A W&B sweep file, read and checked: https://docs.wandb.ai/guides/sweeps/define-sweep-configuration."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import yaml

from trainer.config import FitConfig
from trainer.errors import InputError
from trainer.option_fields import flag, options, searchable
from trainer.sweep.parameter_rules import read_parameter
from trainer.sweep.space import ARGS, DATASET, METRIC, Hyperband, Parameter, SweepSpec, Value
from trainer.sweep.trial_options import parse_options

METHODS = ("grid", "random", "bayes")
TOP_KEYS = (
    *("program", "command", "method", "metric", "parameters", "early_terminate"),
    *("name", "description", "project", "entity", "run_cap"),
)
# Spellings of the program in the command of W&B's files.
PROGRAMS = (["trainer", "fit"], ["${program}", "fit"], ["python", "-m", "trainer", "fit"])
MACRO = re.compile(r"\$\{[^}]*\}?")
ENVVAR = re.compile(r"\$\{envvar:([A-Z0-9_]+)\}")  # as in W&B
MAX_GRID = 100_000  # combinations, which are listed in memory


def read_spec(path: Path) -> SweepSpec:
    """Read and check a sweep file.

    Raises InputError, with file, line and key, for everything that W&B or `trainer fit` would refuse, and for features
    of W&B alone.
    """
    return _Reader(path).read()


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[str, int] = {}  # key → line, from 1
        self._keys: dict[str, str] = {}  # option → its key in the file

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
            self._note_lines(node, "")
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise InputError(f"{self._path}, line {line}: not YAML: {error.problem}") from error
        except (yaml.YAMLError, ValueError) as error:  # a control character, or a date such as 2024-13-01
            raise InputError(f"{self._path}: not YAML: {error}") from error
        except RecursionError as error:
            raise InputError(f"{self._path}: nested too deeply, or an alias that contains itself") from error
        if not isinstance(content, dict):
            raise InputError(f"{self._path}: a mapping with method, metric and parameters is expected")
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
        if cap is not None and (not isinstance(cap, int) or isinstance(cap, bool) or cap < 1):
            self._fail("run_cap", f"{cap!r} is no positive whole number")
        spec = SweepSpec(
            path=self._path,
            method=method,
            parameters=parameters,
            command=self._command(content.get("command")),
            hyperband=self._hyperband(content.get("early_terminate")),
            run_cap=cap,
        )
        config = self._check_options(spec)
        dataset = parameters.get(DATASET, Parameter(choices=(config.dataset,)))
        return replace(
            spec, datasets=tuple(map(str, dataset.examples())), data_dir=config.data_dir, model_name=config.name
        )

    def _note_lines(self, node: Any, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = f"{prefix}{key.value}"
                if name in self._lines:
                    raise InputError(f"{self._path}, line {key.start_mark.line + 1}, {name}: is there twice")
                self._lines[name] = key.start_mark.line + 1
                self._note_lines(value, f"{name}.")

    def _fail(self, key: str, problem: str) -> NoReturn:
        known = key
        while known and known not in self._lines:
            known = known.rpartition(".")[0]
        raise InputError(f"{self._path}, line {self._lines.get(known, 1)}, {key}: {problem}")

    def _check_metric(self, metric: Any) -> None:
        if not isinstance(metric, dict):
            self._fail("metric", f"`name: {METRIC}` and `goal: maximize` are expected")
        if metric.get("name") != METRIC:
            self._fail("metric.name", f"{metric.get('name')!r} is not {METRIC}, the metric of the search")
        if metric.get("goal", "minimize") != "maximize":  # W&B minimizes where the file does not say
            self._fail("metric.goal", f"`goal: maximize` is expected for {METRIC}")

    def _check_grid(self, parameters: dict[str, Parameter]) -> None:
        for name, parameter in parameters.items():
            if parameter.count() is None:
                self._fail(f"parameters.{name}", "a grid needs `values`, `value` or whole numbers from min to max")
        if math.prod(parameter.count() or 0 for parameter in parameters.values()) > MAX_GRID:
            problem = f"a grid of more than {MAX_GRID:,} combinations; `method: random` draws from as many"
            self._fail("parameters", problem)

    def _command(self, command: Any) -> tuple[str, ...]:
        """The options after `trainer fit`."""
        if command is None:
            return ("--no-save", ARGS)
        if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
            self._fail("command", "a list of words is expected")
        words = [word for word in command if word not in ("${env}", "/usr/bin/env", "${interpreter}")]
        for program in PROGRAMS:
            if words[: len(program)] == program:
                rest = tuple(words[len(program) :])
                break
        else:
            self._fail("command", "only `trainer fit` is run: ${env}, trainer, fit, --no-save, ${args} is expected")
        if rest.count(ARGS) != 1:
            self._fail("command", f"{ARGS} is expected once")
        return tuple(word if word == ARGS else self._substitute(word) for word in rest)

    def _substitute(self, word: str) -> str:
        """A word of the command with the values of its environment variables."""
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
            brackets = rules.get("s")
            if not isinstance(rules.get("max_iter"), int) or not isinstance(brackets, int) or not 0 <= brackets < 64:
                self._fail("early_terminate", "min_iter, or max_iter and s, are expected")
            minimum = max(1, rules["max_iter"] // eta**brackets)
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
            if option not in searchable(FitConfig):
                self._fail(key, f"`trainer fit` has no option {flag(str(name))} that can be searched")
            if option in read:
                self._fail(key, f"is there twice, also as {self._keys[option].removeprefix('parameters.')}")
            self._keys[option] = key
            read[option] = _with_on_and_off(option, read_parameter(key, rules, self._fail))
        if len(read.get("data_dir", Parameter(choices=("",))).choices) != 1:
            self._fail(self._keys["data_dir"], "one folder is expected: all trials need the same data")
        return read

    def _check_options(self, spec: SweepSpec) -> FitConfig:
        """Check each value of each parameter, with the first ones of the others, whose configuration this returns."""
        first = {name: parameter.examples()[0] for name, parameter in spec.parameters.items()}
        config = self._parse(spec, first)
        if (config.run_dir, config.resume) != (None, "auto"):
            self._fail("command", "--run-dir and --resume are set by the sweep; leave them out")
        words = [word.partition("=")[0] for word in spec.command if word.startswith("--")]
        for word in words if "command" in self._lines else ():
            option = word.removeprefix("--").replace("-", "_").removeprefix("no_")
            if option in spec.parameters:
                self._fail("command", f"{word} is also a parameter; leave one out")
        for name, parameter in spec.parameters.items():
            for value in parameter.examples()[1:]:
                self._parse(spec, first | {name: value})
        return config

    def _parse(self, spec: SweepSpec, params: Mapping[str, Value]) -> FitConfig:
        try:
            return parse_options(spec.options(params))
        except InputError as error:
            named = re.search(r"--([\w-]+)", str(error))
            option = named[1].replace("-", "_") if named else ""
            problem = str(error).removeprefix(f"{flag(option)}: ")
            if option in self._keys:
                self._fail(self._keys[option], problem)
            self._fail("parameters" if "is missing" in problem else "command", str(error))


def _with_on_and_off(option: str, parameter: Parameter) -> Parameter:
    """The parameter with the words `on` and `off` where the option takes them: YAML reads them as booleans."""
    if "on" not in options(FitConfig)[option].choices:
        return parameter
    words = [("off", "on")[value] if isinstance(value, bool) else value for value in parameter.choices]
    return replace(parameter, choices=tuple(dict.fromkeys(words)))
