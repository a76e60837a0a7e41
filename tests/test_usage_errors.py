"""Errors of the command line about paths with spaces; those about options are in tests/test_cli_options.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.cli import run


@pytest.mark.parametrize(
    "words",
    [
        "fit my old photos",
        "fit --dataset my old photos",
        "fit --dataset=my old photos",
        "fit folder:my old photos",
        "data inspect my old photos --json",
        "predict my old photos",
        "evaluate flowers my old photos",
    ],
)
def test_a_path_with_spaces_is_to_be_quoted(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my old photos").mkdir()
    assert run(words.split()) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: a path with a space is to be quoted: 'my old photos'"


def test_other_errors_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("my", "my photos"):
        Path(name).mkdir()
    assert run(["fit", "my", "photos", "of", "cats"]) == 2
    assert capsys.readouterr().err == "error: unexpected: photos of cats; quote a path with spaces\n"
    assert run(["fit", "my photos"]) == 2
    assert "my photos has no class folders" in capsys.readouterr().err
