"""Take the README's screenshots.

`report-and-page.png`: the top of a report beside the page with the answer to a photo. `known.png`: the page with the
saliency map of that photo, beside the answer to an image that the model does not know.

Usage: python scripts/take_screenshots.py REPORT_HTML SERVER_URL PHOTO UNKNOWN_IMAGE, for example
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

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
SIZE: ViewportSize = {"width": 900, "height": 860}
GAP = 16
COLOURS = 160  # no visible difference, and a third of the file size


def main() -> None:
    if len(sys.argv) != 5:
        raise SystemExit(__doc__)
    report, url, photo, unknown_image = sys.argv[1:]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(Path(report).resolve().as_uri())
        report_top = screenshot(page)
        page.goto(f"{url}/ui")
        predict(page, photo)
        save("report-and-page.png", report_top, screenshot(page))
        preview = page.locator("#preview").get_attribute("src")
        page.locator("#why").check()
        expect(page.locator("#preview")).not_to_have_attribute("src", preview or "")
        known = screenshot(page.locator("#main"))
        page.reload()
        predict(page, unknown_image)
        save("known.png", known, screenshot(page.locator("#main")))
        browser.close()


def predict(page: Page, image: str) -> None:
    page.locator("#file").set_input_files(image)
    page.locator("#latency").filter(has_text="ms").wait_for()


def screenshot(target: Page | Locator) -> Image.Image:
    return Image.open(io.BytesIO(target.screenshot())).convert("RGB")


def save(name: str, left: Image.Image, right: Image.Image) -> None:
    """Saves two screenshots side by side as one image."""
    both = Image.new("RGB", (left.width + GAP + right.width, max(left.height, right.height)), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + GAP, 0))
    both.quantize(COLOURS).save(FOLDER / name, optimize=True)
    print(FOLDER / name)


if __name__ == "__main__":
    main()
