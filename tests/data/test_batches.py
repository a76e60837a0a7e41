from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.data import batches, load
from trainer.data.batches import predict_batches
from trainer.errors import Interrupted


def test_outputs_come_in_order_and_the_last_batch_is_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "inference_batch_size", lambda height, width: 50)
    split = load("builtin:digits").val
    sizes = []

    def predict(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        sizes.append(len(images))
        values = images.astype(np.float32)
        return {"mean": values.mean((1, 2, 3)), "rows": values[:, :, 0, 0]}

    outputs = predict_batches(predict, split, "testing")
    images = split.read(np.arange(len(split))).astype(np.float32)
    assert sizes == [50, 50, 50, 11]
    np.testing.assert_array_equal(outputs["mean"], images.mean((1, 2, 3)))
    np.testing.assert_array_equal(outputs["rows"], images[:, :, 0, 0])


def test_a_signal_ends_it_before_the_next_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "inference_batch_size", lambda height, width: 50)
    seen: list[int] = []

    def interrupted() -> None:
        if len(seen) == 2:
            raise Interrupted("interrupted", 130)

    def predict(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        seen.append(len(images))
        return {"mean": images.mean((1, 2, 3))}

    with pytest.raises(Interrupted):
        predict_batches(predict, load("builtin:digits").val, "testing", check_interrupted=interrupted)
    assert seen == [50, 50]
