from __future__ import annotations

import re
from pathlib import Path

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
