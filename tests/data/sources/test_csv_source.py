from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from sample_images import save_image

from trainer.cli import run
from trainer.data.sources.csv import CsvSource
from trainer.data.sources.spec import check_spec, open_source
from trainer.errors import InputError

TABLE = "image,label\na/0.png,cat\na/1.png,dog\nb/2.png,cat\n"


def table(folder: Path, text: str | bytes = TABLE, name: str = "photos.csv") -> Path:
    """Write a table, and the images a/0.png, a/1.png, b/2.png and b/3.png beside it."""
    for number, place in enumerate(("a/0.png", "a/1.png", "b/2.png", "b/3.png")):
        save_image(folder / place, seed=number)
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def found(source: CsvSource) -> list[tuple[str, str, str]]:
    return [(example.split, source.class_names[example.label], example.name) for example in source.examples()]


def test_a_row_for_each_image(tmp_path: Path) -> None:
    file = table(tmp_path, name="My Photos.csv")
    source = open_source(f"csv:{file}")
    assert isinstance(source, CsvSource)
    assert source.spec == f"csv:{file}"
    assert source.name == "my-photos"
    assert source.class_names == ("cat", "dog")
    assert len(source) == 3
    assert found(source) == [("train", "cat", "a/0.png"), ("train", "dog", "a/1.png"), ("train", "cat", "b/2.png")]
    first = next(source.examples())
    assert first.data == str(tmp_path / "a/0.png")
    assert first.size_bytes == (tmp_path / "a/0.png").stat().st_size


def test_splits_have_several_names_and_keep_the_order_of_the_table(tmp_path: Path) -> None:
    text = "split,label,image\nTest,cat,b/2.png\ntraining,dog,a/1.png\ndev,dog,b/3.png\ntrain,cat,a/0.png\n"
    assert found(CsvSource(str(table(tmp_path, text)))) == [
        ("train", "dog", "a/1.png"),
        ("train", "cat", "a/0.png"),
        ("val", "dog", "b/3.png"),
        ("test", "cat", "b/2.png"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Datei;Klasse;x\na/0.png;Käse;1\nb/2.png;Öl;2\n",
        "Datei\tKlasse\na/0.png\tKäse\nb/2.png\tÖl\n",
        '\ufeffKlasse,Datei\r\n"Käse","a/0.png"\r\n\r\n"Ka\u0308se","a/1.png"\r\n Öl , ./b/2.png ,more\r\n,\r\n',
    ],
)
def test_other_column_names_delimiters_and_line_ends(tmp_path: Path, text: str) -> None:
    file = table(tmp_path, text)
    source = CsvSource(f"{file}?label=Klasse&image=datei")
    assert source.spec == f"csv:{file}?image=datei&label=Klasse"
    assert source.class_names == ("Käse", "Öl")
    assert len(list(source.examples())) in (2, 3)


def test_column_names_may_be_percent_encoded(tmp_path: Path) -> None:
    file = table(tmp_path, "a & b,c=d\na/0.png,cat\na/1.png,dog\n")
    source = CsvSource(f"{file}?image=a %26 b&label=c=d")
    assert len(source) == 2
    assert open_source(source.spec).class_names == ("cat", "dog")


def test_a_repeated_row_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "trainer"):
        source = CsvSource(str(table(tmp_path, TABLE + "./a/../a/0.png,cat\n")))
    assert len(source) == 3
    assert source.ignored == 1
    assert "1 rows are repeated" in caplog.text


