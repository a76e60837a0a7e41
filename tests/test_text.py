from __future__ import annotations

import json
import os
import subprocess

import pytest

from trainer.text import printable, printable_json, shell_command

RAW = "Ü 🐈 می\u200cخواهم 'a\\b' \x1b[2J\x9b\t\n\r\x07\u2028\u202e\udce9"
SHOWN = r"Ü 🐈 می" + "\u200c" + r"خواهم 'a\b' \x1b[2J\x9b\t\n\r\x07\u2028\u202e\udce9"


def test_text_is_printable_on_one_line() -> None:
    assert printable(RAW) == SHOWN
    assert printable(SHOWN) == SHOWN


def test_json_is_printable_and_has_the_same_value() -> None:
    text = printable_json(json.dumps({RAW: [RAW]}, ensure_ascii=False, indent=1))
    assert len(text.splitlines()) == 5
    assert all(printable(line) == line for line in text.splitlines())
    assert json.loads(text) == {RAW: [RAW]}


@pytest.mark.parametrize("word", ["plain", "two words", "it's", RAW, "\\x41\n", "$'\n'"])
def test_a_pasted_command_has_the_same_words(word: str) -> None:
    command = shell_command(["printf", "%s", word])
    assert printable(command) == command
    printed = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, check=True)
    assert printed.stdout == os.fsencode(word)
