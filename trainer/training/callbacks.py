"""Callbacks of a training: the display of the command line, the tracker, and whatever else follows its epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Callbacks(Protocol):
    """Functions that a training calls while it runs."""

    def on_step(self, step: int, total_steps: int) -> None:
        """`step` of `total_steps` training steps are done; called every few steps."""

    def on_epoch(self, entry: Mapping[str, float], *, step: int, epochs: int) -> None:
        """An epoch has ended: its metrics (`epoch`, `loss`, `accuracy`, `val_loss`, `val_accuracy`, …).

        `step` training steps are done; at most `epochs` epochs are planned. Epoch 0 is the linear probe.
        """

    def on_train_end(self) -> None:
        """The training has ended or failed."""


class CallbackList:
    """Several callbacks as one, called in order."""

    def __init__(self, *callbacks: Callbacks) -> None:
        self._callbacks = callbacks

    def on_step(self, step: int, total_steps: int) -> None:
        for callback in self._callbacks:
            callback.on_step(step, total_steps)

    def on_epoch(self, entry: Mapping[str, float], *, step: int, epochs: int) -> None:
        for callback in self._callbacks:
            callback.on_epoch(entry, step=step, epochs=epochs)

    def on_train_end(self) -> None:
        for callback in self._callbacks:
            callback.on_train_end()
