from __future__ import annotations

import pytest

from trainer.reporting.fonts import drawable_names


@pytest.fixture
def _only_bundled_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib
    from matplotlib.font_manager import fontManager

    bundled = [font for font in fontManager.ttflist if font.fname.startswith(matplotlib.get_data_path())]
    monkeypatch.setattr(fontManager, "ttflist", bundled)


@pytest.mark.usefixtures("_only_bundled_fonts")
def test_names_without_a_font_stay_distinct() -> None:
    fonts, names = drawable_names(["日本", "中国", "Grün", "été", "a$b$", "x" * 40, "b\x1b[2J\n"])
    assert names == ["0: ??", "1: ??", "Grün", "été", r"a\$b\$", "x" * 23 + "…", r"b\x1b[2J\n"]
    assert fonts == ["DejaVu Sans"]


@pytest.mark.usefixtures("_only_bundled_fonts")
def test_another_installed_font_is_used() -> None:
    character = "\ue000"  # not in DejaVu Sans; in a font that comes with matplotlib
    fonts, names = drawable_names(["a", character])
    assert names == ["a", character]
    assert fonts == ["DejaVu Sans", "STIXNonUnicode"]
