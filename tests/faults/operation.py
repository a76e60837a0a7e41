"""An operation whose every write is failed, one at a time: what holds after each fault, and after the operation again.

- It ends with exit code 0, 3, or 2 where a place cannot be written, and with one line that says why.
- A reader finds each file as it was before or as it is afterwards, and nothing in part.
- The same command again ends with exit code 0, and with what it would have reached undisturbed.
- At most one epoch is trained twice.
- Then there are the files that an undisturbed run leaves, and no others.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from system_calls import KINDS, Call, Fault
from watched_process import Ended, out_of, run

PHOTOS = "photos"  # in `work`; never copied, as a cache's entry is named by the inodes of the images
PRIVATE = re.compile(r"(^|/)(\.|trainer-publish)|\.(tmp|partial|lock)(/|$)")  # no reader opens these
ONE_LINE = re.compile(r"^error: [^\n]+\n(next: [^\n]+\n)?\Z", re.MULTILINE)
SHOWN = 300  # letters of an error


def no_result(home: Path, ended: Ended) -> None:
    """The result of an operation whose files alone tell what it has done."""


@dataclass(frozen=True)
class Operation:
    """A function that writes below `home`, and what may be seen of it meanwhile."""

    home: Path
    function: Callable[..., None]
    arguments: tuple[str, ...]
    # Home → error where a reader finds a part of something; None: all files are the same with and without a fault.
    read: Callable[[Path], str] | None = None
    result: Callable[[Path, Ended], Any] = no_result  # of an operation that has ended with 0
    epochs: Callable[[str], int] = lambda out: 0  # stdout → epochs that were trained
    finished: str = ""  # the error, with exit code 2, of a command that has done its work before

    def run(self, fault: Fault | None = None, before: Any = None) -> Ended:
        return run(self.function, self.arguments, self.home, fault, before)


def check(operation: Operation, sample: random.Random | None, *, kills: int, errors: int) -> None:
    """Try the operation killed at each write, and with each error at each; of both only so many with a `sample`."""
    trial = _Trial(operation)
    numbers = range(1, len(trial.calls) + 1)
    killed = [Fault("killed", number) for number in numbers]
    failed = [Fault(kind, number) for kind in KINDS if kind != "killed" for number in numbers]
    faults = killed + failed
    if sample:
        faults = sample.sample(killed, min(kills, len(killed))) + sample.sample(failed, min(errors, len(failed)))
    problems = []
    for fault in faults:
        if text := trial.problem(fault):
            problems.append(f"{fault}, {trial.calls[fault.number - 1]}: {text}")
    print(f"{' '.join(operation.arguments)}: {len(numbers)} writes, {len(faults)} faults")
    assert not problems, f"{len(problems)} of {len(faults)} faults:\n" + "\n".join(problems)


class _Trial:
    def __init__(self, operation: Operation) -> None:
        self._operation, self._home = operation, operation.home
        # By the number of the write at which a kill leaves them: the home, and stdout.
        self._states = [(self._save("before"), "")]
        self._before = _contents(self._home)
        ended = operation.run(before=self._keep)
        assert ended.code == 0, ended.err
        self.calls: Sequence[Call] = ended.calls
        self._names, self._after = _names(self._home), _contents(self._home)
        self._result = operation.result(self._home, ended)
        self._epochs = operation.epochs(ended.out)

    def problem(self, fault: Fault) -> str:
        """What is not as it should be, with this fault; empty where all is."""
        state, out = self._states[fault.number] if fault.kind == "killed" else self._states[0]
        self._restore(state)
        text = ""
        if fault.kind != "killed":
            ended = self._operation.run(fault)
            out = ended.out
            text = _bad_end(ended, fault) or (self._other_result(ended) if ended.code == 0 else "")
        return text or self._part() or self._again(out) or self._part()

    def _again(self, out: str) -> str:
        """What is wrong after the same command again; `out` is stdout of the first one."""
        operation = self._operation
        ended = operation.run()
        if not (ended.code == 2 and operation.finished and operation.finished in ended.err):
            if ended.code:
                return f"again: exit code {ended.code}: {ended.err[-SHOWN:]}"
            if text := self._other_result(ended):
                return f"again: {text}"
        if (trained := operation.epochs(out) + operation.epochs(ended.out)) > self._epochs + 1:
            return f"{trained} epochs are trained in all, {self._epochs} are undisturbed"
        found = _names(self._home)
        more, missing = sorted(found - self._names), sorted(self._names - found)
        return f"left over: {more[:3]}, missing: {missing[:3]}" if more or missing else ""

    def _other_result(self, ended: Ended) -> str:
        result = self._operation.result(self._home, ended)
        return "" if result == self._result else f"the result is {result} in place of {self._result}"

    def _part(self) -> str:
        """A file that a reader finds in part."""
        if self._operation.read:
            return self._operation.read(self._home)
        for name, content in _contents(self._home).items():
            if name in self._after and content not in (self._before.get(name), self._after[name]):
                return f"{name} has {len(content)} bytes, whole it has {len(self._after[name])}"
        return ""

    def _keep(self, number: int, call: Call) -> None:
        self._states.append((self._save(f"killed-{number}"), out_of(self._home).read_text(encoding="utf-8")))

    def _save(self, name: str) -> Path:
        state = self._home.with_name(f"{self._home.name}-states") / name
        shutil.copytree(self._home, state, ignore=shutil.ignore_patterns(PHOTOS))
        return state

    def _restore(self, state: Path) -> None:
        work = self._home / "work"
        for path in (*self._home.iterdir(), *work.iterdir()):
            if path.is_file():
                path.unlink()
            elif path not in (work, work / PHOTOS):
                shutil.rmtree(path)
        shutil.copytree(state, self._home, dirs_exist_ok=True)


def _bad_end(ended: Ended, fault: Fault) -> str:
    """What is wrong with the end of a run with a fault."""
    if ended.code == 0:
        return ""
    if ended.code not in (2, 3) or (ended.code == 2 and fault.kind == "full"):
        return f"exit code {ended.code}: {ended.err[-SHOWN:]}"
    if "Traceback" in ended.err or not ONE_LINE.search(ended.err):
        return f"more than a line: {ended.err[-2 * SHOWN :]}"
    return ""


def _names(home: Path) -> set[str]:
    """Files and folders in `home`, without the random part of their names."""
    found = (path.relative_to(home).as_posix() for path in home.rglob("*"))
    return {re.sub(r"(models/[^/]+/)[a-z2-7]{16}", r"\1VERSION", name) for name in found}


def _contents(home: Path) -> dict[str, bytes]:
    """Files that a reader may open → bytes."""
    found = {path.relative_to(home).as_posix(): path for path in home.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not PRIVATE.search(name)}
