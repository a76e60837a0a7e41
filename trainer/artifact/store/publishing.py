"""Publishing and promoting models, atomically.

BentoML writes into the store in place. Here a version is built in a folder beside the models and renamed into the
store, so that a reader sees all of it or nothing.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from trainer.artifact.spec import read_spec
from trainer.artifact.store.stored_models import (
    LABELS,
    LATEST,
    MODEL_YAML,
    NOT_PROMOTED,
    StoredModel,
    find,
    metadata_of,
    models,
    store_home,
)
from trainer.errors import InputError, RunError
from trainer.files import can_write, copy_folder, rename_file, rename_folder, write_text
from trainer.names import slug

log = logging.getLogger("trainer")

# BentoML makes only model.yaml: otherwise it would copy all files through /tmp.
CREATE = """
import bentoml, json, sys
with bentoml.models.create(**json.load(sys.stdin)) as model:
    pass
print(model.tag.version)
"""
DRAFTS = "trainer-publish"  # folder on the file system of the models, but outside the one where BentoML looks for them
LOCK_TIMEOUT_S = 600  # another publisher may be copying hundreds of megabytes

# The version promoted now → reasons against promoting the new one in its place.
PromotionCheck = Callable[[StoredModel | None], Sequence[str]]


def publish(export_dir: Path, name: str, reasons_against: PromotionCheck = lambda latest: ()) -> str:
    """Copy an artifact into the store as a new version of `name`, promoted unless there are reasons against → its tag.

    A lock keeps other publishers out from the check to the end. Atomic: no reader sees a part of a version, and a
    killed publisher blocks nobody. Raises RunError if the store cannot be written (a full disk); it then holds what it
    held before, or at the very end the whole version, which `promote` promotes. Raises InputError for a name that the
    store does not allow.
    """
    if slug(name) != name:
        raise InputError(f"{name!r} is no model name; use up to 63 of a-z, 0-9, '.', '_' and '-', such as {slug(name)}")
    home = store_home()
    drafts = home / DRAFTS
    with _locked(home, f"nothing is published, the model stays in {export_dir}"):
        drafts.mkdir(exist_ok=True)
        latest = next((model for model in models() if model.is_latest and model.path.parent.name == name), None)
        reasons = reasons_against(latest)
        with tempfile.TemporaryDirectory(dir=drafts, ignore_cleanup_errors=True) as private:
            version = _build(export_dir, name, reasons, Path(private))
            _move_in(version, home / "models" / name, promoted=not reasons)
    tag = f"{name}:{version.name}"
    log.info("published %s", tag)
    return tag


def promote(tag: str) -> tuple[StoredModel, StoredModel | None]:
    """Make the version `tag` the one that its NAME means; returns it and the version promoted before.

    Newer versions get a reason, so that `latest` does not return to them. Raises InputError for a tag that is not in
    the store, RunError if the store cannot be written.
    """
    chosen = find(tag)
    with _locked(store_home(), "nothing is promoted"):
        versions = [model for model in models() if model.path.parent == chosen.path.parent]
        replaced = next((model for model in versions if model.is_latest), None)
        _write_reasons(chosen.path, ())
        write_text(chosen.path.parent / LATEST, chosen.path.name)
        for model in versions:
            if model.created > chosen.created and not model.not_promoted:
                _write_reasons(model.path, (f"{chosen.tag} was promoted instead",))
    return chosen, replaced


def refuse_unwritable() -> None:
    """Raise InputError if `publish` could not write; called before the training."""
    home = store_home()
    if not can_write(home):
        raise InputError(
            f"the model store {home} cannot be written; set BENTOML_HOME to another folder, or --no-save keeps the "
            "model in its run folder"
        )


def delete_drafts() -> None:
    """Delete what killed publishers have left. Raises RunError if the store cannot be written."""
    with _locked(store_home(), "nothing is deleted"):
        pass


@contextmanager
def _locked(home: Path, consequence: str) -> Iterator[None]:
    """Keep other processes from publishing and promoting.

    Raises RunError, whose message ends in `consequence`, if the store cannot be locked or written.
    """
    from trainer.locks import ProcessLock, Timeout

    try:
        home.mkdir(parents=True, exist_ok=True)
        with ProcessLock(home / "trainer-publish.lock", timeout_s=LOCK_TIMEOUT_S):
            for leftover in (home / DRAFTS).glob("*"):  # of a publisher that was killed: a running one holds the lock
                shutil.rmtree(leftover, ignore_errors=True)
            yield
    except Timeout as error:
        raise RunError(f"the model store {home} is locked: another process is publishing to it") from error
    except OSError as error:
        raise RunError(f"the model store {home} cannot be written: {error.strerror or error}; {consequence}") from error


def _build(export_dir: Path, name: str, reasons: Sequence[str], private: Path) -> Path:
    """Make a new version in a private store; returns its folder."""
    spec = read_spec(export_dir)
    metadata = {key: spec[key] for key in ("labels", "metrics", "quantization", "dataset")}
    # BentoML accepts no null.
    metadata["metrics"] = {name: value for name, value in spec["metrics"].items() if value is not None}
    if reasons:
        metadata[NOT_PROMOTED] = list(reasons)
    arguments = {"name": name, "labels": LABELS, "metadata": metadata}
    # This runs in another process, because BentoML reads the location of its store once, at import.
    done = subprocess.run(
        [sys.executable, "-c", CREATE],
        input=json.dumps(arguments),
        env=os.environ | {"BENTOML_HOME": str(private), "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise OSError(done.stderr.strip().splitlines()[-1])
    version = private / "models" / name / done.stdout.split()[-1]
    copy_folder(export_dir, version)
    return version


def _move_in(version: Path, versions: Path, *, promoted: bool) -> None:
    """Rename a finished version into the store; if promoted, point `latest` at it."""
    versions.mkdir(parents=True, exist_ok=True)
    # Every write that a full disk can fail comes before the rename.
    draft = versions / f".{LATEST}.draft"
    if promoted:
        draft.write_text(version.name)
    rename_folder(version, versions / version.name)
    if promoted:
        rename_file(draft, versions / LATEST)


def _write_reasons(version: Path, reasons: Sequence[str]) -> None:
    """Replace the reasons against promotion in the model.yaml of a version."""
    file = version / MODEL_YAML
    description = yaml.safe_load(file.read_bytes())
    metadata = {key: value for key, value in metadata_of(description).items() if key != NOT_PROMOTED}
    if reasons:
        metadata[NOT_PROMOTED] = list(reasons)
    text = yaml.safe_dump(description | {"metadata": metadata}, sort_keys=False, allow_unicode=True)
    # The draft lies beside the version: a leftover in it would be a damaged artifact.
    write_text(file, text, draft=version.with_name(f".{file.name}.draft"))
