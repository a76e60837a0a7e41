"""The BentoML model store: published atomically, read without importing BentoML.

BENTOML_HOME/models/NAME/VERSION/ holds a version with its model.yaml, BENTOML_HOME/models/NAME/latest the newest
version's name. BentoML writes both in place; here a version is built aside and renamed in, so that a reader sees
all of it or nothing.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from trainer.artifact.spec import read_spec
from trainer.config import InputError, RunError, slug
from trainer.machine import can_write

log = logging.getLogger("trainer")

LABELS = {"trainer": "fit"}  # on every model that is published here
MODEL_YAML = "model.yaml"
LATEST = "latest"
MAKE_ONE = "`trainer fit --dataset builtin:digits` makes one"
# Only model.yaml is made: the files need not pass through /tmp.
CREATE = """
import bentoml, json, sys
with bentoml.models.create(**json.load(sys.stdin)) as model:
    pass
print(model.tag.version)
"""
LOCK_TIMEOUT_S = 600  # another publisher copies some hundred megabytes


@dataclass(frozen=True)
class StoredModel:
    """A model of the store that `trainer` has made."""

    tag: str  # NAME:VERSION
    path: Path
    created: datetime  # with a time zone
    size_bytes: int


def publish(export_dir: Path, name: str) -> str:
    """Copy an artifact into the store as a new version of `name`, the newest; its tag.

    Atomic: no reader sees a part of a version, other publishers do no harm, and a killed one leaves nothing in
    the way. Raises RunError where the store cannot be written (a full disk), and it holds what it held before;
    InputError for a name that the store does not allow.
    """
    from filelock import FileLock, Timeout

    if slug(name) != name:
        raise InputError(f"{name!r} is no model name; use up to 63 of a-z, 0-9, '.', '_' and '-', such as {slug(name)}")
    home = _home()
    # On the same file system as the models, but where BentoML looks for none.
    workshop = home / "trainer-publish"
    try:
        workshop.mkdir(parents=True, exist_ok=True)
        with FileLock(home / "trainer-publish.lock", timeout=LOCK_TIMEOUT_S):
            for leftover in workshop.iterdir():  # of a publisher that was killed: a living one holds the lock
                shutil.rmtree(leftover, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=workshop, ignore_cleanup_errors=True) as private:
                version = _build(export_dir, name, Path(private))
                _move_in(version, home / "models" / name)
    except Timeout as error:
        raise RunError(f"the model store {home} is locked: another process is publishing to it") from error
    except OSError as error:
        raise RunError(
            f"the model store {home} cannot be written: {error.strerror or error}; nothing is published, "
            f"the model stays in {export_dir}"
        ) from error
    tag = f"{name}:{version.name}"
    log.info("published %s", tag)
    return tag


def refuse_unwritable() -> None:
    """Raise InputError where `publish` could not write, before the work that it comes after."""
    home = _home()
    if not can_write(home):
        raise InputError(
            f"the model store {home} cannot be written; set BENTOML_HOME to another place, or --no-save keeps the "
            "model in its run folder"
        )


def find(tag: str | None) -> StoredModel:
    """The model that NAME, NAME:latest or NAME:VERSION means; None: the newest across names.

    Raises InputError, with the nearest names and what to do, where there is none.
    """
    stored = models()
    if not stored:
        raise InputError(f"the model store {_home()} holds no model of trainer; {MAKE_ONE}")
    if tag is None:
        return stored[0]
    name, _, version = tag.partition(":")
    versions = [model for model in stored if model.path.parent.name == name]
    if not versions:
        names = sorted({model.path.parent.name for model in stored})
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
        raise InputError(f"{tag}: no model {name!r} in the store {_home()}; {hint}")
    if version in ("", LATEST):
        version = _latest(versions)
    for model in versions:
        if model.path.name == version:
            return model
    shown = ", ".join(model.path.name for model in versions[:5]) + (", …" if len(versions) > 5 else "")
    raise InputError(f"{tag}: the store {_home()} has no such version of {name}; there are {shown}")


def models() -> list[StoredModel]:
    """The models that `trainer` has made, the newest first."""
    return sorted(_stored(), key=lambda model: (model.created, model.tag), reverse=True)


def _home() -> Path:
    return Path(os.environ.get("BENTOML_HOME") or Path.home() / "bentoml")


def _build(export_dir: Path, name: str, private: Path) -> Path:
    """Make a new version in a store of its own; the version's folder."""
    spec = read_spec(export_dir)
    metadata = {key: spec[key] for key in ("labels", "metrics", "quantization", "dataset")}
    # BentoML takes no null.
    metadata["metrics"] = {name: value for name, value in spec["metrics"].items() if value is not None}
    arguments = {"name": name, "labels": LABELS, "metadata": metadata}
    # A process of its own: BentoML reads once, when it is imported, where its store is.
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
    shutil.copytree(export_dir, version, dirs_exist_ok=True)
    return version


def _move_in(version: Path, versions: Path) -> None:
    """Rename a finished version into the store, then point `latest` at it."""
    versions.mkdir(parents=True, exist_ok=True)
    # What can still fail for want of space comes before the rename.
    draft = versions / f".{LATEST}.draft"
    draft.write_text(version.name)
    os.rename(version, versions / version.name)
    os.replace(draft, versions / LATEST)


def _stored() -> Iterator[StoredModel]:
    for file in (_home() / "models").glob(f"*/*/{MODEL_YAML}"):
        description = _read_yaml(file)
        if description is None or (description.get("labels") or {}).get("trainer") != LABELS["trainer"]:
            continue
        version = file.parent
        created = datetime.fromisoformat(str(description["creation_time"]))
        yield StoredModel(
            tag=f"{version.parent.name}:{version.name}",
            path=version,
            created=created if created.tzinfo else created.replace(tzinfo=UTC),
            size_bytes=sum(path.stat().st_size for path in version.rglob("*") if path.is_file()),
        )


def _read_yaml(file: Path) -> dict[str, Any] | None:
    """A model.yaml; None where it is none or has just been deleted."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # tens of times faster, where it is built
    try:
        description = yaml.load(file.read_bytes(), Loader=loader)
    except (OSError, yaml.YAMLError):
        return None
    return description if isinstance(description, dict) and "creation_time" in description else None


def _latest(versions: list[StoredModel]) -> str:
    """The version that the `latest` file names; without one, or where it is gone, the newest."""
    try:
        version = (versions[0].path.parent / LATEST).read_text().strip()
    except OSError:
        version = ""
    names = [model.path.name for model in versions]
    return version if version in names else names[0]
