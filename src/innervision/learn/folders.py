"""Picture files with labels: a folder with a folder a class, or a table of paths and labels."""

from __future__ import annotations

import contextlib
import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from innervision._decode import identify
from innervision.errors import Invalid, unknown
from innervision.learn.raw import many

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic")
)
TABLES = (".csv", ".tsv")
_PARTS = MappingProxyType(
    {
        "train": ("train", "training"),
        "validation": ("validation", "valid", "val"),
        "test": ("test", "testing"),
    }
)
_PATH = ("path", "file", "filename", "file_name", "image", "image_path", "filepath", "name")
_LABEL = ("label", "class", "category", "class_name", "label_name", "target")
_PART = ("part", "split", "set", "subset")
_LOOKED_AT = 200  # pictures whose sizes are told where there are no classes


@dataclass(frozen=True)
class Listing:
    """Files and their labels, in order; nothing of them has been read."""

    name: str
    root: Path  # what the files' names are told from
    files: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    bad: tuple[tuple[str, str], ...] = ()  # rows of a table that cannot be used, and why
    notes: tuple[str, ...] = ()


def parts(path: Path) -> tuple[str, ...]:
    """Return which parts a folder or table is divided into; ("train",) where it is not."""
    if path.suffix.lower() in TABLES:
        found = {row.part for row in _rows(path)}
        return tuple(part for part in _PARTS if part in found)
    divided = _divided(path)
    return tuple(divided) or ("train",)


def _divided(folder: Path) -> dict[str, Path]:
    """Return part -> its folder, where a folder holds train/ and perhaps others."""
    inside = {p.name.lower(): p for p in folder.iterdir() if p.is_dir()}
    found = {part: inside[name] for part, names in _PARTS.items() for name in names if name in inside}
    return found if "train" in found or set(found.values()) == set(inside.values()) else {}


def listing(
    path: Path,
    part: str,
    *,
    classes: Sequence[str] | None = None,
    bad: Literal["refuse", "skip"] = "refuse",
    lacking: Literal["refuse", "tell"] = "refuse",
) -> Listing:
    """List the files of a part with their labels.

    Classes are in the order of their names, numbers by value. Those of a test or validation part are the
    training part's. classes: all names there may be, in their order; then a part may lack some of them.
    Raises Invalid for a class without pictures and for a single class, unless `lacking` is "tell" (then
    `notes` say it), and for labels that are unknown; of a table's rows these last are kept in `bad` where
    `bad` is "skip".
    """
    tell = lacking == "tell"
    listed = path.suffix.lower() in TABLES
    found = _table(path, part, classes) if listed else _folder(path, part, classes, tell=tell)
    if found.bad and bad == "refuse":
        raise Invalid(told(found.bad, len(found.files) + len(found.bad), f"'{path}'"))
    if len(found.classes) < 2:
        one = f"only one class, {found.classes[0]!r}" if found.classes else "no class"
        if tell and found.classes:
            return replace(found, notes=(*found.notes, f"{one}: a classifier tells two or more apart"))
        raise Invalid(f"'{path}' has {one}: a classifier tells two or more apart; {_HOW}")
    return found


_HOW = "give each class a folder of its own, with its pictures in it, or name its label in a table"


def told(bad: Sequence[tuple[str, str]], of: int, where: str) -> str:
    """Return the line that names files which cannot be used, the first five in full."""
    shown = "; ".join(f"{name}: {reason}" for name, reason in bad[:5])
    more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
    return (
        f"{len(bad)} of {of} pictures of {where} cannot be used: {shown}{more}; mend them, or skip them "
        "(bad='skip')"
    )


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return names sorted: as numbers, where all are."""
    unique = set(names)
    return tuple(sorted(unique, key=(lambda n: (int(n), n)) if all(n.isdecimal() for n in unique) else None))


# a folder a class


def pictures_in(folder: Path) -> list[Path]:
    """Return the picture files in a folder, at any depth, in the order of their paths."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def _found(folder: Path) -> str:
    """Say which pictures there are in a folder that has no classes: how many, and of what sizes."""
    loose = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in SUFFIXES and p.is_file()]
    if not loose:
        return ", and no pictures"
    sizes: set[tuple[int, int]] = set()
    for path in loose[:_LOOKED_AT]:
        with contextlib.suppress(Exception), path.open("rb") as file:  # a damaged head may raise anything
            picture = identify(file)
            if picture is not None:
                sizes.add(picture.size)
    if not sizes:
        return f", but {many(len(loose), 'picture file')}"
    least, most = min(sizes, key=math.prod), max(sizes, key=math.prod)
    spread = "{}x{}".format(*least) + ("" if least == most else " to {}x{}".format(*most))
    some = f" (the first {_LOOKED_AT})" if len(loose) > _LOOKED_AT else ""
    return f", but {many(len(loose), 'picture')} of {spread} px{some}"


