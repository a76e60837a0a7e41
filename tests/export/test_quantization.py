from __future__ import annotations

import numpy as np

from trainer.export.quantization import QuantizationCheck, compare


def test_what_is_as_good_as_float32() -> None:
    reference = np.eye(2, dtype=np.float32)[np.zeros(2000, int)]
    labels = np.zeros(2000, np.int32)
    for wrong, good in ((0, True), (10, True), (11, False)):
        quantized = reference.copy()
        quantized[:wrong] = quantized[:wrong, ::-1]
        check = compare(reference, quantized, labels)
        assert (check.passed, check.different) == (good, wrong)
    assert str(check) == "11 of 2000 predictions differ; 1989 are correct, with float32 2000"
    # One image is allowed where that is more than half a point; predictions may differ where they were wrong.
    assert QuantizationCheck(agreement=0.98, reference_accuracy=0.9, accuracy=0.88, images=50).passed
    assert not QuantizationCheck(agreement=0.97, reference_accuracy=0.9, accuracy=0.9, images=1000).passed
