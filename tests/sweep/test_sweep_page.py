from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from trainer.sweep.search import Search
from trainer.sweep.space import Parameter, SweepSpec
from trainer.sweep.sweep_page import write_page


def test_a_setting_that_did_not_vary_has_no_chart_of_importance(tmp_path: Path) -> None:
    parameters = {"dropout": Parameter(choices=(0.1, 0.2)), "seed": Parameter(choices=(0, 1))}
    search = Search(SweepSpec(Path("s.yaml"), "grid", parameters, ("${args}",), None, None), tmp_path)
    values = {(0.1, 0): 0.5, (0.1, 1): 0.8, (0.2, 0): 0.6, (0.2, 1): 0.7}
    started = [trial for _ in values if (trial := search.next_trial(None))]
    for trial in started:
        if trial.params["dropout"] == 0.1:
            search.finish(trial, values[tuple(trial.params.values())])  # type: ignore[index]
    assert write_page(search, tmp_path / "sweep.html")
    page = (tmp_path / "sweep.html").read_text()
    assert re.findall('alt="([^"]*)"', page) == ["Trial by trial", "seed"]  # which alone explains everything
    assert '<dd class="value">80.00&nbsp;%</dd>\n  <dd>trial' in page
    for trial in started:
        if trial.params["dropout"] == 0.2:
            search.finish(trial, values[tuple(trial.params.values())])  # type: ignore[index]
    assert write_page(search, tmp_path / "sweep.html")
    page = (tmp_path / "sweep.html").read_text()
    assert re.findall('alt="([^"]*)"', page) == ["Trial by trial", "Which settings mattered", "dropout", "seed"]


CHROMIUM = shutil.which("chromium")


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
def test_page_in_a_browser(tmp_path: Path) -> None:
    """The page fits a telephone and a desk, with several settings of all kinds."""
    from playwright.sync_api import sync_playwright

    parameters = {
        "learning_rate": Parameter(low=-5, high=-2, transform=lambda drawn: 10**drawn),
        "dropout": Parameter(choices=(0.4, 0.2)),
        "model": Parameter(choices=("efficientnet_lite0", "keras.applications:EfficientNetV2B0")),
    }
    search = Search(SweepSpec(Path("s.yaml"), "random", parameters, ("${args}",), None, None), tmp_path)
    for _ in range(8):
        trial = search.next_trial(None)
        assert trial
        search.finish(trial, 0.5 + float(trial.params["dropout"]) + float(trial.params["learning_rate"]))
    best = search.leaders("")[0]
    assert write_page(search, tmp_path / "sweep.html")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            for width in (360, 1280):
                page = browser.new_page(viewport={"width": width, "height": 800})
                page.goto((tmp_path / "sweep.html").as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") == width
                assert page.locator("img").count() == 5
                assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
                assert page.locator("dl").inner_text().split("\n")[1] == f"{100 * (best.value or 0):.2f}\u00a0%"
                assert f"trial {best.number}: learning_rate" in page.locator("dl").inner_text()
        finally:
            browser.close()
