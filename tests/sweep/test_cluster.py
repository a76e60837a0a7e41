"""`trainer sweep --cluster` on two nodes of a Ray cluster on this machine."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from trainer.artifact import store
from trainer.sweep.search import PARAMS, Search
from trainer.sweep.sweep import read_sweep

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
STAND_IN = Path(__file__).parent / "stand_in"
GRID = ROOT / "sweeps" / "grid.yaml"
COUNT = 8  # trials of the grid


class TestCluster:
    """Nodes with one CPU each, whose trials run `stand_in_fit.py`."""

    __test__ = False

    def __init__(self, folder: Path, environment: pytest.MonkeyPatch) -> None:
        self.log = folder / "log"
        self.log.mkdir()
        self._environment = environment
        environment.chdir(folder)
        environment.setenv("STAND_IN", str(STAND_IN / "stand_in_fit.py"))
        environment.setenv("STAND_IN_LOG", str(self.log))
        environment.setenv("STAND_IN_EPOCH_S", "0.2")
        environment.delenv("WANDB_DIR")  # W&B's files go to the run folders
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("PYTHONPATH", os.pathsep.join((str(STAND_IN), *sys.path)))
        from ray.cluster_utils import Cluster as RayCluster

        self._ray = RayCluster()
        self.address = ""

    def add(self, **environment: str) -> Any:
        """Add a node with these environment variables; the first one is the head."""
        with self._environment.context() as own:
            for name, value in environment.items():
                own.setenv(name, value)
            node = self._ray.add_node(num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20)
        self.address = self._ray.address
        return node

    def remove(self, node: Any) -> None:
        """Kill the processes of a node, as a power failure does."""
        self._ray.remove_node(node, allow_graceful=False)

    def command(self, *arguments: object) -> list[str]:
        words = ["sweep", *map(str, arguments), "--cluster", self.address]
        return [str(Path(sys.executable)), "-m", "trainer", *words]

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def sweep(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=90, check=False)

    def events(self) -> list[dict[str, Any]]:
        """What the trials have logged, in the order of time."""
        lines = [json.loads(line) for file in self.log.iterdir() for line in file.read_text().splitlines()]
        return sorted(lines, key=lambda line: line["at"])

    def wait_for(self, event: str, count: int) -> None:
        self.wait_until(lambda events: sum(line["what"] == event for line in events) >= count)

    def wait_until(self, condition: Callable[[list[dict[str, Any]]], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition(events := self.events()):
            assert time.monotonic() < deadline, events
            time.sleep(0.1)

    def close(self) -> None:
        self._ray.shutdown()
        del self._ray


def collect_quietly() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestCluster]:
    started = TestCluster(tmp_path, monkeypatch)
    with ExitStack() as stack:
        # Ray takes the signal for itself, and forgets the processes that it has ended.
        stack.callback(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        stack.callback(collect_quietly)
        stack.callback(started.close)
        yield started


def search_of(file: Path) -> Search:
    """The search of the only sweep under `runs`, which must not be running."""
    (folder,) = Path("runs").glob("sweep-*")
    return Search(read_sweep(file)[0], folder)


def params_of(search: Search) -> list[str]:
    return [str(trial.user_attrs[PARAMS]) for trial in search.trials()]


def never_twice_at_a_time(events: list[dict[str, Any]]) -> bool:
    """Whether each process of a trial started after the last event of the one before."""
    process: dict[str, int] = {}
    return all(
        line["what"] == "started" or process[line["trial"]] == line["pid"]
        for line in events
        if line["what"] != "started" or process.update({line["trial"]: line["pid"]}) is None
    )


def test_a_grid_has_the_same_trials_as_on_one_machine_each_once(cluster: TestCluster) -> None:
    cluster.add()
    cluster.add()
    done = cluster.sweep(GRID)
    assert done.returncode == 0, done.stderr
    assert "nodes: 2, trials at once: 2, CPUs of each: 1" in done.stderr
    assert [line["what"] for line in cluster.events()].count("finished") == COUNT
    with search_of(GRID) as search:
        assert len(search.finished()) == COUNT
        assert all((search.folder / f"trial-{number:04d}" / "export" / "model").exists() for number in range(COUNT))
        on_cluster = params_of(search)
    assert not list(Path(os.environ["TRAINER_CACHE_DIR"]).glob("sweeps/*/*"))  # the nodes keep nothing
    shutil.rmtree("runs")
    locally = [word for word in cluster.command(GRID) if word not in ("--cluster", cluster.address)]
    subprocess.run([*locally, "--workers=2"], check=True, capture_output=True, timeout=100)
    with search_of(GRID) as search:
        assert params_of(search) == on_cluster
        assert len(set(on_cluster)) == COUNT


def test_the_trial_of_a_lost_node_is_run_again(cluster: TestCluster) -> None:
    cluster.add()
    second = cluster.add(STAND_IN_EPOCH_S="2")
    shared = Path("shared").absolute()
    sweep = cluster.start(GRID, "--run-root", shared)
    cluster.wait_for("finished", 2)
    cluster.wait_until(lambda events: [line["epoch"] for line in events if line["epoch_s"] == 2][-1:] == [1])
    cluster.remove(second)
    _, errors = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, errors
    assert " was lost; it is run again" in errors
    events = cluster.events()
    assert any(line["what"] == "started" and line["epoch"] > 0 for line in events)  # from its checkpoint
    assert never_twice_at_a_time(events)
    assert sorted(line["trial"] for line in events if line["what"] == "finished") == [
        f"trial-{number:04d}" for number in range(COUNT)
    ]
    with search_of(GRID) as search:
        assert len(set(params_of(search))) == len(search.finished()) == COUNT


def test_the_sweep_of_a_killed_driver_goes_on(cluster: TestCluster) -> None:
    cluster.add(STAND_IN_EPOCH_S="1")
    cluster.add(STAND_IN_EPOCH_S="1")
    first = cluster.start(GRID)
    cluster.wait_for("started", 4)
    first.kill()
    first.communicate()
    done = cluster.sweep(GRID)
    assert done.returncode == 0, done.stderr
    events = cluster.events()
    assert never_twice_at_a_time(events)
    finished = [line["trial"] for line in events if line["what"] == "finished"]
    assert set(finished) == {f"trial-{number:04d}" for number in range(COUNT)}
    assert len(finished) <= COUNT + 2  # those that had ended when it was killed, and it did not know yet
    with search_of(GRID) as search:
        assert len(set(params_of(search))) == len(search.finished()) == COUNT


def test_a_signal_stops_all_trials_and_a_local_sweep_continues_them(cluster: TestCluster) -> None:
    cluster.add(STAND_IN_EPOCH_S="1")
    sweep = cluster.start(GRID)
    cluster.wait_for("started", 2)
    sweep.send_signal(signal.SIGTERM)
    _, errors = sweep.communicate(timeout=60)
    assert sweep.returncode == 143, errors
    assert [line["what"] for line in cluster.events()][-1] == "stopped"
    locally = [word for word in cluster.command(GRID) if word not in ("--cluster", cluster.address)]
    subprocess.run(locally, check=True, capture_output=True, timeout=100)
    with search_of(GRID) as search:
        assert len(set(params_of(search))) == len(search.finished()) == COUNT


def test_a_failing_node_and_one_with_other_code_are_named_and_get_no_more(cluster: TestCluster, tmp_path: Path) -> None:
    cluster.add()
    cluster.add(STAND_IN_FAILS="1")
    other = tmp_path / "other"
    shutil.copytree(ROOT / "trainer", other / "trainer", ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "trainer" / "__init__.py").open("a") as file:
        file.write("# changed\n")
    cluster.add(PYTHONPATH=os.pathsep.join((str(other), os.environ["PYTHONPATH"])))
    done = cluster.sweep(GRID)
    assert done.returncode == 0, done.stderr
    assert "nodes: 2, trials at once: 2" in done.stderr
    (unfit,) = [line for line in done.stderr.splitlines() if "it gets no trials" in line]
    assert ": has trainer 0.1.0 (" in unfit
    assert ", and the sweep runs with 0.1.0 (" in unfit
    assert "3 trials in a row have failed there; it gets no more" in done.stderr
    assert [line["what"] for line in cluster.events()].count("failed") == 3
    assert "trials that failed and are left out: 3; --retry-failed runs them once more" in done.stderr
    with search_of(GRID) as search:
        assert len(search.finished()) == COUNT - 3


def test_too_many_cpus_and_a_wrong_address_are_refused_before_the_first_trial(cluster: TestCluster) -> None:
    cluster.add()
    done = cluster.sweep(GRID, "--trial-cpus", "64")
    assert done.returncode == 2
    assert "no node has the 64 CPUs" in done.stderr.splitlines()[-1]
    cluster.address = "127.0.0.1:9"
    done = cluster.sweep(GRID)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: --cluster 127.0.0.1:9: no Ray cluster answers (")
    assert cluster.events() == []


def test_the_run_folder_of_a_real_trial_is_collected_and_published(cluster: TestCluster) -> None:
    os.environ["STAND_IN"] = ""  # until the fixture's end
    cluster.add()
    file = Path("two.yaml")
    file.write_text(
        "method: grid\nmetric: {name: val_accuracy, goal: maximize}\nparameters:\n"
        "  dataset: {value: 'builtin:digits'}\n  epochs: {value: 2}\n  limit: {value: 320}\n"
        "  learning_rate: {values: [0.001, 0.002]}\n  wandb: {value: offline}\n"
    )
    done = cluster.sweep(file, "--save-best")
    assert done.returncode == 0, done.stderr
    assert store.find("digits").tag in done.stdout
    with search_of(file) as search:
        for trial in search.finished():
            folder = search.folder / f"trial-{trial.number:04d}"
            assert set(trial.intermediate_values) == {1, 2}
            assert (folder / "report" / "report.html").exists()
            assert "epoch 2/2" in (folder / "fit.log").read_text()
            assert list(folder.glob("wandb/offline-run-*"))
