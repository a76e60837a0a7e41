from __future__ import annotations

import itertools
import unicodedata

import pytest

from trainer.errors import InputError
from trainer.names import check_slug, slug


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("My Photos", "my-photos"),
        ("a.b_c-d", "a.b_c-d"),
        ("Größe", "grosse-d17996"),
        ("日本", "model-cf2abf"),
        ("-x-", "x"),
        ("a" * 63, "a" * 63),
        ("a" * 99, "a" * 56 + "-132844"),
        (".", "model-cdb4ee"),
    ],
)
def test_slug(text: str, expected: str) -> None:
    assert slug(text) == expected
    check_slug(slug(text))


def test_different_texts_have_different_names() -> None:
    texts = ["照片", "花", "花 2", "кошки", "собаки", "🐱", "🐶", "Größe", "Grüße", "grosse", "猫 cats", "犬 cats"]
    texts += ["a" * 63, "a" * 64, "a" * 64 + "b", "a" * 64 + "ü", "\udc80", "\udc81", "", "-"]
    for first, second in itertools.combinations(texts, 2):
        assert slug(first) != slug(second), (first, second)


def test_composed_and_decomposed_accents_give_one_name() -> None:
    assert slug(unicodedata.normalize("NFD", "Größe é")) == slug(unicodedata.normalize("NFC", "größe É"))


@pytest.mark.parametrize("name", ["", "Photos", "a b", "-a", "a-", "é", "a" * 64, "a/b", "a:b"])
def test_a_bad_model_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="--name: "):
        check_slug(name)
