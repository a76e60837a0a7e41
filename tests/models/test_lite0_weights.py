from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import pytest

from trainer.models.lite0_weights import _Unpickler, read_weights


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("owned",)


def test_every_tensor_is_there_and_finite() -> None:
    weights = read_weights()
    assert len(weights) == 296
    assert weights["_fc.weight"].shape == (1000, 1280)
    assert all(np.isfinite(array).all() for array in weights.values())


def test_nothing_but_tensors_is_unpickled(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.print is not expected in a file of weights"):
        _Unpickler(io.BytesIO(pickle.dumps(Evil()))).load()
    assert capsys.readouterr().out == ""
