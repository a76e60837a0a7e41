from __future__ import annotations

import pytest

from trainer.names import check_slug, slug


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("My Photos", "my-photos"),
        ("a.b_c-d", "a.b_c-d"),
        ("Größe", "gr-e"),
        ("日本", "model"),
        ("-x-", "x"),
        ("a" * 99, "a" * 63),
    ],
)
def test_slug(text: str, expected: str) -> None:
    assert slug(text) == expected
    check_slug(slug(text))
