"""The BentoML model store: published atomically, read without importing BentoML.

BENTOML_HOME/models/NAME/VERSION/ holds a version with its model.yaml, BENTOML_HOME/models/NAME/latest the name of the
version that NAME means. BentoML writes both in place; here a version is built aside and renamed in, so that a reader
sees all of it or nothing.

A version that is published and not promoted has the reasons in its model.yaml, too: BentoML points `latest` at the
newest version whenever one is deleted, and such a version is passed over then.
"""

from __future__ import annotations

import collections
import difflib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from trainer.artifact.spec import read_spec
from trainer.config import slug
from trainer.errors import InputError, RunError
from trainer.files import can_write, write_text

log = logging.getLogger("trainer")

LABELS = {"trainer": "fit"}  # on every model that is published here
MODEL_YAML = "model.yaml"
LATEST = "latest"
NOT_PROMOTED = "not_promoted"  # in the metadata of model.yaml: the reasons
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
    not_promoted: tuple[str, ...]  # the reasons why NAME alone does not mean it; of others ()
    is_latest: bool = False  # NAME alone means it


# Gets the version that a name means, and gives the reasons why a new one should not take its place.
Judge = Callable[[StoredModel | None], Sequence[str]]


def publish(export_dir: Path, name: str, judge: Judge = lambda latest: ()) -> str:
    """Copy an artifact into the store as a new version of `name`, promoted unless `judge` has reasons; its tag.

    Nobody else publishes between the judgement and the end.

    Atomic: no reader sees a part of a version, other publishers do no harm, and a killed one leaves nothing in
    the way. Raises RunError where the store cannot be written (a full disk), and it holds what it held before;
    InputError for a name that the store does not allow.
    """
    if slug(name) != name:
        raise InputError(f"{name!r} is no model name; use up to 63 of a-z, 0-9, '.', '_' and '-', such as {slug(name)}")
    home = _home()
    # On the same file system as the models, but where BentoML looks for none.
    workshop = home / "trainer-publish"
    with _locked(home, f"nothing is published, the model stays in {export_dir}"):
        workshop.mkdir(exist_ok=True)
        for leftover in workshop.iterdir():  # of a publisher that was killed: a living one holds the lock
            shutil.rmtree(leftover, ignore_errors=True)
        latest = next((model for model in models() if model.is_latest and model.path.parent.name == name), None)
        reasons = judge(latest)
        with tempfile.TemporaryDirectory(dir=workshop, ignore_cleanup_errors=True) as private:
            version = _build(export_dir, name, reasons, Path(private))
            _move_in(version, home / "models" / name, promoted=not reasons)
    tag = f"{name}:{version.name}"
    log.info("published %s", tag)
    return tag


def promote(tag: str) -> tuple[StoredModel, StoredModel | None]:
    """Let NAME mean the version that `tag` names; that version, and the one that NAME meant before.

    Newer versions have a reason then, so that `latest` does not come back to them. Raises InputError for a tag that the
    store does not hold, and RunError where the store cannot be written.
    """
    chosen = find(tag)
    with _locked(_home(), "nothing is promoted"):
        versions = [model for model in models() if model.path.parent == chosen.path.parent]
        replaced = next((model for model in versions if model.is_latest), None)
        _write_reasons(chosen.path, ())
        write_text(chosen.path.parent / LATEST, chosen.path.name)
        for model in versions:
            if model.created > chosen.created and not model.not_promoted:
                _write_reasons(model.path, (f"{chosen.tag} was promoted instead",))
    return chosen, replaced


def refuse_unwritable() -> None:
    """Raise InputError where `publish` could not write, before the work that it comes after."""
    home = _home()
    if not can_write(home):
        raise InputError(
            f"the model store {home} cannot be written; set BENTOML_HOME to another place, or --no-save keeps the "
            "model in its run folder"
        )