def test_the_fingerprint_changes_with_the_table_and_the_files(tmp_path: Path) -> None:
    file = table(tmp_path)
    first = CsvSource(str(file)).fingerprint
    assert CsvSource(str(file)).fingerprint == first
    os.utime(tmp_path / "a" / "0.png", ns=(1, 1))
    touched = CsvSource(str(file)).fingerprint
    other = CsvSource(str(table(tmp_path, TABLE + "b/3.png,dog\n"))).fingerprint
    assert len({first, touched, other}) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "row 1: no column 'image' and no column 'label', only nothing"),
        ("image,class\na/0.png,cat\n", "row 1: no column 'label', only 'image', 'class'; name the columns"),
        ("image,label,label\na/0.png,cat,dog\n", "row 1: the column 'label' is there twice"),
        (TABLE + "../x.png,cat\n", "row 5: '../x.png' leaves the folder of the file"),
        (TABLE + "a/../../x.png,cat\n", "row 5: 'a/../../x.png' leaves the folder of the file"),
        (TABLE + "/etc/passwd,cat\n", "row 5: '/etc/passwd' leaves the folder of the file"),
        (TABLE + "a/9.png,cat\n", "row 5: 'a/9.png': no such file beside the table"),
        (TABLE + "http://x/y.png,cat\n", "row 5: 'http:/x/y.png': no such file beside the table"),
        (TABLE + '"a\nb",cat\n', r"row 5: 'a\nb': no such file beside the table"),
        (TABLE + "a\0b,cat\n", r"row 5: 'a\x00b': no such file beside the table"),
        (TABLE + "a,cat\n", "row 5: 'a' is not a file"),
        (TABLE + "\nb/3.png,\n", "row 6: no label in the column 'label'"),
        (TABLE + "b/3.png\n", "row 5: no label in the column 'label'"),
        (TABLE + ",dog\n", "row 5: no image in the column 'image'"),
        (TABLE + "a/0.png,dog\n", "row 5: 'a/0.png' has the label 'dog' here and 'cat' in row 2"),
        (TABLE + f'b/3.png,"{"x" * 200_000}"\n', "row 5: cannot be read: field larger than"),
        (TABLE.encode() + b"b/3.png,\xff\n", "row 5: UTF-8 text is expected"),
        (TABLE.encode("utf-16"), "row 1: UTF-8 text is expected"),
        ("image,label\na/0.png,cat\na/1.png,cat\n", "has only one label, 'cat', where at least two labels"),
        ("image,label\n", "has no images where at least two labels are expected"),
        ("image,label,split\na/0.png,cat,test\na/1.png,dog,test\n", "has no images for train where"),
        ("image,label,split\na/0.png,cat,trian\n", "row 2: the split 'trian' is not one of train, val and test"),
        (
            "image,label,split\na/0.png,cat,train\na/1.png,dog,\n",
            "row 3: the split '' is not one of",
        ),
        (
            "image,label,split\na/0.png,cat,train\na/1.png,dog,train\na/0.png,cat,test\n",
            "row 4: 'a/0.png' has the split 'test' here and 'train' in row 2",
        ),
        (
            "image,label,split\na/0.png,cat,train\na/1.png,dog,train\nb/2.png,cow,val\n",
            "row 4: the label 'cow' is in val but not in train",
        ),
    ],
)
def test_errors_name_the_row_in_one_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(InputError) as error:
        open_source(f"csv:{table(tmp_path, text)}")
    assert words in str(error.value)
    assert "photos.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_evaluation_of_a_table_needs_neither_train_nor_a_second_class(tmp_path: Path) -> None:
    for text, expected in (
        ("image,label,split\na/0.png,cat,test\n", [("test", "cat", "a/0.png")]),
        (
            "image,label,split\na/0.png,cat,train\na/1.png,dog,test\n",
            [("train", "cat", "a/0.png"), ("test", "dog", "a/1.png")],
        ),
    ):
        assert found(CsvSource(str(table(tmp_path, text)), for_training=False)) == expected
    with pytest.raises(InputError, match="has no images"):
        CsvSource(str(table(tmp_path, "image,label\n")), for_training=False)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?picture=x", "'picture' is not one of image, label, split"),
        ("?lable=x", "did you mean label?"),
        ("?image=", "the name of a column is expected after image="),
    ],
)
def test_a_wrong_query_is_refused_before_anything_is_read(tmp_path: Path, query: str, words: str) -> None:
    file = table(tmp_path)
    with pytest.raises(InputError) as error:
        check_spec(f"csv:{file}{query}")
    assert words in str(error.value)


def test_a_named_split_column_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row 1: no column 'fold', only 'image', 'label'"):
        CsvSource(f"{table(tmp_path)}?split=fold")


def test_the_name_of_a_table_may_have_a_question_mark(tmp_path: Path) -> None:
    assert len(CsvSource(str(table(tmp_path, name="what?.csv")))) == 3


@pytest.mark.parametrize(
    ("image", "hint"),
    [
        ("a\\0.png", "'a/0.png' is there"),
        ("C:\\Users\\me\\a\\0.png", "'a/0.png' is there"),
        ("\\\\server\\share\\a\\0.png", "'a/0.png' is there"),
        ("D:\\x.png", "paths with '/' are expected"),
        ("a/0", "did you mean 'a/0.png'?"),
        ("{folder}/a/0.png", "'a/0.png', from the table's folder, is expected"),
        ("{folder}-other/a/0.png", "leaves the folder of the file"),
        ("nothing", "no such file beside the table\n"),
        ("no/folder/0", "no such file beside the table\n"),
    ],
)
def test_a_path_that_is_not_there_has_a_hint(
    tmp_path: Path, image: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    file = table(folder, f"image,label\n{image.format(folder=folder)},cat\na/1.png,dog\n")
    assert run(["data", "inspect", f"csv:{file}"]) == 2
    error = capsys.readouterr().err
    assert f"{file}, row 2: " in error
    assert hint in error


@pytest.mark.parametrize(
    ("labels", "warned"),
    [
        (("1", "1.0", "2"), "'1' and '1.0'"),
        (("Cat", "cat", "dog"), "'Cat' and 'cat'"),
        (("big cat", "Big  Cat", "dog"), "'Big  Cat' and 'big cat'"),
        (("01", "1e0", "x"), "'01' and '1e0'"),
        (("A", "a", "b"), ""),
        (("nan", "NaN", "b"), "'NaN' and 'nan'"),
        (("1", "10", "1x"), ""),
    ],
)
def test_labels_that_may_be_one_class_are_named(
    tmp_path: Path, labels: tuple[str, ...], warned: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = "".join(f"{image},{label}\n" for image, label in zip(("a/0.png", "a/1.png", "b/2.png"), labels, strict=True))
    source = CsvSource(str(table(tmp_path, f"image,label\n{rows}")))
    assert len(source.class_names) == 3
    if warned:
        assert warned in caplog.text
    else:
        assert "may mean one class" not in caplog.text


def test_class_folders_that_may_be_one_class_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, name in enumerate(("Cat", "cat", "dog")):
        save_image(tmp_path / name / "0.png", seed=number)
    assert open_source(str(tmp_path)).class_names == ("Cat", "cat", "dog")
    assert "'Cat' and 'cat'" in caplog.text
