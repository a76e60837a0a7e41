"""Take the README's picture: the top of a report, and beside it the page that has been given a photo.

Usage: python scripts/take_pictures.py REPORT_HTML SERVER_URL PHOTO, for example
`runs/photos-…/report/report.html http://127.0.0.1:3000 shoe.jpg`, while `trainer serve photos` runs. Needs chromium.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "report-and-page.png"
SIZE: ViewportSize = {"width": 900, "height": 860}
GAP = 16
COLOURS = 160  # enough for the eye, and a third of the file


def main() -> None:
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    report, url, photo = sys.argv[1:]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(Path(report).resolve().as_uri())
        left = screen(page)
        page.goto(f"{url}/ui")
        page.locator("#file").set_input_files(photo)
        page.locator("#latency").filter(has_text="ms").wait_for()
        right = screen(page)
        browser.close()
    both = Image.new("RGB", (left.width + GAP + right.width, left.height), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + GAP, 0))
    both.quantize(COLOURS).save(PICTURE, optimize=True)
    print(PICTURE)


def screen(page: Page) -> Image.Image:
    """What the window shows."""
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


if __name__ == "__main__":
    main()
