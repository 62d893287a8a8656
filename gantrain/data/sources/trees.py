"""A tree of files -> a source: which split, which pictures, which labels. Folders, zips, tars."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ganinfer.errors import DataError
from gantrain.data.labels import LABEL_FILES, in_order, matched, read_label_file
from gantrain.data.names import counted_suffixes, is_litter, is_picture, listed, natural
from gantrain.data.source import Source

SPLITS = ("train", "test", "val")
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
}
# StyleGAN's dataset_tool counts thousands by folders.
_BUCKETED = re.compile(r"\d{5}/img\d{8}\.\w+")


@dataclass(frozen=True)
class Tree:
    """Files under one root.

    Attributes:
        where: what a message calls it.
        names: of the files, relative to the root, with "/".
        open: name -> its bytes; raises whatever it likes if it is broken.
        folders: names of the folders, as far as they are known.
        skipped: what could not even be listed -> the reason.
        place: the root, if it is a folder.
    """

    where: str
    names: Sequence[str]
    open: Callable[[str], bytes]
    folders: Sequence[str] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    place: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """Where labels come from.

    file: a label file; by default one that lies among the pictures, else their folders.
    wanted: False for no labels at all.
    """

    file: Path | None = None
    wanted: bool = True


def pictures_of(tree: Tree, split: str, labelling: Labelling) -> Source:
    """The pictures of one split of a tree, in natural order, and their labels.

    Raises:
        DataError: there are none, or the split is not there, or labels are not clear.
    """
    files = [name for name in tree.names if not is_litter(name)]
    pictures = sorted(filter(is_picture, files), key=natural)
    if not pictures:
        raise DataError(
            f"{tree.where}: no image files in it; found {counted_suffixes(files) or 'nothing'};"
            " expected pictures such as .png and .jpg, or another kind of source"
        )
    root, pictures, warnings = _split(tree.where, pictures, split)
    label_file, values, told = _labels(tree, files, root, pictures, labelling)
    others = [
        name
        for name in files
        if not is_picture(name) and name != label_file and not _is_label_file(name)
    ]
    if others:
        warnings.append(f"left out what is no picture: {counted_suffixes(others)}")
    tables = [name for name in others if name.lower().endswith((".csv", ".tsv", ".jsonl"))]
    if tables and values is None and labelling.wanted:
        warnings.append(f"if {tables[0]} tells the classes, give it as --labels")
    classes, labels = in_order(values) if values else ([], None)
    if values and label_file is None:
        warnings += _empty_folders(tree, root, pictures)
    skipped = {name: why for name, why in tree.skipped.items() if name.startswith(root)}
    return Source(
        pictures,
        classes,
        labels,
        lambda index: tree.open(pictures[index]),
        [tree.place / name for name in pictures] if tree.place else (),
        skipped,
        [*warnings, *told],
    )


def _tops(names: Iterable[str], root: str) -> dict[str, int]:
    """Folders directly under a root, "" for pictures that lie there -> pictures in them."""
    found: dict[str, int] = {}
    for name in names:
        top, slash, _ = name[len(root) :].partition("/")
        top = top if slash else ""
        found[top] = found.get(top, 0) + 1
    return found


def _without_common(names: Sequence[str], root: str) -> str:
    """The root, and the only folder in it, and the only folder in that ..., up to a split."""
    while True:
        tops = _tops(names, root)
        (top, *others) = tops
        if others or top == "" or top.lower() in _SPLIT_NAMES:
            return root
        root += f"{top}/"


def _split(where: str, pictures: list[str], split: str) -> tuple[str, list[str], list[str]]:
    """The root of a split, its pictures, and what is left out beside them."""
    root = _without_common(pictures, "")
    tops = _tops(pictures, root)
    found: dict[str, str] = {}
    for top in tops:
        if kind := _SPLIT_NAMES.get(top.lower()):
            if kind in found:
                raise DataError(f"{where}: {found[kind]}/ and {top}/ are one split; move one away")
            found[kind] = top
    names = " and ".join(f"{top}/" for top in sorted(found.values()))
    if split in found:
        chosen = f"{root}{found[split]}/"
        others = [top for top in tops if top not in found.values()]
        left = sum(tops[top] for top in others)
        warnings = (
            [f"left out {left:,} pictures beside {names}, in {listed(o or '.' for o in others)}"]
            if left
            else []
        )
        pictures = [name for name in pictures if name.startswith(chosen)]
        return _without_common(pictures, chosen), pictures, warnings
    if not found:
        if split != "train":
            raise DataError(f"split {split!r}: {where} has no splits; leave --split out")
        return root, pictures, []
    rest = [name for name in pictures if name[len(root) :].partition("/")[0] not in found.values()]
    if split != "train" or not rest:
        raise DataError(f"split {split!r}: {where} has only {names}; choose by --split")
    return _without_common(rest, root), rest, [f"left out {names}, which are other splits"]


def _labels(
    tree: Tree, files: list[str], root: str, pictures: list[str], labelling: Labelling
) -> tuple[str | None, list[str] | None, list[str]]:
    """The label file inside the tree, if one was used; a class for each picture; warnings."""
    if not labelling.wanted:
        return None, None, []
    if labelling.file is not None:
        return _told_by(labelling.file, tree, root, pictures)
    folder = root
    while True:  # beside the pictures, or further up
        here = [f for f in files if f.startswith(folder) and "/" not in f[len(folder) :]]
        here = [name for name in here if _is_label_file(name)]
        read = {name: read_label_file(name, tree.open(name)) for name in here}
        told = {name: labels for name, labels in read.items() if labels != {}}
        if sum(labels is not None for labels in told.values()) > 1:
            raise DataError(f"{tree.where}: found {listed(here)}; choose one by --labels")
        if told:
            name = next((name for name in told if told[name]), here[0])
            if not (labels := told[name]):
                return name, None, [f"{name} tells no labels"]
            values, left = matched(labels, pictures, name, (folder, root))
            return name, values, _left_over(name, left)
        if not folder:
            return None, *_of_folders(tree.where, root, pictures)
        folder = folder[: folder[:-1].rfind("/") + 1]


def _is_label_file(name: str) -> bool:
    return name.rpartition("/")[2].lower() in LABEL_FILES


def _told_by(
    file: Path, tree: Tree, root: str, pictures: list[str]
) -> tuple[str | None, list[str], list[str]]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    told = read_label_file(str(file), data)
    if not told:
        raise DataError(f"{file}: tells no labels; expected a column label, or give --no-labels")
    name, folders = None, ["", root]
    if tree.place is not None and file.resolve().is_relative_to(tree.place.resolve()):
        name = file.resolve().relative_to(tree.place.resolve()).as_posix()
        folders = [name[: name.rfind("/") + 1], *folders]
    values, left = matched(told, pictures, str(file), folders)
    return name, values, _left_over(str(file), left)


def _left_over(name: str, count: int) -> list[str]:
    return [f"{name} tells of {count:,} pictures that are not here"] if count else []


def _of_folders(where: str, root: str, pictures: list[str]) -> tuple[list[str] | None, list[str]]:
    """Classes by the folders directly under the root; what is doubtful about them."""
    if all(_BUCKETED.fullmatch(name[len(root) :]) for name in pictures):
        return None, ["00000/ and its like count pictures and are no classes; no dataset.json"]
    tops = _tops(pictures, root)
    loose = tops.pop("", 0)
    if not tops:
        top = root.rstrip("/").rpartition("/")[2]
        if not top or top.lower() in _SPLIT_NAMES:
            return None, []
        return None, [f"all pictures lie in one folder, {top}, which is no class"]
    if loose:
        stray = next(name for name in pictures if "/" not in name[len(root) :])
        raise DataError(
            f"{where}: {stray} has no class, as it lies beside the folders {listed(tops)}"
            f" ({loose:,} such); move it into one or away, or give --no-labels"
        )
    return [name[len(root) :].partition("/")[0] for name in pictures], []


def _empty_folders(tree: Tree, root: str, pictures: list[str]) -> list[str]:
    tops = _tops(pictures, root)
    inside = {f[len(root) :].partition("/")[0] for f in tree.folders if f.startswith(root)}
    empty = sorted(top for top in inside - set(tops) if top and not is_litter(root + top))
    splits = [top for top in empty if top.lower() in _SPLIT_NAMES]
    empty = [top for top in empty if top not in splits]
    return [f"no classes, as there is no picture in them: {listed(empty)}"] if empty else []
