from __future__ import annotations

from pathlib import Path

import pytest

from trainer.config import FitConfig
from trainer.errors import InputError
from trainer.runs.open_run import open_run, refuse_private_folder
from trainer.runs.run_folder import options_of, read_run

IDENTITY = {"dataset": "builtin:digits", "labels": ["0", "1"], "model": "branched_cnn"}


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)


def config(**options: object) -> FitConfig:
    return FitConfig(dataset="builtin:digits", **options)  # type: ignore[arg-type]


def test_an_unfinished_run_of_the_same_configuration_is_found() -> None:
    first = open_run(config(), "digits", IDENTITY)
    first.update(wandb_id="abc")
    first.close()
    again = open_run(config(), "digits", IDENTITY)
    assert (again.path, again.resumed, again.wandb_id) == (first.path, True, "abc")
    again.update(state="finished")
    again.close()
    assert not open_run(config(), "digits", IDENTITY).resumed


def test_a_finished_run_keeps_its_result_and_not_its_checkpoints(tmp_path: Path) -> None:
    first = open_run(config(run_dir=tmp_path / "r"), "digits", IDENTITY)
    assert first.result is None
    (first.checkpoints / "step-1").mkdir(parents=True)
    first.finish({"test_accuracy": 0.9})
    first.close()
    again = open_run(config(run_dir=tmp_path / "r"), "digits", IDENTITY)
    assert again.result == {"test_accuracy": 0.9, "run_dir": str(tmp_path / "r")}
    assert not again.checkpoints.exists()
    again.close()
    for option, value in {"quantize": "none", "confidence": 0.5, "time_limit": 60.0}.items():
        with pytest.raises(InputError, match=f"is exported with --{option.replace('_', '-')} .* is not exported again"):
            open_run(config(run_dir=tmp_path / "r", **{option: value}), "digits", IDENTITY)


def test_what_only_the_export_asks_is_no_other_training(tmp_path: Path) -> None:
    open_run(config(run_dir=tmp_path / "r"), "digits", IDENTITY).close()
    assert open_run(config(run_dir=tmp_path / "r", quantize="none"), "digits", IDENTITY).resumed


def test_a_run_keeps_its_options_as_the_command_line_spells_them(tmp_path: Path) -> None:
    asked = config(run_dir=tmp_path / "r", image_size=(8, 9), time_limit=90.0, save=False, data_dir=Path("d"))
    open_run(asked, "digits", IDENTITY).close()
    assert options_of(tmp_path / "r") == {
        "dataset": "builtin:digits",
        "image_size": "8x9",
        "time_limit": "90s",
        "save": "False",
        "data_dir": str(tmp_path / "d"),
    }


def test_another_configuration_or_data_set_is_another_run() -> None:
    first = open_run(config(), "digits", IDENTITY)
    first.close()
    assert open_run(config(seed=1), "digits", IDENTITY).path != first.path
    assert open_run(config(), "digits", IDENTITY | {"labels": ["a"]}).path != first.path
    assert open_run(config(resume="never"), "digits", IDENTITY).path != first.path


def test_a_run_in_use_is_left_alone(tmp_path: Path) -> None:
    first = open_run(config(), "digits", IDENTITY)
    assert open_run(config(), "digits", IDENTITY).path != first.path
    with pytest.raises(InputError, match="another process is using this run folder"):
        open_run(config(run_dir=first.path), "digits", IDENTITY)
    first.close()
    open_run(config(run_dir=first.path), "digits", IDENTITY)


def test_another_training_is_refused_with_the_difference(tmp_path: Path) -> None:
    open_run(config(run_dir=tmp_path / "r"), "digits", IDENTITY).close()
    for options in ({"run_dir": tmp_path / "r"}, {"resume": str(tmp_path / "r")}):
        with pytest.raises(InputError) as caught:
            open_run(config(**options), "digits", IDENTITY | {"labels": ["0", "2"], "model": "compact_resnet"})
        message = str(caught.value)
        assert 'labels: ["0", "1"] there, ["0", "2"] now' in message
        assert 'model: "branched_cnn" there, "compact_resnet" now' in message


