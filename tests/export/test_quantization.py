from __future__ import annotations

import numpy as np

from trainer.export.quantization import QuantizationCheck, compare


def test_what_is_as_good_as_float32() -> None:
    reference = np.eye(2, dtype=np.float32)[np.zeros(2000, int)]
    labels = np.zeros(2000, np.int32)
    for wrong, good in ((0, True), (10, True), (11, False)):
        quantized = reference.copy()
        quantized[:wrong] = quantized[:wrong, ::-1]
        check = compare({"probabilities": reference}, {"probabilities": quantized}, labels)
        assert (check.passed, check.different) == (good, wrong)
    assert str(check) == "11 of 2000 predictions differ; 1989 are correct, with float32 2000"
    # One image is allowed where that is more than half a point; predictions may differ where they were wrong.
    assert QuantizationCheck(agreement=0.98, reference_accuracy=0.9, accuracy=0.88, images=50).passed
    assert not QuantizationCheck(agreement=0.97, reference_accuracy=0.9, accuracy=0.9, images=1000).passed


def test_out_of_distribution_scores_are_compared() -> None:
    probabilities, labels = np.eye(2, dtype=np.float32)[np.zeros(1000, int)], np.zeros(1000, np.int32)
    scores = np.linspace(0, 1.026, 1000, dtype=np.float32)  # 30 are refused
    for quantized, good in (
        (scores, True),
        (scores * 1.02, True),
        (scores * 0.98, True),
        (scores * 1.03, False),
        (scores.clip(max=0.99), False),
    ):
        outputs = [{"probabilities": probabilities, "novelty": values} for values in (scores, quantized)]
        assert compare(outputs[0], outputs[1], labels).passed == good
