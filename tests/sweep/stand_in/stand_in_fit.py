#!/usr/bin/env python3
"""Replaces `python -m trainer fit`: three epochs, a checkpoint and an event after each, and a result.

STAND_IN_LOG is the folder of the trials' logs, a line for each start, epoch and end; STAND_IN_EPOCH_S is the length of
an epoch; with STAND_IN_FAILS every trial fails.
"""

import fcntl
import json
import os
import select
import signal
import sys
import time
from pathlib import Path

SEARCHED = ("dropout", "learning_rate", "seed")
EPOCHS = 3

options = dict(word.removeprefix("--").partition("=")[::2] for word in sys.argv if word.startswith("--"))
folder = Path(options["run-dir"])
params = " ".join(f"{name}={options[name]}" for name in SEARCHED if name in options)
accuracy = 0.5 + sum(float(options.get(name, 0)) * 7919 for name in SEARCHED) % 0.4
checkpoint = folder / "checkpoints" / "epoch"


def note(what: str, epoch: int) -> None:
    entry = {
        "at": time.time(),
        "pid": os.getpid(),
        "what": what,
        "trial": folder.name,
        "params": params,
        "epoch": epoch,
        "epoch_s": float(os.environ["STAND_IN_EPOCH_S"]),
    }
    with Path(os.environ["STAND_IN_LOG"], f"{folder.name}-{os.getpid()}").open("a") as file:
        file.write(json.dumps(entry) + "\n")


def main() -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit("error: another process is using this run folder")
    epoch = int(checkpoint.read_text()) if checkpoint.exists() else 0
    note("started", epoch)
    if os.environ.get("STAND_IN_FAILS"):
        note("failed", epoch)
        sys.exit("error: this node is broken")

    def stop(*_: object) -> None:
        note("stopped", epoch)
        os._exit(143)

    signal.signal(signal.SIGTERM, stop)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    while epoch < EPOCHS:
        if select.select([0], [], [], float(os.environ["STAND_IN_EPOCH_S"]))[0]:
            stop()  # stdin has ended: the sweep has died
        epoch += 1
        checkpoint.write_text(str(epoch))
        note("trained", epoch)
        print(json.dumps({"event": "epoch", "epoch": epoch, "val_accuracy": accuracy * epoch / EPOCHS}), flush=True)
    (folder / "export").mkdir(exist_ok=True)
    (folder / "export" / "model").write_text(params)
    note("finished", epoch)
    print(json.dumps({"val_accuracy": accuracy}), flush=True)


main()