def _folder(path: Path, part: str, classes: Sequence[str] | None, *, tell: bool) -> Listing:
    divided = _divided(path)
    folder = divided.get(part, path)
    names = tuple(classes) if classes is not None else _in_order(_class_folders(divided.get("train", folder)))
    here = _class_folders(folder)
    if not here:
        raise Invalid(f"no class folders in '{folder}'{_found(folder)}: {_HOW}")
    files: list[Path] = []
    labels: list[int] = []
    empty: list[str] = []
    for name in sorted(here):
        own = pictures_in(here[name])
        if not own and not tell:
            raise Invalid(
                f"class {name!r} has no pictures: '{here[name]}' is empty; put some in, or remove the folder"
            )
        if not own:
            empty.append(name)
        if name not in names:
            raise unknown(
                "class", name, names, of=f"the classes of '{path}'" if classes is None else "the network"
            )
        files += own
        labels += [names.index(name)] * len(own)
    order = sorted(range(len(files)), key=lambda n: (labels[n], files[n]))
    loose = sum(p.suffix.lower() in SUFFIXES for p in folder.iterdir() if p.is_file())
    notes = (f"no pictures of {', '.join(empty)}",) if empty else ()
    return Listing(
        name=path.resolve().name,
        root=folder,
        files=tuple(files[n] for n in order),
        labels=tuple(labels[n] for n in order),
        classes=names,
        notes=(*notes, *((f"{many(loose, 'picture')} in no class folder left out",) if loose else ())),
    )


def _class_folders(folder: Path) -> dict[str, Path]:
    return {p.name: p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__"))}


# a table


@dataclass(frozen=True)
class _Row:
    number: int  # of the line, from 1
    path: str
    label: str
    part: str


def _rows(path: Path) -> list[_Row]:
    """Read a table: with a head that names the columns, or path and label in the first two."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except (OSError, UnicodeError) as error:
        raise Invalid(f"cannot read '{path}' ({error}): it must be a text table in UTF-8") from error
    first = text.partition("\n")[0]
    mark = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in first and "," not in first else ","
    reader = csv.reader(text.splitlines(keepends=True), delimiter=mark)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader if any(line)]
    except csv.Error as error:
        raise Invalid(f"'{path}', line {reader.line_num}: {error}") from error
    if not lines:
        raise Invalid(f"'{path}' is empty: a line a picture is wanted, with its path and its label")
    head = [cell.lower() for cell in lines[0][1]]
    columns = [next((head.index(n) for n in names if n in head), None) for names in (_PATH, _LABEL, _PART)]
    at, label, part = columns
    if at is None and label is None:
        at, label, part = 0, 1, None
    else:
        lines = lines[1:]
    if at is None or label is None:
        lacking = f"no column for the {'label' if label is None else 'path'}"
        raise Invalid(f"'{path}' has {lacking} among {', '.join(head)}: name the columns path and label")
    rows: list[_Row] = []
    for number, cells in lines:
        if len(cells) <= max(at, label, part or 0):
            raise Invalid(f"'{path}', line {number}: {len(cells)} columns, where path and label are wanted")
        rows.append(
            _Row(
                number,
                cells[at],
                cells[label],
                _part(cells[part], path, number) if part is not None else "train",
            )
        )
    return rows


def _part(text: str, path: Path, number: int) -> str:
    found = next((part for part, names in _PARTS.items() if text.lower() in names), None)
    if found is None:
        raise Invalid(f"'{path}', line {number}: part is {text!r}; it must be train, validation or test")
    return found


def _table(path: Path, part: str, classes: Sequence[str] | None) -> Listing:
    rows = _rows(path)
    names = tuple(classes) if classes is not None else ()
    if not names:
        of = "train" if any(row.part == "train" for row in rows) else part
        names = _in_order(row.label for row in rows if row.part == of and row.label)
    files: list[Path] = []
    labels: list[int] = []
    bad: list[tuple[str, str]] = []
    for row in rows:
        if row.part != part:
            continue
        file = path.parent / row.path
        if not row.label:
            bad.append((f"line {row.number}, {row.path}", "it has no label"))
        elif row.label not in names:
            bad.append((f"line {row.number}, {row.path}", str(unknown("class", row.label, names))))
        elif not file.is_file():
            bad.append((f"line {row.number}, {row.path}", "no such file"))
        else:
            files.append(file)
            labels.append(names.index(row.label))
    empty = (
        [name for number, name in enumerate(names) if number not in set(labels)] if classes is None else []
    )
    notes = (f"no pictures of {', '.join(empty)}",) if empty else ()
    return Listing(path.stem, path.parent, tuple(files), tuple(labels), names, tuple(bad), notes)
