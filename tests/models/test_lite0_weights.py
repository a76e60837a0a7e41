from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import pytest

from trainer.models.lite0_weights import WeightsUnpickler, read_weights


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("owned",)


def test_all_tensors_are_read_and_finite() -> None:
    weights = read_weights()
    assert len(weights) == 296
    assert weights["_fc.weight"].shape == (1000, 1280)
    assert all(np.isfinite(array).all() for array in weights.values())


def test_only_tensors_are_unpickled(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.print"):
        WeightsUnpickler(io.BytesIO(pickle.dumps(Evil()))).load()
    assert capsys.readouterr().out == ""
