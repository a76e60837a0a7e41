"""Mutated images, and the files in `corpus/OUTCOME` that once did harm or are known to harm other decoders.

With `avif.check_tables`, `jpeg.check_scans`, `bmp.check_run_lengths` or the check of the palette taken out, the corpus
fails.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from mutated_decoding import DECODED, SPECS, Mutator, decode_all
from seed_images import drawn
from server import Server, form

CORPUS = Path(__file__).with_name("corpus")
FILES = sorted(CORPUS.glob("*/*"))
SEED = 7


def test_the_corpus_is_decoded_or_refused() -> None:
    files = [file for file in FILES for _ in SPECS]
    outcome = decode_all([file.read_bytes() for file in files].__getitem__, range(len(files)))
    assert {files[number].name: reason for number, reason in outcome.failures.items()} == {}
    assert outcome.counts == Counter(file.parent.name for file in files)


def test_a_server_answers_or_refuses_the_corpus(tiny_server: Server) -> None:
    codes = [None if file.parent.name == DECODED else file.parent.name for file in FILES]
    assert [tiny_server.predict(file.read_bytes()).code for file in FILES] == codes
    batch = tiny_server.ask("POST", "/predict_batch", *form(*[("images", file.read_bytes()) for file in FILES]))
    assert [answer.get("error", {}).get("code") for answer in batch.value["predictions"]] == codes
    assert "UserWarning" not in tiny_server.log.read_text()  # Pillow's, of damaged metadata


@pytest.mark.parametrize("count", [1500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_images_are_decoded_or_refused(count: int) -> None:
    print(f"seed {SEED}")
    outcome = decode_all(Mutator(SEED, drawn()), range(count))
    assert outcome.failures == {}
    assert outcome.counts.total() == count
    assert min(outcome.counts[DECODED], outcome.counts["corrupt_image"]) > count // 20
