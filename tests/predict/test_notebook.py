"""The code of docs/python.md, run in a notebook."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from expected_answers import encoded
from nbclient import NotebookClient
from server import PROJECT

from trainer import load_model
from trainer.artifact import store


def test_the_code_of_the_page_runs_in_a_notebook(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    store.publish(tiny_artifact, "photos")
    (tmp_path / "photos").mkdir()
    (tmp_path / "some-image.jpg").write_bytes(encoded("JPEG"))
    (tmp_path / "photos" / "1.jpg").write_bytes(encoded())
    (tmp_path / "photos" / "2.jpg").write_bytes(b"no image")
    page = (PROJECT / "docs" / "python.md").read_text()
    cells = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (*cells, "answer, model")])
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()

    printed = ["".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells]
    model = load_model("photos")
    assert printed[0] == f"{model.predict(encoded('JPEG'))}\n"
    good, bad = printed[1].splitlines()
    assert good == f"photos/1.jpg is {model.predict(encoded())}"
    assert bad.startswith("photos/2.jpg has no answer: photos/2.jpg: not an image of a supported type")
    (shown,) = notebook.cells[2].outputs
    assert shown["data"]["text/plain"].endswith(f"{model!r})")
