from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import pytest

from trainer.models.lite_weights import LITE0_WEIGHTS, LITE2_WEIGHTS, WeightsFile, WeightsUnpickler, read_weights


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("owned",)


@pytest.mark.parametrize(("file", "tensors"), [(LITE0_WEIGHTS, 296), (LITE2_WEIGHTS, 386)])
def test_all_tensors_are_read_and_finite(file: WeightsFile, tensors: int) -> None:
    weights = read_weights(file)
    assert len(weights) == tensors
    assert weights["_fc.weight"].shape == (1000, 1280)
    assert all(np.isfinite(array).all() for array in weights.values())


def test_only_tensors_are_unpickled(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.print"):
        WeightsUnpickler(io.BytesIO(pickle.dumps(Evil()))).load()
    assert capsys.readouterr().out == ""
