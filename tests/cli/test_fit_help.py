from __future__ import annotations

import re

import pytest

from trainer.cli import run
from trainer.cli.fit_help import GROUPS, OTHERS
from trainer.config import FitConfig
from trainer.option_fields import flag, options


def test_every_option_of_fit_is_in_one_group_and_those_most_used_are_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["fit", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Usage: trainer fit ")  # not the name of this process
    assert max(map(len, text.splitlines())) <= 80
    headings = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert headings == ["Arguments", *GROUPS, OTHERS]
    shown = re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE)
    assert tuple(shown[:10]) == next(iter(GROUPS.values()))
    expected = {*map(flag, options(FitConfig)), "--json", "--events"}
    assert expected <= set(shown)
    assert len(shown) == len(set(shown))
