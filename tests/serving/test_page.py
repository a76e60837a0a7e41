"""The page in a real browser: Debian's chromium, headless."""

from __future__ import annotations

import http.server
import io
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from server import Server, publish, serving

from trainer.data.sources.digits import DigitsSource

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def server(digits_home: Path) -> Iterator[Server]:
    with serving(digits_home / "run" / "export", digits_home / "served") as running:
        yield running


@pytest.fixture(scope="module")
def digits_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that knows the built-in digits."""
    from trainer.cli import run

    home = tmp_path_factory.mktemp("digits")
    (home / "served").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINER_CACHE_DIR", str(home / "cache"))
        command = ["fit", "--dataset=builtin:digits", "--epochs=12", "--no-save", "--wandb=disabled"]
        assert run([*command, f"--run-dir={home / 'run'}"]) == 0
    return home


@pytest.fixture
def page(server: Server) -> Iterator[Page]:
    """The page, once it has asked for the model."""
    with browsing(server) as opened:
        expect(opened.locator("#model")).to_contain_text(server.tag)
        yield opened


@contextmanager
def browsing(server: Server) -> Iterator[Page]:
    """The page; fails on an error of a script and on requests other_page."""
    problems: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            opened = browser.new_page(viewport={"width": 900, "height": 760})
            opened.on("pageerror", lambda error: problems.append(str(error)))
            opened.on("request", lambda request: _record_foreign_request(request.url, server.url, problems))
            opened.goto(f"{server.url}/ui")
            yield opened
        finally:
            browser.close()
    assert problems == []


def _record_foreign_request(url: str, home: str, problems: list[str]) -> None:
    if not url.startswith((home, "blob:", "data:")):
        problems.append(f"a request to {url}")


def draw(page: Page, *points: tuple[float, float]) -> None:
    """A line through points of the canvas, from (0, 0) to (1, 1)."""
    box = page.locator("#canvas").bounding_box()
    assert box
    positions = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*positions[0])
    page.mouse.down()
    for position in positions[1:]:
        page.mouse.move(*position, steps=8)
    page.mouse.up()


def choose(page: Page, data: bytes) -> None:
    page.locator("#file").set_input_files({"name": "image.png", "mimeType": "image/png", "buffer": data})


def transfer(page: Page, event: str, data: bytes) -> None:
    """A file is dropped or pasted on the page."""
    page.evaluate(
        """([event, bytes]) => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(bytes)], "image.png", { type: "image/png" }));
            const event_with_file = event === "paste"
                ? new ClipboardEvent("paste", { clipboardData: files, bubbles: true })
                : new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true });
            document.body.dispatchEvent(event_with_file);
        }""",
        [event, list(data)],
    )


def test_a_drawn_seven_is_recognized(page: Page, tmp_path: Path) -> None:
    draw(page, (0.2, 0.12), (0.8, 0.12), (0.45, 0.9))
    expect(page.locator("#label")).to_have_text("7")
    expect(page.locator("#top tr")).to_have_count(5)
    expect(page.locator("#latency")).to_contain_text("ms")
    assert page.locator("#preview").evaluate("image => image.decode().then(() => image.naturalWidth)") == 8
    plain = page.locator("#preview").get_attribute("src")
    page.locator("#why").check()
    expect(page.locator("#preview")).not_to_have_attribute("src", plain or "")
    assert page.locator("#preview").evaluate("image => image.decode().then(() => image.naturalWidth)") == 8
    for element in ("#model", "#canvas", "#drop", "#label", "#top", "#preview"):
        expect(page.locator(element)).to_be_visible()
    page.screenshot(path=tmp_path / "page.png")
    assert np.asarray(Image.open(tmp_path / "page.png")).std() > 5
    page.locator("#clear").click()
    expect(page.locator("#result")).to_be_hidden()


def test_the_api_page_loads_nothing_from_other_servers(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/")  # BentoML's, which has a script of Google's
    expect(page.locator("#swagger-ui")).to_contain_text("/predict_batch")


def test_the_address_of_the_page_may_end_with_a_slash(page: Page, server: Server) -> None:
    for address in ("/ui/", "//ui//"):
        page.goto(server.url + address)
        expect(page.locator("#model")).to_contain_text(server.tag)


def test_the_keyboard_suffices(page: Page) -> None:
    page.locator("#canvas").focus()
    for key, times in (("ArrowLeft", 8), ("ArrowUp", 10), (" ", 1), ("ArrowRight", 16), ("ArrowDown", 20), (" ", 1)):
        for _ in range(times):
            page.keyboard.press(key)
    expect(page.locator("#label")).not_to_be_empty()
    page.keyboard.press("Escape")
    expect(page.locator("#result")).to_be_hidden()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "clear"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_an_image_is_dropped_or_pasted(page: Page, event: str) -> None:
    data = next(DigitsSource().examples()).data
    assert isinstance(data, bytes)
    transfer(page, event, data)
    expect(page.locator("#label")).to_have_text("0")
    expect(page.locator("#latency")).to_contain_text("ms")


def test_an_image_is_chosen_and_a_bad_one_explained(page: Page) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, "PNG")
    choose(page, buffer.getvalue())
    expect(page.locator("#label")).not_to_be_empty()
    assert page.locator("#given").evaluate("image => image.decode().then(() => image.naturalWidth)") == 8
    choose(page, buffer.getvalue()[:-30])
    expect(page.locator("#error")).to_contain_text("damaged")
    expect(page.locator("#result")).to_be_hidden()
    choose(page, b"hello")
    expect(page.locator("#error")).to_contain_text("cannot be read: not an image of a supported type: JPEG")
    expect(page.locator("#given")).to_be_hidden()


def test_a_new_version_is_shown_without_a_reload(digits_home: Path) -> None:
    home, export = digits_home / "watched", digits_home / "run" / "export"
    home.mkdir()
    with serving(export, home, "--arg", "watch_s=0.5") as server, browsing(server) as page:
        expect(page.locator("#model")).to_contain_text(server.tag)
        draw(page, (0.2, 0.12), (0.8, 0.12), (0.45, 0.9))
        expect(page.locator("#label")).to_have_text("7")
        before = page.locator("#preview").get_attribute("src")
        expect(page.locator("#model")).to_contain_text(publish(export, home), timeout=60_000)
        expect(page.locator("#preview")).not_to_have_attribute("src", before or "")  # it was asked about the drawing
        expect(page.locator("#label")).to_have_text("7")


ARABIC, LONG = "تفاحة حمراء كبيرة من السوق", "Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz"
SCORES = [("Cucumber", 0.538), (ARABIC, 0.3), (LONG, 0.1), ("🍅 tomato", 0.05), ("a & <b>", 0.012)]


@pytest.mark.parametrize("width", [360, 1280])
def test_the_doubt_comes_first_and_every_name_fits(page: Page, server: Server, width: int) -> None:
    """The answers are made up: no network is so unsure of names like these."""
    top = [{"label": label, "index": index, "probability": value} for index, (label, value) in enumerate(SCORES)]
    answer = {**top[0], "known": False, "top": top, "model": server.tag}
    page.route("**/predict", lambda route, request: route.fulfill(json=answer))
    page.set_viewport_size({"width": width, "height": 800})
    image = next(DigitsSource().examples()).data
    assert isinstance(image, bytes)
    choose(page, image)
    expect(page.locator("#answer")).to_contain_text("Not sure: perhaps Cucumber (54\u00a0%)")
    threshold = server.ask("GET", "/model").value["threshold"]
    doubt = "unlike those" if threshold <= 0.538 else f"sure of an answer from {100 * threshold:.1f}\u00a0% on"
    expect(page.locator("#reason")).to_contain_text(doubt)
    names, numbers = page.locator("#top bdi"), page.locator("#top td:last-child")
    assert names.all_text_contents() == [label for label, _ in SCORES]
    assert numbers.all_text_contents() == [f"{100 * value:.1f}\u00a0%" for _, value in SCORES]
    lines = "elements => elements.map(element => { const range = new Range(); range.selectNodeContents(element);"
    lines += "return new Set([...range.getClientRects()].map(box => box.top)).size; })"
    assert numbers.evaluate_all(lines) == [1] * len(SCORES)
    assert names.evaluate_all(lines)[0] == 1
    assert page.evaluate("document.documentElement.scrollWidth") == width
    answer["known"] = True
    choose(page, image)
    expect(page.locator("#probability")).to_have_text("")
    expect(page.locator("#label")).to_be_visible()
    assert page.locator("#answer").inner_text().strip() == "Cucumber"


def test_a_token_is_asked_for(digits_home: Path) -> None:
    home = digits_home / "locked"
    home.mkdir()
    (home / "tokens").write_text("correct-horse\n")
    with (
        other_site() as origin,
        serving(
            digits_home / "run" / "export",
            home,
            TRAINER_TOKEN_FILE=str(home / "tokens"),
            TRAINER_CORS_ORIGINS=origin,
        ) as server,
        browsing(server) as page,
    ):
        expect(page.locator("#token")).to_be_focused()
        expect(page.locator("#main")).to_be_hidden()
        expect(page.locator("#unknown")).to_be_hidden()
        page.locator("#token").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#unknown")).to_be_visible()
        page.locator("#token").fill("correct-horse")
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_contain_text(server.tag)
        expect(page.locator("#sign-in")).to_be_hidden()
        draw(page, (0.2, 0.12), (0.8, 0.12), (0.45, 0.9))
        expect(page.locator("#label")).to_have_text("7")
        assert page.locator("#preview").evaluate("image => image.decode().then(() => image.naturalWidth)") == 8
        page.reload()  # nothing was kept
        expect(page.locator("#token")).to_be_visible()

        assert page.context.browser
        other_page = page.context.browser.new_page()
        other_page.goto(origin)
        ask = """([url, token]) => fetch(url, { method: "POST", headers: { Authorization: `Bearer ${token}` } })
            .then((response) => response.json()).then((answer) => answer.error.code)"""
        codes = [other_page.evaluate(ask, [f"{server.url}/predict", token]) for token in ("wrong", "correct-horse")]
        assert codes == ["unauthorized", "empty_body"]


@contextmanager
def other_site() -> Iterator[str]:
    """A page of somebody else's; its origin."""

    class OtherSite(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), OtherSite) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
