"""Swap in place: the store is watched, and a newly promoted version of the model takes over without a restart."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from pathlib import Path

from trainer import artifact
from trainer.artifact import MODEL_FILE, store
from trainer.errors import ArtifactError
from trainer.serving.inference import Inference
from trainer.serving.loaded_model import FailedVersion, LoadedModel, engine_threads, prepare_model
from trainer.serving.memory import MemoryBudget
from trainer.serving.metrics import Metrics
from trainer.serving.request import MIB
from trainer.serving.settings import Settings
from trainer.serving.version_check import VersionCheck

log = logging.getLogger("bentoml.trainer")  # below BentoML's own logger, which is set up when it serves

CHECK_BYTES = 64 * MIB  # of the process that checks a version, besides its engines
RELEASE_POLL_S = 0.5  # a stopping server does not wait longer
MAX_RELEASE_S = 60.0  # a request that takes longer frees the old model by itself, at its end

Files = tuple[tuple[str, int, int], ...]  # path, size and time of change of each file


class Watcher:
    """Follows the promoted version of one model, in a thread.

    A version is checked in a process of its own, loaded here, and becomes `inference.loaded`. One that fails is not
    tried again until its files change. Whatever the store shows, a model is only ever replaced, never unloaded.
    """

    def __init__(
        self, inference: Inference, folder: Path, settings: Settings, metrics: Metrics, memory: MemoryBudget
    ) -> None:
        """`folder`: the artifact that is served now."""
        self._inference = inference
        self._settings = settings
        self._metrics = metrics
        self._memory = memory
        self._name = inference.loaded.tag.partition(":")[0]
        self._engine_bytes = self._estimate_bytes(folder)
        self._tried: tuple[str, Files] | None = None  # the version that failed, as it was
        self._noted = ""
        self._check: VersionCheck | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """End the thread, and a check that is running."""
        self._stopped.set()
        if self._check:
            self._check.stop()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while not self._stopped.wait(self._settings.watch_s):
            try:
                self._look()
            except Exception as error:  # a store in any state
                self._note(f"the model store cannot be read: {error!r}; {self._inference.loaded.tag} stays")

    def _look(self) -> None:
        """Let the promoted version take over, unless it is served, or failed as it is."""
        served, promoted = self._inference.loaded.tag, store.promoted(self._name)
        failed = self._inference.failed_version
        if failed and (promoted is None or promoted.tag != failed.tag):
            self._metrics.on_failed_version(failed.tag, failed=False)
            self._inference.failed_version = self._tried = None
        if promoted is None:
            self._note(f"the store has no promoted version of {self._name}; {served} stays")
            return
        self._noted = ""
        if promoted.tag == served:
            return
        found = (promoted.tag, _files(promoted.path))
        if found == self._tried:
            return
        try:
            self._swap(promoted)
        except Exception as error:  # whatever an engine raises
            if not self._stopped.is_set():
                self._tried = found
                self._note_failed(promoted, error)

    def _swap(self, version: store.StoredModel) -> None:
        """Check and load a version, and serve it. Raises what makes it unfit to serve."""
        engine_bytes = self._estimate_bytes(version.path)
        needed = CHECK_BYTES + engine_bytes
        if needed > self._memory.size:
            sizes = f"{needed // MIB} MiB, and this server has {self._memory.size // MIB} MiB besides the served model"
            raise ArtifactError(f"too little memory: its check takes {sizes}")
        if not self._memory.take(needed):
            return  # requests have it: the next look tries again
        try:
            self._check = VersionCheck(version.path, self._settings)
            measured = self._check.result()
            packed = artifact.load(version.path)
            loaded = prepare_model(version.tag, packed, self._settings, self._metrics.on_batch, measured)
        except BaseException:
            self._memory.give_back(needed)
            raise
        finally:
            self._check = None
        self._take_over(loaded)
        self._memory.give_back(CHECK_BYTES + self._engine_bytes)
        self._engine_bytes = engine_bytes

    def _take_over(self, loaded: LoadedModel) -> None:
        """Serve `loaded` from the next request on; free the model before once its requests are answered."""
        old = self._inference.loaded
        old_tag, runner, explainer = old.tag, old.runner, old.explainer
        unused = threading.Event()
        weakref.finalize(old, unused.set)
        del old  # only requests have it from now on
        self._inference.loaded = loaded
        if failed := self._inference.failed_version:  # it has been mended
            self._metrics.on_failed_version(failed.tag, failed=False)
            self._inference.failed_version = None
        self._metrics.on_swap(old_tag, loaded.tag)
        log.info("%s has taken over from %s", loaded.tag, old_tag)
        # Here and not where the last request ends: that is the event loop, and freeing an engine takes up to 30 ms.
        deadline = time.monotonic() + MAX_RELEASE_S
        while not unused.wait(RELEASE_POLL_S):
            if self._stopped.is_set() or time.monotonic() > deadline:
                return
            gc.collect()  # the error of a request may hold the model, in a cycle
        runner.close()
        explainer.close()

    def _note_failed(self, version: store.StoredModel, error: Exception) -> None:
        reason = str(error).replace(f"{version.path}: ", "").replace(f"{version.path}/", "")
        self._inference.failed_version = FailedVersion(version.tag, reason)
        self._metrics.on_failed_version(version.tag, failed=True)
        log.warning("%s is not served: %s; %s stays", version.tag, reason, self._inference.loaded.tag)

    def _note(self, message: str) -> None:
        """Log a message once, however often the store is looked at."""
        if message != self._noted:
            self._noted = message
            log.warning("%s", message)

    def _estimate_bytes(self, folder: Path) -> int:
        """Estimated memory of an artifact's engines: parallel ones and the one for a single image, each with a copy of
        the weights.
        """
        file = folder / MODEL_FILE
        return (1 + engine_threads(self._settings)) * (file.stat().st_size if file.is_file() else 0)


def _files(folder: Path) -> Files:
    statuses = ((path, path.stat()) for path in folder.rglob("*"))
    return tuple(sorted((str(path), status.st_size, status.st_mtime_ns) for path, status in statuses))
