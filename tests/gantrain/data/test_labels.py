import json
from pathlib import Path

import pytest

from ganinfer.errors import DataError
from gantrain.data.labels import doubts, in_order, read_label_file
from gantrain.data.sources import open_source
from gantrain.data.sources.trees import Labelling


def files(root: Path, *names: str, **texts: str) -> Path:
    """Files without pictures in them: who only reads labels does not look inside."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    for name, text in texts.items():
        (root / name.replace("__", ".")).write_text(text)
    return root


def opened(root: Path, split: str = "train", **labelling: object) -> dict[str, str] | None:
    source = open_source(str(root), split, Labelling(**labelling))
    if source.labels is None:
        return None
    return {name: source.classes[n] for name, n in zip(source.names, source.labels, strict=True)}


def test_classes_stand_in_natural_order() -> None:
    classes, labels = in_order(["10", "9", "b2", "b10", "2"])
    assert classes == ["2", "9", "10", "b2", "b10"]
    assert labels.tolist() == [2, 1, 3, 4, 0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "file,label\n./a.png,cat\nb\\c.png,3\n"),
        ("x.csv", "\ufeffLabel;FileName\ncat;a.png\n3;b/c.png\n"),
        ("x.tsv", "image\tclass\na.png\tcat\nb/c.png\t3\n"),
        ("x.csv", 'a.png,"cat"\nb/c.png,3\n'),
        (
            "x.jsonl",
            '{"file_name": "a.png", "label": "cat"}\n\n{"label": 3, "file_name": "b/c.png"}',
        ),
        ("x.json", '{"labels": [["a.png", "cat"], ["b/c.png", 3]]}'),
        ("x.json", '{"labels": {"a.png": "cat", "b/c.png": 3}}'),
    ],
)
def test_label_files_of_every_kind_say_the_same(name: str, text: str) -> None:
    assert read_label_file(name, text.encode()) == {"a.png": "cat", "b/c.png": "3"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dataset.json", '{"labels": null}'),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "a cat"}'),
        ("metadata.csv", "file_name,text\na.png,a cat\n"),
    ],
)
def test_a_file_may_tell_no_labels(name: str, text: str) -> None:
    assert read_label_file(name, text.encode()) is None


def test_a_file_about_something_else_is_no_label_file(tmp_path: Path) -> None:
    root = files(tmp_path, "cat/a.png", "dog/a.png", dataset__json='{"info": 1}')
    assert opened(root) == {"cat/a.png": "cat", "dog/a.png": "dog"}
    with pytest.raises(DataError, match=r"dataset.json: tells no labels"):
        opened(root, file=root / "dataset.json")
    flat = files(tmp_path / "flat", "a.png", mine__csv="a.png,1")
    assert "if mine.csv tells the classes, give it as --labels" in open_source(str(flat)).warnings


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x.csv", "a,b,c\n1,2,3\n", "found the columns a, b, c; expected file and label"),
        ("x.csv", "file,label\na.png,\n", "a.png has no label; .*--no-labels"),
        ("x.csv", "file,label\na.png,1\na.png,2\n", "a.png has two labels, 1 and 2"),
        ("x.jsonl", '{"file_name": "a.png", "label": [0, 1]}', "the label of a.png is 2 numbers"),
        ("x.json", '{"labels": [["a.png", 0.5]]}', "the label of a.png is 0.5"),
        ("x.json", '{"labels": [3]}', "cannot be read as labels"),
        ("x.jsonl", "{", "cannot be read as labels"),
        ("x.csv", "file,label\nb\xe9.png,1".encode("latin-1"), "cannot be read as labels"),
        ("x.yaml", "a: 1", "expected labels in .csv"),
    ],
)
def test_what_is_no_class_is_named(name: str, text: str | bytes, words: str) -> None:
    with pytest.raises(DataError, match=f"{name}: .*{words}"):
        read_label_file(name, text if isinstance(text, bytes) else text.encode())


def test_a_label_file_goes_before_folders_and_buckets_are_no_classes(tmp_path: Path) -> None:
    names = ("00000/img00000000.png", "00001/img00001000.png")
    root = files(tmp_path / "x", *names)
    assert opened(root) is None
    assert "no dataset.json" in open_source(str(root)).warnings[0]
    labels = [[name, 1 - i] for i, name in enumerate(names)]
    files(root, dataset__json=json.dumps({"labels": labels}))
    assert opened(root) == {names[0]: "1", names[1]: "0"}
    assert opened(root, wanted=False) is None
    files(root, dataset__json='{"labels": null}')
    assert opened(root) is None


def test_labels_lie_beside_the_pictures_or_above_them_or_elsewhere(tmp_path: Path) -> None:
    root = files(tmp_path / "x", "all/train/a.png", "all/train/b.png", "all/test/c.png")
    expected = {"all/train/a.png": "cat", "all/train/b.png": "dog"}
    beside, above, elsewhere = (
        root / "all/train/labels.csv",
        root / "labels.csv",
        tmp_path / "l.csv",
    )
    beside.write_text("file,label\na.png,cat\nb.png,dog\n")
    assert opened(root) == expected
    beside.rename(elsewhere)
    assert opened(root) is None
    assert opened(root, file=elsewhere) == expected
    above.write_text("".join(f"{name},{label}\n" for name, label in expected.items()))
    assert opened(root) == expected
    above.write_text("file,label\nelse.png,cat\n")
    with pytest.raises(
        DataError, match="none of the 1 files .* such as else.png .* all/train/a.png"
    ):
        opened(root)
    above.write_text("file,label\nall/train/a.png,cat\n")
    with pytest.raises(DataError, match="1 of 2 pictures have no label, all/train/b.png first"):
        opened(root)


def test_two_label_files_are_not_chosen_between(tmp_path: Path) -> None:
    root = files(tmp_path, "a.png", labels__csv="a.png,cat\n", metadata__csv="a.png,dog\n")
    with pytest.raises(DataError, match="labels.csv, metadata.csv; choose one by --labels"):
        opened(root)
    assert opened(root, file=root / "labels.csv") == {"a.png": "cat"}


def test_a_stray_picture_is_refused_by_its_name(tmp_path: Path) -> None:
    root = files(tmp_path, "cat/a.png", "dog/a.png", "preview.png")
    with pytest.raises(DataError, match="preview.png has no class, .* beside the folders cat, dog"):
        opened(root)
    assert opened(root, wanted=False) is None


def test_one_folder_is_no_class_and_is_told(tmp_path: Path) -> None:
    root = files(tmp_path, "photos/images/a.png", "photos/images/b.png")
    source = open_source(str(root))
    assert source.labels is None
    assert source.warnings == ["all pictures lie in one folder, images, which is no class"]


def test_classes_that_look_alike_and_folders_without_pictures_are_told(tmp_path: Path) -> None:
    assert "Cat and cat differ by case" in doubts(["Cat", "cat", "dog"])[0]
    assert "e\u0301a and éA" in doubts(["e\u0301a", "éA"])[0]
    assert "one class, cat" in doubts(["cat"])[0]
    root = files(tmp_path, "x/cat/a.png", "x/dog/a.png", "x/notes/a.txt", "x/leer/.hidden")
    assert open_source(str(root)).warnings == [
        "left out what is no picture: 1 .txt",
        "no classes, as there is no picture in them: leer, notes",
    ]


@pytest.mark.parametrize("top", ["", "data/", "a/b/"])
def test_splits_are_found_below_one_common_folder_and_never_mixed(tmp_path: Path, top: str) -> None:
    names = [f"{top}{place}/{label}/a.png" for place in ("Train", "testing") for label in "xy"]
    root = files(tmp_path, *names, f"{top}more/a.png")
    assert list(opened(root) or ()) == names[:2]
    assert list(opened(root, "test") or ()) == names[2:]
    assert (
        "left out 1 pictures beside Train/ and testing/, in more" in open_source(str(root)).warnings
    )
    with pytest.raises(DataError, match="split 'val': .* has only Train/ and testing/"):
        opened(root, "val")


def test_a_test_split_beside_classes_is_left_out(tmp_path: Path) -> None:
    root = files(tmp_path, "cat/a.png", "dog/a.png", "test/cat/b.png")
    assert opened(root) == {"cat/a.png": "cat", "dog/a.png": "dog"}
    assert "left out test/" in open_source(str(root)).warnings[0]
    only = files(tmp_path / "only", "test/a.png", "val/a.png")
    with pytest.raises(DataError, match="has only test/ and val/; choose by --split"):
        opened(only)
