"""Take the README's pictures: a report's top beside the page that was given a photo; and the page's answers to a photo,
with what spoke for it, and to a picture of something else.

Usage: python scripts/take_pictures.py REPORT_HTML SERVER_URL PHOTO STRANGER, for example
`runs/photos-…/report/report.html http://127.0.0.1:3000 shoe.jpg seven.png`, while `trainer serve photos` runs. Needs
chromium.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, ViewportSize, expect, sync_playwright

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
SIZE: ViewportSize = {"width": 900, "height": 860}
GAP = 16
COLOURS = 160  # enough for the eye, and a third of the file


def main() -> None:
    if len(sys.argv) != 5:
        raise SystemExit(__doc__)
    report, url, photo, stranger = sys.argv[1:]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(Path(report).resolve().as_uri())
        top = taken(page)
        page.goto(f"{url}/ui")
        ask(page, photo)
        save("report-and-page.png", top, taken(page))
        plain = page.locator("#preview").get_attribute("src")
        page.locator("#why").check()
        expect(page.locator("#preview")).not_to_have_attribute("src", plain or "")
        known = taken(page.locator("#main"))
        page.reload()
        ask(page, stranger)
        save("known.png", known, taken(page.locator("#main")))
        browser.close()


def ask(page: Page, picture: str) -> None:
    page.locator("#file").set_input_files(picture)
    page.locator("#latency").filter(has_text="ms").wait_for()


def taken(what: Page | Locator) -> Image.Image:
    return Image.open(io.BytesIO(what.screenshot())).convert("RGB")


def save(name: str, left: Image.Image, right: Image.Image) -> None:
    """One picture of two, side by side."""
    both = Image.new("RGB", (left.width + GAP + right.width, max(left.height, right.height)), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + GAP, 0))
    both.quantize(COLOURS).save(PICTURES / name, optimize=True)
    print(PICTURES / name)


if __name__ == "__main__":
    main()
