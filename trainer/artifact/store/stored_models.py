"""The models of the store, read from their model.yaml files.

A version that was published but not promoted has the reasons in its model.yaml: BentoML points `latest` at the newest
version whenever one is deleted, and a version with reasons is skipped then.
"""

from __future__ import annotations

import collections
import difflib
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from trainer.errors import InputError

LABELS = {"trainer": "fit"}  # on every published model
MODEL_YAML = "model.yaml"
LATEST = "latest"
NOT_PROMOTED = "not_promoted"  # key in the metadata of model.yaml: the reasons
MAX_SHOWN_VERSIONS = 5


@dataclass(frozen=True)
class StoredModel:
    """A version in the store that `trainer` published."""

    tag: str  # NAME:VERSION
    path: Path
    created: datetime  # with a time zone
    not_promoted: tuple[str, ...]  # the reasons against promoting it, or ()
    is_latest: bool = False  # whether NAME alone means this version

    @property
    def size_bytes(self) -> int:
        """Total size of its files."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())


def store_home() -> Path:
    """The folder of the store: $BENTOML_HOME, or ~/bentoml."""
    return Path(os.environ.get("BENTOML_HOME") or Path.home() / "bentoml")


def models(name: str | None = None) -> list[StoredModel]:
    """The models in the store that `trainer` published, newest first: all, or the versions of `name`."""
    stored = sorted(_read_all(name or "*"), key=lambda model: (model.created, model.tag), reverse=True)
    versions = collections.defaultdict(list)
    for model in stored:
        versions[model.path.parent].append(model)
    latest = {_latest(folder, of_one_name) for folder, of_one_name in versions.items()}
    return [replace(model, is_latest=model.path in latest) for model in stored]


def find(tag: str | None) -> StoredModel:
    """The model of a tag NAME, NAME:latest or NAME:VERSION; None: the newest promoted model of all names.

    Raises InputError, with the nearest names and what to do, if there is none.
    """
    home, stored = store_home(), models()
    if not stored:
        raise InputError(
            f"the model store {home} holds no model of trainer; `trainer fit --dataset builtin:digits` makes one"
        )
    if tag is None:
        for model in stored:
            if model.is_latest:
                return model
        raise InputError(
            f"no model in the store {home} is promoted; NAME:VERSION means any of them, and "
            f"`trainer promote {stored[0].tag}` promotes the newest"
        )
    name, _, version = tag.partition(":")
    versions = [model for model in stored if model.path.parent.name == name]
    if not versions:
        names = sorted({model.path.parent.name for model in stored})
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
        if name in ("http", "https"):
            hint = f"did you mean --url {tag}?"
        raise InputError(f"{tag}: no model {name!r} in the store {home}; {hint}")
    by_name = version in ("", LATEST)
    for model in versions:
        if model.is_latest if by_name else model.path.name == version:
            return model
    shown = ", ".join(model.path.name for model in versions[:MAX_SHOWN_VERSIONS])
    shown += ", …" if len(versions) > MAX_SHOWN_VERSIONS else ""
    if by_name:
        raise InputError(
            f"{tag}: no version of {name} is promoted ({versions[0].tag}: {'; '.join(versions[0].not_promoted)}); "
            f"there are {shown}; NAME:VERSION means any, and `trainer promote {versions[0].tag}` promotes it"
        )
    raise InputError(f"{tag}: the store {home} has no such version of {name}; there are {shown}")


def promoted(name: str) -> StoredModel | None:
    """The promoted version of `name`; None without one. Cheap enough to be called every second."""
    return next((model for model in models(name) if model.is_latest), None)


def metadata_of(description: dict[str, Any]) -> dict[str, Any]:
    """The metadata in the contents of a model.yaml."""
    return description.get("metadata") or {}


def _read_all(name: str) -> Iterator[StoredModel]:
    """The versions whose name matches the pattern `name`, in any order."""
    for file in (store_home() / "models").glob(f"{name}/*/{MODEL_YAML}"):
        description = _read_yaml(file)
        if description is None or (description.get("labels") or {}).get("trainer") != LABELS["trainer"]:
            continue
        version = file.parent
        created = datetime.fromisoformat(str(description["creation_time"]))
        yield StoredModel(
            tag=f"{version.parent.name}:{version.name}",
            path=version,
            created=created if created.tzinfo else created.replace(tzinfo=UTC),
            not_promoted=tuple(metadata_of(description).get(NOT_PROMOTED, ())),
        )


def _read_yaml(file: Path) -> dict[str, Any] | None:
    """The contents of a model.yaml; None if it is damaged or was just deleted."""
    try:
        status = file.stat()
        description = _parse_yaml(file, status.st_ino, status.st_mtime_ns, status.st_size)
    except (OSError, yaml.YAMLError):
        return None
    return description if isinstance(description, dict) and "creation_time" in description else None


@functools.lru_cache(maxsize=1024)
def _parse_yaml(file: Path, *_: int) -> Any:
    """The values in a YAML file, which are shared: read only. The other arguments change when the file does."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # tens of times faster, if PyYAML was built with it
    return yaml.load(file.read_bytes(), Loader=loader)


def _latest(folder: Path, versions: Sequence[StoredModel]) -> Path | None:
    """The promoted version in `folder`: the one that the file `latest` names.

    If that version is gone or was not promoted, or there is no such file: the newest without reasons against it.
    `versions` are sorted newest first.
    """
    candidates = [model.path for model in versions if not model.not_promoted]
    try:
        named = folder / (folder / LATEST).read_text().strip()
    except OSError:
        named = None
    return named if named in candidates else next(iter(candidates), None)
