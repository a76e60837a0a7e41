"""The page in a real browser: Debian's chromium, headless, from a file."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from trainer.data import load
from trainer.data.sources.spec import open_source
from trainer.data_checks.page import write_page
from trainer.data_checks.run import WrongLabel, examine

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]


WIDE, NARROW = 900, 390  # a desk, a telephone


def test_a_person_chooses_and_saves(spoiled_folder: Path, tmp_path: Path) -> None:
    source = open_source(str(spoiled_folder))
    found = examine(load(str(spoiled_folder), image_size=(96, 96)), source)
    position = found.pictures.names.index("train/one/wrong10.png")
    zero = found.pictures.class_names.index("zero")
    findings = dataclasses.replace(found, wrong_labels=[WrongLabel(position, zero, 1)])
    file = tmp_path / "page.html"
    write_page(findings, file, name="digits", spec=str(spoiled_folder), data_dir=None, source=source)
    problems: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": WIDE, "height": 760})
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
            page.goto(file.as_uri())
            for width in (WIDE, NARROW):
                page.set_viewport_size({"width": width, "height": 760})
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            wrong = page.locator('select[data-image="train/one/wrong10.png"]')
            expect(wrong).to_have_value("")
            page.get_by_text("Change all as suggested").click()
            expect(wrong).to_have_value("=zero")
            page.locator('select[data-image="train/four/same.png"]').first.select_option("-")
            page.locator('select[data-image="train/one/003.png"]').first.select_option(label="change to four")
            expect(page.locator("#count")).to_contain_text("with another label")
            with page.expect_download() as started:
                page.locator("#save").click()
            started.value.save_as(tmp_path / started.value.suggested_filename)
        finally:
            browser.close()
    assert problems == []
    choices = json.loads((tmp_path / "choices.json").read_text())
    assert choices["relabel"] == {"train/one/wrong10.png": "zero", "train/one/003.png": "four"}
    assert {"train/four/same.png", "train/zero/blank.png"} <= set(choices["leave_out"])
