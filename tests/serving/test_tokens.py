from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from trainer.errors import InputError
from trainer.serving import tokens
from trainer.serving.tokens import MAX_FILE_BYTES, Tokens, read_required_tokens, read_tokens, token_to_send


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of two tokens, which is read again for each request."""
    monkeypatch.setattr(tokens, "READ_EVERY_S", 0)
    (tmp_path / "tokens").write_text("# the shop's\nfirst\n\n  second  \r\n")
    return tmp_path / "tokens"


def refusal(valid: Tokens, authorization: str | None) -> str | None:
    headers = [(b"host", b"x")] + ([] if authorization is None else [(b"authorization", authorization.encode())])
    return valid.refusal(headers)


def accepted(valid: Tokens, *given: str) -> list[bool]:
    return [refusal(valid, f"Bearer {token}") is None for token in given]


def test_one_token_a_line(file: Path) -> None:
    assert read_tokens(file) == ["first", "second"]
    file.write_bytes(b"\xef\xbb\xbfwindows\r\n")
    assert read_tokens(file) == ["windows"]


def test_a_wrong_file_is_named_and_not_quoted(tmp_path: Path) -> None:
    file = tmp_path / "tokens"

    def message() -> str:
        with pytest.raises(InputError) as caught:
            read_required_tokens(file)
        assert "\n" not in str(caught.value)
        assert str(file) in str(caught.value)
        assert "secret" not in str(caught.value)
        return str(caught.value)

    assert "cannot be read: No such file" in message()
    file.mkdir()
    assert "is no file" in message()
    file.rmdir()
    os.mkfifo(file)
    assert "is no file" in message()
    file.unlink()
    for data, part in (
        (b"", "holds no token"),
        (b"# secret\n \n", "holds no token"),
        (b"\xff\xfesecret", "is no text"),
        (b"fine\nmy secret\n", "line 2: a token has only visible ASCII characters"),
        (b"secret\x7f", "line 1: a token has only"),
        ("sécret".encode(), "line 1: a token has only"),
        (b"secret\n" * MAX_FILE_BYTES, "is too large"),
    ):
        file.write_bytes(data)
        assert part in message()


def test_a_request_needs_a_valid_token(file: Path) -> None:
    valid = Tokens(file)
    assert (
        accepted(valid, "first", "second", " second ", "", "third", "firs", "first\0", "# the shop's")
        == [True] * 3 + [False] * 5
    )
    assert refusal(valid, "bearer first") is None
    assert refusal(valid, "Bearer third") == "this token is not valid"
    for authorization in (None, "", "Bearer", "first", "Basic first", "Token first"):
        assert refusal(valid, authorization) is not None


def test_all_tokens_are_compared_in_constant_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(first_digest: bytes, second_digest: bytes) -> bool:
        compared.append((first_digest, second_digest))
        return first_digest == second_digest

    monkeypatch.setattr("hmac.compare_digest", compare)
    valid = Tokens(file)
    assert accepted(valid, "first", "x" * 1000) == [True, False]
    assert len(compared) == 4
    assert {len(digest) for pair in compared for digest in pair} == {32}


def test_the_file_is_read_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bentoml.trainer")
    valid = Tokens(file)
    assert accepted(valid, "first", "third") == [True, False]
    # As Kubernetes changes a Secret: a link to a folder is replaced by another.
    secret = file.parent / "secret"
    for name, token in (("one", "first"), ("two", "third")):
        (secret / name).mkdir(parents=True)
        (secret / name / "tokens").write_text(token)
    file.unlink()
    (secret / "data").symlink_to("one")
    file.symlink_to("secret/data/tokens")
    assert accepted(valid, "first", "second", "third") == [True, False, False]
    (secret / "next").symlink_to("two")
    (secret / "next").rename(secret / "data")
    assert accepted(valid, "first", "third") == [False, True]
    # A missing or wrong file: a new one may be on its way.
    (secret / "data").rename(secret / "away")
    assert accepted(valid, "first", "third") == [False, True]
    (secret / "away").rename(secret / "data")
    (secret / "data" / "tokens").write_bytes(b"\xff")
    assert accepted(valid, "first", "third") == [False, True]
    # A file without a token revokes all.
    (secret / "data" / "tokens").write_text("# none any more\n")
    assert accepted(valid, "first", "third", "") == [False] * 3
    assert [message.replace(str(file), "F") for message in caplog.messages] == [
        "token_file: tokens in F: 2",
        "token_file: tokens in F: 1",
        "token_file: tokens in F: 1",
        "token_file: F cannot be read: No such file or directory; the tokens from before stay valid",
        "token_file: F is no text: one token a line is expected; the tokens from before stay valid",
        "token_file: F holds no token; all requests are refused",
    ]


def test_without_a_file_all_requests_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that BentoML restarts: the supervisor has checked the file before the first worker."""
    assert accepted(Tokens(tmp_path / "tokens"), "", "first") == [False, False]
    assert caplog.messages[0].endswith("No such file or directory; all requests are refused")


def test_the_file_is_read_once_a_second(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "READ_EVERY_S", 1.0)
    now = 5.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    valid = Tokens(file)
    assert accepted(valid, "first") == [True]
    file.write_text("third")
    now = 5.9
    assert accepted(valid, "first", "third") == [True, False]
    now = 6.0
    assert accepted(valid, "first", "third") == [False, True]


def test_the_token_of_a_client(file: Path) -> None:
    assert token_to_send(file, {"TRAINER_TOKEN": "other"}) == "first"
    assert token_to_send(None, {"TRAINER_TOKEN": "other\n"}) == "other"
    assert token_to_send(None, {}) == ""
    with pytest.raises(InputError, match="TRAINER_TOKEN: a token has only visible ASCII characters") as caught:
        token_to_send(None, {"TRAINER_TOKEN": "my secret"})
    assert "secret" not in str(caught.value)
