from __future__ import annotations

from pathlib import Path

import pytest
from sample_images import image_folder

from trainer.data.sources.spec import open_source
from trainer.errors import InputError


def test_a_folder_may_be_named_with_or_without_its_prefix(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "Pets 2", {"cat": 1, "dog": 1})
    for spec in (f"folder:{folder}", str(folder)):
        source = open_source(spec)
        assert source.spec == f"folder:{folder}"
        assert source.name == "pets-2"
        assert source.class_names == ("cat", "dog")


def test_digits() -> None:
    assert open_source("builtin:digits").name == "digits"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("builtin:digit", "'builtin:digit' is unknown; did you mean builtin:digits?"),
        ("builtin:mnist", "'builtin:mnist' is unknown; did you mean tfds:mnist?"),
        ("mnist", "did you mean tfds:mnist?"),
        ("Fashion-MNIST", "did you mean tfds:fashion_mnist?"),
        ("digits", "did you mean builtin:digits?"),
        ("nothing/here", "'nothing/here' is neither a path that exists nor one of tfds:NAME"),
        ("nothing/here", "folder:PATH, csv:FILE and builtin:digits"),
        ("folder:nothing/here", "nothing/here does not exist; a folder is expected"),
        (f"folder:{__file__}", "is a file; a folder of class folders is expected"),
        ("csv:nothing/here.csv", "nothing/here.csv does not exist; a table (csv:FILE) is expected"),
        (f"csv:{Path(__file__).parent}", "is a folder; a table (csv:FILE) is expected"),
        ("tfds:", "not of the form tfds:NAME[/CONFIG][:VERSION]"),
        ("tfds:mnist:3", "not of the form tfds:NAME[/CONFIG][:VERSION]"),
    ],
)
def test_wrong_specs_are_refused_with_suggestions(spec: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        open_source(spec)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["", "folder:"])
def test_a_misspelt_path_suggests_a_similar_one(kind: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match=rf"did you mean folder:{tmp_path}/photos\?$"):
        open_source(f"{kind}{tmp_path}/photo")


def test_a_misspelt_name_suggests_a_prepared_dataset(tmp_path: Path) -> None:
    (tmp_path / "birds" / "1.0.0").mkdir(parents=True)
    (tmp_path / "birds" / "1.0.0" / "features.json").touch()
    with pytest.raises(InputError, match=r"did you mean tfds:birds\?$"):
        open_source("bird", tmp_path)


def test_a_table_without_its_prefix_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "photos.csv").write_text("image,label")
    with pytest.raises(InputError, match=rf"is expected, or csv:{tmp_path}/photos\.csv"):
        open_source(f"{tmp_path}/photos.csv")
    with pytest.raises(InputError, match=rf"did you mean csv:{tmp_path}/photos\.csv\?$"):
        open_source(f"csv:{tmp_path}/photo.csv")


@pytest.mark.parametrize("name", ["photos.zip", "Photos.ZIP", "photos.tar.gz"])
@pytest.mark.parametrize("kind", ["", "folder:", "csv:"])
def test_an_archive_is_to_be_unpacked(kind: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"PK")
    (tmp_path / "photos").mkdir()
    with pytest.raises(
        InputError, match=rf"{name} is an archive; unpack it first, and name the folder or table in it$"
    ):
        open_source(f"{kind}{tmp_path / name}")