def find(tag: str | None) -> StoredModel:
    """The model that NAME, NAME:latest or NAME:VERSION means; None: the newest of those that some name means.

    Raises InputError, with the nearest names and what to do, where there is none.
    """
    stored = models()
    if not stored:
        raise InputError(f"the model store {_home()} holds no model of trainer; {MAKE_ONE}")
    if tag is None:
        for model in stored:
            if model.is_latest:
                return model
        raise InputError(
            f"no model in the store {_home()} is promoted; NAME:VERSION means any of them, and "
            f"`trainer promote {stored[0].tag}` promotes the newest"
        )
    name, _, version = tag.partition(":")
    versions = [model for model in stored if model.path.parent.name == name]
    if not versions:
        names = sorted({model.path.parent.name for model in stored})
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
        raise InputError(f"{tag}: no model {name!r} in the store {_home()}; {hint}")
    by_name = version in ("", LATEST)
    for model in versions:
        if model.is_latest if by_name else model.path.name == version:
            return model
    shown = ", ".join(model.path.name for model in versions[:5]) + (", …" if len(versions) > 5 else "")
    if by_name:
        raise InputError(
            f"{tag}: no version of {name} is promoted ({versions[0].tag}: {'; '.join(versions[0].not_promoted)}); "
            f"there are {shown}; NAME:VERSION means any, and `trainer promote {versions[0].tag}` promotes it"
        )
    raise InputError(f"{tag}: the store {_home()} has no such version of {name}; there are {shown}")


def models() -> list[StoredModel]:
    """The models that `trainer` has made, the newest first."""
    stored = sorted(_stored(), key=lambda model: (model.created, model.tag), reverse=True)
    versions = collections.defaultdict(list)
    for model in stored:
        versions[model.path.parent].append(model)
    latest = {_latest(folder, of_one_name) for folder, of_one_name in versions.items()}
    return [replace(model, is_latest=model.path in latest) for model in stored]


def _home() -> Path:
    return Path(os.environ.get("BENTOML_HOME") or Path.home() / "bentoml")


@contextmanager
def _locked(home: Path, consequence: str) -> Iterator[None]:
    """While it lasts, no other process publishes or promotes.

    Raises RunError, which ends in `consequence`, where the store cannot be locked or written.
    """
    from filelock import FileLock, Timeout

    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / "trainer-publish.lock", timeout=LOCK_TIMEOUT_S):
            yield
    except Timeout as error:
        raise RunError(f"the model store {home} is locked: another process is publishing to it") from error
    except OSError as error:
        raise RunError(f"the model store {home} cannot be written: {error.strerror or error}; {consequence}") from error


def _build(export_dir: Path, name: str, reasons: Sequence[str], private: Path) -> Path:
    """Make a new version, not promoted for these reasons, in a store of its own; the version's folder."""
    spec = read_spec(export_dir)
    metadata = {key: spec[key] for key in ("labels", "metrics", "quantization", "dataset")}
    # BentoML takes no null.
    metadata["metrics"] = {name: value for name, value in spec["metrics"].items() if value is not None}
    if reasons:
        metadata[NOT_PROMOTED] = list(reasons)
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


def _move_in(version: Path, versions: Path, *, promoted: bool) -> None:
    """Rename a finished version into the store, then, where it is promoted, point `latest` at it."""
    versions.mkdir(parents=True, exist_ok=True)
    # What can still fail for want of space comes before the rename.
    draft = versions / f".{LATEST}.draft"
    draft.write_text(version.name)
    os.rename(version, versions / version.name)
    if promoted:
        os.replace(draft, versions / LATEST)
    else:
        draft.unlink()


def _write_reasons(version: Path, reasons: Sequence[str]) -> None:
    """Write into the model.yaml of a version why it is not promoted."""
    file = version / MODEL_YAML
    description = yaml.safe_load(file.read_bytes())
    metadata = {key: value for key, value in _metadata(description).items() if key != NOT_PROMOTED}
    if reasons:
        metadata[NOT_PROMOTED] = list(reasons)
    text = yaml.safe_dump(description | {"metadata": metadata}, sort_keys=False, allow_unicode=True)
    # Beside the version: a leftover within would damage it.
    write_text(file, text, draft=version.with_name(f".{file.name}.draft"))


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
            not_promoted=tuple(_metadata(description).get(NOT_PROMOTED, ())),
        )


def _read_yaml(file: Path) -> dict[str, Any] | None:
    """A model.yaml; None where it is none or has just been deleted."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # tens of times faster, where it is built
    try:
        description = yaml.load(file.read_bytes(), Loader=loader)
    except (OSError, yaml.YAMLError):
        return None
    return description if isinstance(description, dict) and "creation_time" in description else None


def _metadata(description: dict[str, Any]) -> dict[str, Any]:
    return description.get("metadata") or {}


def _latest(folder: Path, versions: Sequence[StoredModel]) -> Path | None:
    """The version in `folder` that its name means: the one in `latest`, unless it is gone or not promoted.

    Then, and without that file, it is the newest without reasons against it. `versions` have the newest first.
    """
    candidates = [model.path for model in versions if not model.not_promoted]
    try:
        named = folder / (folder / LATEST).read_text().strip()
    except OSError:
        named = None
    return named if named in candidates else next(iter(candidates), None)
