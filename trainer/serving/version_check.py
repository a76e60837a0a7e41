"""Check of a version before it takes over, in a process of its own: `python -m trainer.serving.version_check FOLDER`.

Its settings come as JSON on stdin. It verifies the hashes, asks the network for its reference answers, and chooses its
runner. It prints a `Measured` as JSON; or one line on stderr, with exit code 2.

Another process, because a network can take so much that the process with the requests would stop answering: loading
and resizing hold the interpreter's lock (75 ms for MNIST's network, 400 ms for 64 photos), CPU time cannot be measured
beside requests, and what an engine does with a bad network may end the process.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import ArtifactError
from trainer.serving.start_throttle import start_throttle, stop_throttle

if TYPE_CHECKING:  # importing is throttled as well
    from trainer.serving.runner import Measured
    from trainer.serving.settings import Settings

ENGINE_SETTINGS = {"engine", "workers", "threads", "queue_length", "deadline_ms"}
SHARE = 0.25  # of one CPU: the rest is for requests
TIMEOUT_S = 600
PACKAGE_ROOT = Path(__file__).parents[2]


class VersionCheck:
    """The check of the version in `folder`."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder = folder
        self._settings = settings
        command = [sys.executable, "-m", "trainer.serving.version_check", str(folder)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=PACKAGE_ROOT)

    def result(self) -> Measured:
        """Wait for the end. Raises ArtifactError with the reason where the version cannot be served."""
        from pydantic import TypeAdapter

        from trainer.serving.runner import Measured

        try:
            settings = self._settings.model_dump_json(include=ENGINE_SETTINGS)
            out, err = self._process.communicate(settings, TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.stop()
            raise ArtifactError(f"{self._folder}: its check took more than {TIMEOUT_S} s") from None
        code = self._process.returncode
        if code < 0:
            raise ArtifactError(f"{self._folder}: its check ended by {signal.Signals(-code).name}")
        if code:
            raise ArtifactError(err.strip().rpartition("\n")[2])
        return TypeAdapter(Measured).validate_json(out)

    def stop(self) -> None:
        self._process.kill()


def main() -> None:
    start_throttle(SHARE)
    try:
        _check(Path(sys.argv[1]))
    except Exception as error:  # whatever an engine raises: the version cannot be served
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(ArtifactError.exit_code)
    finally:
        stop_throttle()  # Python ends without its handler, and the signal would be its end


def _check(folder: Path) -> None:
    from pydantic import TypeAdapter

    from trainer import artifact
    from trainer.artifact.engine import load_engine
    from trainer.artifact.reference import check_answers
    from trainer.serving.loaded_model import choose_runner, engine_threads
    from trainer.serving.runner import Measured
    from trainer.serving.settings import Settings

    settings = Settings.model_validate_json(sys.stdin.read())
    loaded = artifact.load(folder)
    check_answers(loaded, load_engine(loaded, settings.engine, engine_threads(settings)))
    runner = choose_runner(loaded, settings, lambda size, seconds: None)
    print(TypeAdapter(Measured).dump_json(runner.measured).decode())


if __name__ == "__main__":
    main()
