from __future__ import annotations

import numpy as np
from advice_facts import MIXED, advice, make_training


def test_a_model_without_faults_gets_no_advice() -> None:
    assert advice() == []


def test_at_most_three_pieces_of_advice_in_the_order_of_the_table() -> None:
    options = {"model": "compact_resnet", "limit": 40}
    run = make_training(options, pretrained=False, limited=900, images_per_class=np.full(4, 10), unreadable=9)
    assert [text.split(":")[0].split(" of ")[0] for text, _ in advice(MIXED, run)] == [
        "use --model auto",
        "use all images",
        "add images",
    ]
