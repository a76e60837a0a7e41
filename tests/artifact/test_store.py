from __future__ import annotations

import datetime
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_model import write_tiny_spec

from trainer import artifact
from trainer.artifact import store
from trainer.errors import ArtifactError, InputError, RunError

PUBLISH = (
    "import sys; from pathlib import Path; from trainer.artifact import store; "
    "print(store.publish(Path(sys.argv[1]), sys.argv[2], lambda latest: ['the second'] if latest else []))"
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    return tmp_path / "bentoml"


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """An artifact without a real network: the store does not read it."""
    folder = tmp_path / "export"
    (folder / "saved_model").mkdir(parents=True)
    (folder / "model.tflite").write_bytes(os.urandom(100_000))
    (folder / "saved_model" / "saved_model.pb").write_bytes(b"graph")
    write_tiny_spec(folder)
    return folder


def bentoml_models(home: Path, *arguments: str) -> str:
    """Output of `bentoml models …` for the store at `home`."""
    return subprocess.run(
        [Path(sys.executable).parent / "bentoml", "models", *arguments],
        env=os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout


def test_other_users_may_read_what_they_might_before(home: Path, export: Path) -> None:
    """The image's server is another user than the one that published."""
    for path in (export, *export.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    version = store.find(store.publish(export, "mnist")).path
    assert {oct(path.stat().st_mode & 0o777) for path in (version, version / "saved_model")} == {"0o755"}
    assert oct((version / "model.tflite").stat().st_mode & 0o777) == "0o644"
    assert (version / "model.yaml").stat().st_mode & 0o044 == 0o044


def test_publish_and_find(home: Path, export: Path) -> None:
    before = datetime.datetime.now(datetime.UTC)
    tag = store.publish(export, "mnist")
    name, version = tag.split(":")
    assert name == "mnist"
    for spelling in ("mnist", "mnist:latest", tag, None):
        found = store.find(spelling)
        assert (found.tag, found.path) == (tag, home / "models" / "mnist" / version)
    assert before <= found.created <= datetime.datetime.now(datetime.UTC)
    assert found.size_bytes == sum(path.stat().st_size for path in found.path.rglob("*") if path.is_file())
    assert artifact.load(found.path).class_names[0] == "0"


def test_bentoml_sees_labels_and_metrics(home: Path, export: Path) -> None:
    tag = store.publish(export, "mnist")
    model = json.loads(bentoml_models(home, "get", "mnist:latest", "-o", "json"))
    assert f"{model['name']}:{model['version']}" == tag
    assert model["labels"] == {"trainer": "fit"}
    assert model["metadata"]["labels"][9] == "drei Punkte … é"
    assert model["metadata"]["metrics"] == {"test_accuracy": 0.5, "val_accuracy": 0.25}
    assert tag in bentoml_models(home, "list", "-o", "json")


def test_a_metric_may_be_null(home: Path, export: Path) -> None:
    spec = artifact.read_spec(export)
    spec["metrics"]["int8_agreement"] = None
    (export / "spec.json").write_text(json.dumps(spec))
    stored = store.find(store.publish(export, "mnist"))
    assert artifact.read_spec(stored.path)["metrics"]["int8_agreement"] is None


def test_the_newest_is_latest_and_comes_first(home: Path, export: Path) -> None:
    first = store.publish(export, "mnist")
    other = store.publish(export, "digits")
    second = store.publish(export, "mnist")
    assert [model.tag for model in store.models()] == [second, other, first]
    assert store.find("mnist").tag == second
    assert store.find("digits").tag == other
    assert store.find(None).tag == second
    assert (home / "models" / "mnist" / "latest").read_text() == second.split(":")[1]


@pytest.mark.usefixtures("home")
def test_the_promoted_version_of_one_name_follows_the_store(export: Path) -> None:
    assert store.promoted("mnist") is None
    first, second = store.publish(export, "mnist"), store.publish(export, "mnist")
    store.publish(export, "digits")
    found = store.promoted("mnist")
    assert found
    assert found.tag == second
    store.promote(first)
    found = store.promoted("mnist")
    assert found
    assert found.tag == first
    # The file `latest` names a version that was deleted, and the other one has a reason against it.
    shutil.rmtree(found.path)
    assert store.promoted("mnist") is None


@pytest.mark.usefixtures("home")
def test_an_empty_store_names_the_command_that_makes_a_model() -> None:
    assert store.models() == []
    for tag in (None, "mnist"):
        with pytest.raises(InputError, match=r"`trainer fit .*`"):
            store.find(tag)


@pytest.mark.usefixtures("home")
def test_unknown_names_and_versions_are_refused(export: Path) -> None:
    tag = store.publish(export, "mnist")
    with pytest.raises(InputError, match=r"'mnits' .* mnist\?"):
        store.find("mnits")
    with pytest.raises(InputError, match=r"'flowers' .* mnist"):
        store.find("flowers:latest")
    with pytest.raises(InputError, match=f"mnist; there are {tag.split(':')[1]}"):
        store.find("mnist:nonesuch")


@pytest.mark.usefixtures("home")
def test_a_name_that_bentoml_refuses_is_refused(export: Path) -> None:
    with pytest.raises(InputError, match="my-model"):
        store.publish(export, "My Model")


def test_other_models_and_partial_versions_are_skipped(home: Path, export: Path) -> None:
    tag = store.publish(export, "mnist")
    foreign = home / "models" / "other" / "v1"
    foreign.mkdir(parents=True)
    description = yaml.safe_load((store.find(tag).path / "model.yaml").read_text())
    (foreign / "model.yaml").write_text(yaml.safe_dump(description | {"labels": {}}))
    (home / "models" / "mnist" / "partial").mkdir()
    (home / "models" / "mnist" / "broken").mkdir()
    (home / "models" / "mnist" / "broken" / "model.yaml").write_text("name: [")
    assert [model.tag for model in store.models()] == [tag]


@pytest.mark.parametrize("latest", [None, "gone"])
def test_without_a_usable_latest_file_the_newest_is_latest(home: Path, export: Path, latest: str | None) -> None:
    store.publish(export, "mnist")
    newest = store.publish(export, "mnist")
    file = home / "models" / "mnist" / "latest"
    file.unlink()
    if latest:
        file.write_text(latest)
    assert store.find("mnist").tag == newest


def test_a_version_that_is_not_promoted_is_kept_and_not_latest(home: Path, export: Path) -> None:
    seen: list[str | None] = []

    def reasons_against(latest: store.StoredModel | None) -> list[str]:
        seen.append(latest.tag if latest else None)
        return ["worse"]

    first = store.publish(export, "mnist", reasons_against)
    with pytest.raises(InputError, match=rf"`trainer promote {first}`"):
        store.find(None)
    reason_and_command = rf"\({first}: worse\); there are {first[6:]}; .*promote {first}`"
    with pytest.raises(InputError, match=reason_and_command):
        store.find("mnist")
    bentoml_models(home, "get", "mnist")  # writes the file `latest`
    assert (home / "models" / "mnist" / "latest").read_text() == first[6:]
    with pytest.raises(InputError, match=reason_and_command):
        store.find("mnist:latest")
    good = store.publish(export, "mnist")
    kept = store.publish(export, "mnist", reasons_against)
    assert seen == [None, good]
    assert [(model.tag, model.is_latest, model.not_promoted) for model in store.models()] == [
        (kept, False, ("worse",)),
        (good, True, ()),
        (first, False, ("worse",)),
    ]
    assert (store.find("mnist").tag, store.find(None).tag, store.find(kept).tag) == (good, good, kept)
    assert (home / "models" / "mnist" / "latest").read_text() == good[6:]


def test_promote(home: Path, export: Path) -> None:
    old = store.publish(export, "mnist")
    other = store.publish(export, "digits")
    new = store.publish(export, "mnist")
    kept = store.publish(export, "mnist", lambda latest: ["worse"])
    for chosen, replaced in ((kept, new), (old, kept)):
        promoted, before = store.promote(chosen)
        assert (promoted.tag, before and before.tag) == (chosen, replaced)
        assert (store.find("mnist").tag, store.find("digits").tag) == (chosen, other)
        artifact.load(promoted.path)
    shown = json.loads(bentoml_models(home, "get", "mnist", "-o", "json"))
    assert (shown["version"], shown["metadata"]["labels"][9]) == (old[6:], "drei Punkte … é")
    reasons = {model.tag: model.not_promoted for model in store.models() if model.not_promoted}
    assert reasons == dict.fromkeys((kept, new), (f"{old} was promoted instead",))
    bentoml_models(home, "delete", "--yes", new)
    assert (home / "models" / "mnist" / "latest").read_text() == kept[6:]  # BentoML writes the newest
    assert store.find("mnist").tag == old  # not one that was replaced by an older version
    with pytest.raises(InputError, match="mnist:nonesuch"):
        store.promote("mnist:nonesuch")


def test_two_publishers_do_not_harm_each_other(home: Path, export: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", PUBLISH, str(export), "mnist"], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    tags = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(model.tag for model in store.models()) == sorted(tags)
    for tag in tags:
        artifact.load(store.find(tag).path)
    second, first = store.models()  # checked after the first was published
    assert (store.find("mnist"), second.not_promoted) == (first, ("the second",))
    assert list((home / "trainer-publish").iterdir()) == []


def test_a_killed_publisher_leaves_nothing_in_the_way(home: Path, export: Path) -> None:
    """Killed during the copy: the store is listed, and the next publisher removes the leftovers."""
    tag = store.publish(export, "mnist")
    code = (
        "import time; from trainer.artifact.store import publishing; "
        "publishing.copy_folder = lambda *a: (print('copying', flush=True), time.sleep(60)); "
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code + PUBLISH, str(export), "mnist"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "copying\n"
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    assert len(list((home / "trainer-publish").iterdir())) == 1
    assert bentoml_models(home, "list", "-o", "json").count('"tag"') == 1
    assert [model.tag for model in store.models()] == [tag]
    second = store.publish(export, "mnist")
    assert list((home / "trainer-publish").iterdir()) == []
    assert store.find("mnist").tag == second


def test_a_full_disk_leaves_the_store_as_it_was(home: Path, export: Path) -> None:
    """A limit on file sizes fails the same system call, write(2), as a full disk."""
    tag = store.publish(export, "mnist")
    before = sorted(path for path in (home / "models").rglob("*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(RunError, match=r"cannot be written: .*export") as caught:
            store.publish(export, "mnist")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert sorted(path for path in (home / "models").rglob("*")) == before
    assert list((home / "trainer-publish").iterdir()) == []
    assert store.find("mnist").tag == tag


def test_an_unfinished_export_is_not_published(home: Path, export: Path) -> None:
    shutil.rmtree(export / "saved_model")
    (export / "spec.json").unlink()
    with pytest.raises(ArtifactError, match=r"spec\.json"):
        store.publish(export, "mnist")
    assert store.models() == []
    assert not (home / "models").exists()


@pytest.mark.usefixtures("home")
def test_reading_the_store_imports_neither_bentoml_nor_tensorflow(export: Path) -> None:
    store.publish(export, "mnist")
    code = (
        "import sys; from trainer.artifact import store; store.find('mnist'); "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'bentoml', 'tensorflow', 'wandb', 'numpy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() in ("[]", "['numpy']")
