from __future__ import annotations

from dataclasses import replace

import numpy as np
from advice_facts import MIXED, advice, make_training


def test_a_model_without_faults_gets_no_advice() -> None:
    assert advice() == []


def test_at_most_three_pieces_of_advice_in_the_order_of_the_table() -> None:
    options = {"model": "compact_resnet", "limit": 40}
    run = make_training(options, pretrained=False, limited=900, images_per_class=np.full(4, 10), unreadable=9)
    few = [[5, 1, 0, 0], [0, 5, 1, 0], [0, 0, 5, 1], [1, 0, 0, 5]]  # the fourth would be to add test images
    assert [text.split(":")[0].split(" 9 ")[0] for text, _ in advice(few, run)] == [
        "use --model auto",
        "use all images",
        "repair or delete",
    ]
    assert "add images" in [text.split(":")[0] for text, _ in advice(few, replace(run, unreadable=0))]


def test_no_images_are_asked_for_while_a_limit_leaves_some_out() -> None:
    run = make_training({"limit": 40}, images_per_class=np.full(4, 10))
    assert any(text.startswith("add images of") for text, _ in advice(MIXED, run))
    limited = [text for text, _ in advice(MIXED, replace(run, limited=900))]
    assert any(text.startswith("use all images") for text in limited)
    assert not any(text.startswith("add images") for text in limited)
