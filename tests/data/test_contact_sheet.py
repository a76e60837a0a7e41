from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sample_images import image_folder

from trainer.data import load
from trainer.data.contact_sheet import CELL, GAP, MARGIN, SAMPLES, TEXT_WIDTH, draw_contact_sheet


def test_a_contact_sheet_shows_up_to_eight_images_of_each_class(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "data", {"Ä long name " * 8: 30, "日本": 5}, size=(32, 16), mode="L")
    dataset = load(str(folder))
    draw_contact_sheet(dataset, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as opened:
        sheet = np.asarray(opened)
    left = sheet.shape[1] - SAMPLES * (CELL + GAP)
    assert sheet.shape == (2 * (CELL + GAP) + GAP, sheet.shape[1], 3)
    assert 0.9 * TEXT_WIDTH < left - 2 * MARGIN <= TEXT_WIDTH  # the long name is cut
    first = np.flatnonzero(dataset.train.labels == 0)[0]
    shown = sheet[GAP : GAP + CELL : 2, left : left + CELL // 2 : 2, 0]
    np.testing.assert_array_equal(shown, dataset.train.read(np.array([first]))[0, :, :, 0])
    row = sheet[GAP + CELL + GAP :, left:]
    cells = [row[:CELL, column * (CELL + GAP) : column * (CELL + GAP) + CELL] for column in range(SAMPLES)]
    assert [bool((cell < 255).any()) for cell in cells] == [number < 3 for number in range(SAMPLES)]
    assert (sheet[:, :left] < 255).any()  # the names


def test_many_classes_are_cut_off(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "data", {f"{number:03}": 3 for number in range(60)}, size=(8, 8))
    draw_contact_sheet(load(str(folder)), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert 50 * (CELL + GAP) < sheet.height < 51 * (CELL + GAP)
