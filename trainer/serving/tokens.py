"""Bearer tokens, one a line in a file that is read again while the server runs."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from trainer.errors import InputError

log = logging.getLogger("bentoml.trainer")  # below BentoML's own logger, which is set up when it serves

VARIABLE = "TRAINER_TOKEN"  # read by clients
READ_EVERY_S = 1.0
MAX_FILE_BYTES = 16 << 10  # bytes: hundreds of tokens, every one of which is compared in every request


def read_tokens(path: Path) -> list[str]:
    """The tokens of a file. Blank lines, and lines that begin with `#`, are left out.

    Raises InputError for a file that cannot be read, is no text, or has a line that no request could carry. The
    message never quotes the file.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise InputError(f"{path} is no file")
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        lines = data.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text: one token a line is expected") from None
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{path} is too large: at most {MAX_FILE_BYTES >> 10} KiB are read")
    tokens = []
    for number, line in enumerate(lines, 1):
        token = line.strip()
        if not token or token.startswith("#"):
            continue
        _check(token, f"{path}, line {number}")
        tokens.append(token)
    return tokens


def read_required_tokens(path: Path) -> list[str]:
    """As `read_tokens`, at least one. Raises InputError for a file without any."""
    tokens = read_tokens(path)
    if not tokens:
        raise InputError(f"{path} holds no token: one a line is expected")
    return tokens


def token_to_send(path: Path | None, environment: Mapping[str, str]) -> str:
    """A client's token: the first of the file, else the environment's TRAINER_TOKEN; empty without either."""
    if path:
        return read_required_tokens(path)[0]
    token = environment.get(VARIABLE, "").strip()
    _check(token, VARIABLE)
    return token


def _check(token: str, where: str) -> None:
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise InputError(f"{where}: a token has only visible ASCII characters, and no space")


class Tokens:
    """The tokens that are valid now, kept as hashes and never logged.

    A file without a token revokes all. A missing or wrong file changes nothing, as a new one may be on its way; this is
    logged once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digests: list[bytes] = []
        self._problem = ""
        self._read()

    def refusal(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Reason to refuse a request with these headers (names in lower case); None where its token is valid."""
        if time.monotonic() >= self._read_again:
            self._read()
        value = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, token = value.partition(b" ")
        if scheme.lower() != b"bearer":
            return "a token is expected, as the header Authorization: Bearer TOKEN"
        digest = hashlib.sha256(token.strip()).digest()
        valid = False
        for valid_digest in self._digests:  # all of them, so that the time taken reveals nothing
            valid |= hmac.compare_digest(valid_digest, digest)
        return None if valid else "this token is not valid"

    def _read(self) -> None:
        self._read_again = time.monotonic() + READ_EVERY_S
        try:
            digests = [hashlib.sha256(token.encode()).digest() for token in read_tokens(self._path)]
        except InputError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                outcome = "the tokens from before stay valid" if self._digests else "all requests are refused"
                log.error("token_file: %s; %s", error, outcome)
            return
        if digests != self._digests or self._problem:
            self._digests, self._problem = digests, ""
            if digests:
                log.info("token_file: tokens in %s: %d", self._path, len(digests))
            else:
                log.warning("token_file: %s holds no token; all requests are refused", self._path)
