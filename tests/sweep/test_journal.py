"""Journals that were cut off, and folders that are locked or unusable."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

import pytest
from test_search import reopen_and_run, run_all, spec

from trainer.errors import InputError
from trainer.sweep.search import PARAMS, Search


def test_the_same_sweep_is_refused_twice_with_the_process_that_runs_it(tmp_path: Path) -> None:
    with (
        Search(spec(), tmp_path) as search,
        pytest.raises(InputError, match=f"this sweep is running already, as process {os.getpid()}$"),
    ):
        Search(spec(), tmp_path)
    assert run_all(search, max_trials=1)
    Search(spec(), tmp_path).close()


@pytest.mark.parametrize("method", ["grid", "random"])
def test_a_journal_that_ends_at_any_byte_loses_no_params_and_runs_none_twice(tmp_path: Path, method: str) -> None:
    with Search(spec(method), tmp_path / "whole") as search:
        for _ in range(3):
            trial = search.next_trial(None)
            assert trial
            search.report(trial, 1, 0.5)
            search.finish(trial, 0.5)
        search.next_trial(None)
    journal = (tmp_path / "whole" / "journal.log").read_bytes()
    for end in sorted({*range(0, len(journal), 31), *(match.end() for match in re.finditer(rb"\n", journal))}):
        folder = tmp_path / str(end)
        folder.mkdir()
        (folder / "journal.log").write_bytes(journal[:end])
        with Search(spec(method), folder) as search:
            finished = len(search.leaders(""))
            whole_records = journal[: journal.rfind(b"\n", 0, end) + 1]
            assert finished == whole_records.count(b'"state":1,"values":[0.5]')
            params = run_all(search)
            assert len(params) == 6 - finished
            assert len({str(trial.user_attrs[PARAMS]) for trial in search.leaders("")}) == 6


@pytest.mark.parametrize("torn", [b'{"op_code":6,"trial_id":1,"sta', b"\0" * 300, b'{"op_code":\n'])
def test_a_torn_record_is_cut_and_the_study_goes_on(
    tmp_path: Path, torn: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    first = reopen_and_run(tmp_path, spec(), max_trials=2)
    with (tmp_path / "journal.log").open("ab") as journal:
        journal.write(torn)
    search = Search(spec(), tmp_path)
    assert [trial.user_attrs[PARAMS] for trial in search.leaders("")] == first
    assert caplog.messages == [
        f"{tmp_path / 'journal.log'}: {len(torn)} bytes at its end are no whole record and are cut off"
    ]
    assert len(run_all(search)) == 4
    search.close()
    assert len(Search(spec(), tmp_path).leaders("")) == 6


def test_a_record_that_cannot_be_written_does_not_spoil_the_next(tmp_path: Path) -> None:
    """Trials that end while a sweep fails are recorded, too; a limit on file sizes fails a write as a full disk."""
    with Search(spec(), tmp_path) as search:
        trial = search.next_trial(None)
        assert trial
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "journal.log").stat().st_size + 10, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                search.report(trial, 1, 0.25)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        search.finish(trial, 0.5)
    with Search(spec(), tmp_path) as again:
        assert [(one.value, one.intermediate_values) for one in again.trials()] == [(0.5, {})]


def test_a_folder_that_cannot_be_used_is_wrong_input(tmp_path: Path) -> None:
    (tmp_path / "journal.log").mkdir()
    with pytest.raises(InputError, match=f"{tmp_path}: cannot be used"):
        Search(spec(), tmp_path)
