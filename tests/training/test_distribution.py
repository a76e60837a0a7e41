from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path


def test_a_worker_that_is_missing_is_named_and_ctrl_c_ends_the_wait(tmp_path: Path, unused_ports: list[int]) -> None:
    cluster = {"worker": [f"127.0.0.1:{port}" for port in unused_ports[:2]]}
    config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}})
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", "fit", "--dataset=builtin:digits", f"--run-dir={tmp_path / 'run'}"],
        env=os.environ | {"TF_CONFIG": config},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr
        for line in process.stderr:
            if line.endswith(f" waiting for the other workers of TF_CONFIG: no answer from {cluster['worker'][1]}\n"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(20) == 130, rest
        assert rest.splitlines()[-1] == "SIGINT: stopped; run the same command again to continue"