def test_never_does_not_write_over_a_run(tmp_path: Path) -> None:
    open_run(config(run_dir=tmp_path / "r"), "digits", IDENTITY).close()
    with pytest.raises(InputError, match="already holds a run"):
        open_run(config(run_dir=tmp_path / "r", resume="never"), "digits", IDENTITY)


def test_the_run_of_a_sweep_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "x1y2")
    run = open_run(config(), "digits", IDENTITY)
    assert (run.path, run.wandb_id) == (Path("runs/x1y2"), "x1y2")


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run folder: it has no run\.json"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(InputError, match="it is no run's"):
        options_of(tmp_path)
    with pytest.raises(InputError, match="no run folder"):
        open_run(config(resume=str(tmp_path / "absent")), "digits", IDENTITY)


def test_several_workers_need_a_named_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_private_folder(config(), 1)
    with pytest.raises(InputError, match="--run-dir: 2 workers need one folder"):
        refuse_private_folder(config(), 2)
    refuse_private_folder(config(run_dir=tmp_path), 2)
    refuse_private_folder(config(resume=str(tmp_path)), 2)
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    refuse_private_folder(config(), 2)


def test_only_the_chief_refuses_a_folder_that_it_may_have_made_itself(tmp_path: Path) -> None:
    fresh = config(run_dir=tmp_path / "run", resume="never")
    chief = open_run(fresh, "digits", IDENTITY)
    assert open_run(fresh, "digits", IDENTITY, shared=True).path == chief.path
    chief.close()
    with pytest.raises(InputError, match="already holds a run"):
        open_run(fresh, "digits", IDENTITY)


def test_a_trial_that_was_not_exported_takes_new_settings_for_its_export(tmp_path: Path) -> None:
    first = open_run(config(run_dir=tmp_path / "r"), "digits", IDENTITY)
    first.finish({"val_accuracy": 0.9}, keep_checkpoints=True)
    first.close()
    again = open_run(config(run_dir=tmp_path / "r", confidence=0.5), "digits", IDENTITY)
    assert again.result == {"val_accuracy": 0.9, "run_dir": str(tmp_path / "r")}
    again.reopen()
    assert again.result is None
    assert read_run(tmp_path / "r")["config"]["confidence"] == 0.5
    again.close()


def test_a_refused_run_leaves_what_was_there_before(tmp_path: Path) -> None:
    new = open_run(config(run_dir=tmp_path / "new"), "digits", IDENTITY)
    new.undo()
    new.close()
    assert not (tmp_path / "new").exists()
    first = open_run(config(run_dir=tmp_path / "old"), "digits", IDENTITY)
    first.finish({"val_accuracy": 0.9})
    first.close()
    before = (tmp_path / "old" / "run.json").read_bytes()
    again = open_run(config(run_dir=tmp_path / "old", time_limit=5.0), "digits", IDENTITY)
    again.reopen()
    again.undo()
    again.close()
    assert (tmp_path / "old" / "run.json").read_bytes() == before


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda *_: "20260101-080000")
    runs = [open_run(config(resume=resume), "digits", IDENTITY) for resume in ("auto", "auto", "never")]
    assert [run.path.name for run in runs] == [f"digits-20260101-080000{suffix}" for suffix in ("", "-2", "-3")]
    for run in runs:
        run.close()


def test_an_exported_run_has_its_result_before_it_is_published(tmp_path: Path) -> None:
    first = open_run(config(run_dir=tmp_path / "r"), "digits", IDENTITY)
    first.note_exported({"test_accuracy": 0.9})
    first.close()
    again = open_run(config(run_dir=tmp_path / "r"), "digits", IDENTITY)
    assert again.result == {"test_accuracy": 0.9, "run_dir": str(tmp_path / "r")}
    again.close()
