"""Class names and fonts that matplotlib can draw."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.text import printable

MAX_NAME_LENGTH = 24  # characters


def drawable_names(class_names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Font families that together cover the characters of `class_names`, and the names as they can be drawn.

    A character that no installed font has (a Chinese one, for example) becomes `?`, and its name gets the index of the
    class as prefix, so that names stay distinct. Long names are cut, and `$` is escaped.
    """
    from matplotlib.font_manager import fontManager, get_font

    class_names = [printable(name) for name in class_names]
    fonts = ["DejaVu Sans"]  # comes with matplotlib; has Latin, Greek, Cyrillic and Arabic
    missing = set("".join(class_names))
    regular = [font for font in fontManager.ttflist if font.style == "normal" and font.weight == 400]
    for entry in sorted(regular, key=lambda font: (font.name not in fonts, font.name)):
        font = get_font(entry.fname)
        charmap = font.get_charmap()
        found = {character for character in missing if ord(character) in charmap}
        # Colour fonts cannot be drawn; the Last Resort font draws every character as an empty box.
        if found and font.scalable and not entry.name.startswith("Last Resort"):
            missing -= found
            if entry.name not in fonts:
                fonts.append(entry.name)
        if not missing:
            break
    names = []
    for index, original in enumerate(class_names):
        name = "".join("?" if character in missing else character for character in original)
        if name != original:
            name = f"{index}: {name}"
        if len(name) > MAX_NAME_LENGTH:
            name = f"{name[: MAX_NAME_LENGTH - 1]}…"
        names.append(name.replace("$", r"\$"))
    return fonts, names
