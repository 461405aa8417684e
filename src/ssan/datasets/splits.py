"""Splits of a folder of classes into videos for training and for validation, by a rule."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from ssan.datasets.samples import inside
from ssan.datasets.tables import known_split, table_with_header
from ssan.datasets.tree import VIDEO_SUFFIXES
from ssan.errors import AnnotationError, UsageError, few, printable, quoted

MOST_FOLDS = 1000

_FOLD = re.compile(r"([0-9]{1,4})/([0-9]{1,4})")


@dataclass(frozen=True)
class SplitRule:
    """How the videos of a folder are split, as options of its reader say it; nothing said is None.

    :param splits: a CSV file with columns ``path,split``; paths are relative to the folder. Videos that it does not
        name belong to no split.
    :param val_groups: ``REGEX=a,b,c``: the videos with one of a, b, c as the regex's group are in ``val``, all others
        in ``train``. For splitting by person, place or source rather than at random. A regex that is in no file name is
        searched in the paths below the folder.
    :param val_fraction: so large a share of the videos is in ``val``: of every class, or of whole ``groups``.
    :param fold: ``K/N``: of N parts of the same size the Kth is ``val``; each has every class, or whole ``groups``.
    :param groups: a regex, whose group tells which videos must stay together: a person, a place, a source.
    :param split_seed: of the draw for ``val_fraction`` and ``fold``, "0" by default. It depends on the names of the
        videos, without suffix, and on nothing else: a video that is added leaves almost all others where they are.
    """

    splits: str | None = None
    val_groups: str | None = None
    val_fraction: str | float | None = None
    fold: str | None = None
    groups: str | None = None
    split_seed: str | int | None = None

    @property
    def given(self) -> list[str]:
        """The options that say which videos are for validation."""
        named = {
            "--splits": self.splits, "--val-groups": self.val_groups, "--val-fraction": self.val_fraction,
            "--fold": self.fold,
        }  # fmt: skip
        return [option for option, value in named.items() if value is not None]

    def homes(self, root: str, videos: Sequence[tuple[str | None, str]]) -> tuple[dict[str, str], list[str]]:
        """The split of each video, by its path, and what is to be said of it.

        :param videos: the label and the path of each.
        :raises UsageError: there is no rule, or two, or it is malformed or does not fit the videos.
        """
        if len(self.given) > 1:
            raise UsageError(f"{' and '.join(self.given)} say the same thing twice; give one of them")
        if not self.given:
            raise UsageError(
                "the folder does not say which videos are for training and which for validation. Make FOLDER/train and "
                "FOLDER/val, or give --splits CSV (columns path,split), --val-groups 'REGEX=a,b,c' (file names whose "
                "group is a, b or c are for validation), --val-fraction 0.2 or --fold 1/5; --split all takes every "
                "video",
                path=root,
            )
        paths = [path for _, path in videos]
        if self.splits is not None:
            return _listed(root, self.splits, paths), []
        if self.val_groups is not None:
            if self.groups is not None:
                raise UsageError("--groups and --val-groups say the same thing twice; give one of them")
            return _of_groups(root, self.val_groups, paths), []
        chosen = self._drawn(root, videos)
        drawn = f"{len(chosen)} of {len(videos)} videos are for validation"
        how = f"--fold {self.fold}" if self.fold is not None else f"--val-fraction {self.val_fraction}"
        if self.groups is not None:
            groups = groups_of(root, self.groups, paths, "--groups")
            drawn += f", those of {few(sorted({str(groups[path]) for path in chosen}), 10)}"
        note = f"{drawn} ({how}, split_seed {self._seed()})"
        return {path: "val" if path in chosen else "train" for path in paths}, [note]

    def _seed(self) -> int:
        try:
            return int(self.split_seed or 0)
        except ValueError:
            raise UsageError(f"split_seed is {self.split_seed!r}; expected a whole number") from None

    def _drawn(self, root: str, videos: Sequence[tuple[str | None, str]]) -> set[str]:
        """The paths of the videos for validation, by a share or a fold."""
        seed = self._seed()
        groups = None if self.groups is None else groups_of(root, self.groups, [path for _, path in videos], "--groups")
        units: dict[str, list[str]] = {}  # what stays together, by a name
        strata: dict[str, list[str]] = {}  # the names of those among which is drawn
        for label, path in videos:
            name = _bare(os.path.relpath(path, root)) if groups is None else groups[path]
            if name is None:
                raise UsageError(f"--groups: {printable(path)} has no group; every video needs one", path=root)
            if name not in units:
                strata.setdefault(str(label) if groups is None else "", []).append(name)
            units.setdefault(name, []).append(path)
        for names in strata.values():
            names.sort(key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode(errors="surrogateescape")).digest())
        if self.fold is not None:
            chosen = _fold(self.fold, list(strata.values()), units)
        else:
            share = _share(str(self.val_fraction))
            chosen = [name for names in strata.values() for name in _nearest(names, units, share)]
        return {path for name in chosen for path in units[name]}


def _share(word: str) -> float:
    try:
        share = float(word)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise UsageError(f"--val-fraction is {word!r}; expected a share of the videos, such as 0.2")
    return share


def _nearest(names: Sequence[str], units: dict[str, list[str]], share: float) -> Sequence[str]:
    """The first of these that come nearest to a share of the videos; one at least, and not all, where there are two."""
    wanted = share * sum(len(units[name]) for name in names)
    sums, total = [], 0
    for name in names[: max(len(names) - 1, 0)]:
        total += len(units[name])
        sums.append(abs(total - wanted))
    return names[: 1 + sums.index(min(sums))] if sums else []


def _fold(word: str, strata: Sequence[Sequence[str]], units: dict[str, list[str]]) -> list[str]:
    """What is in a fold: each unit, the largest first, is put into the one that has the fewest videos by then."""
    match = _FOLD.fullmatch(word)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (2 <= count <= MOST_FOLDS and 1 <= number <= count):
        raise UsageError(f"--fold is {word!r}; expected K/N with K from 1 to N, such as 1/5")
    if len(units) < count:
        raise UsageError(
            f"--fold {word}: there are {len(units)} videos or groups to put into {count} folds; expected one a fold at "
            "least. Ask for fewer folds"
        )
    sizes, chosen = [0] * count, []
    for names in strata:
        of_stratum = [0] * count
        for name in sorted(names, key=lambda name: -len(units[name])):
            fold = min(range(count), key=lambda fold: (of_stratum[fold], sizes[fold]))
            of_stratum[fold] += len(units[name])
            sizes[fold] += len(units[name])
            if fold == number - 1:
                chosen.append(name)
    return chosen


def _bare(path: str) -> str:
    """A path without a video's suffix, in one of the Unicode forms in which systems write names."""
    stem, suffix = os.path.splitext(path)
    return unicodedata.normalize("NFC", stem if suffix.lower() in VIDEO_SUFFIXES else path)


def _listed(root: str, splits: str, paths: Sequence[str]) -> dict[str, str]:
    homes: dict[str, str] = {}
    there = {os.path.normpath(path): path for path in paths}
    # A video may have been converted since the file was written; of several with one name the webm counts, as in lists.
    converted: dict[str, str] = {}
    for path in sorted(there, key=lambda path: (not path.lower().endswith(".webm"), path)):
        converted.setdefault(_bare(path), there[path])
    absent = []
    for line, row in table_with_header(splits, ("path", "split")):
        named = inside(root, row["path"], source=splits, line=line)
        path = there.get(named) or converted.get(_bare(named)) or named
        if path in homes:
            raise AnnotationError(
                f"{quoted(row['path'])} stands in an earlier line too; a video has one line",
                code="duplicate",
                path=splits,
                line=line,
            )
        homes[path] = known_split(row["split"], splits, line)
        if named not in there and _bare(named) not in converted:
            absent.append(path)
    if absent:
        raise AnnotationError(
            f"{len(absent)} of {len(homes)} videos that it names are not in {root}, first {printable(absent[0])}; "
            "paths must be relative to that folder",
            code="missing",
            path=splits,
        )
    return homes


def _of_groups(root: str, val_groups: str, paths: Sequence[str]) -> dict[str, str]:
    pattern, equals, names = val_groups.rpartition("=")
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    if not equals or not wanted:
        raise UsageError(f"--val-groups is {val_groups!r}; expected REGEX=a,b,c, such as '^([a-z]+)_=ann,bob'")
    groups = groups_of(root, pattern, paths, "--val-groups")
    absent = wanted - set(groups.values())
    if absent:
        found = sorted({name for name in groups.values() if name})
        searched = ""
        if not found and paths:
            searched = f" (neither in file names nor in paths, such as {quoted(os.path.relpath(paths[0], root))})"
        raise UsageError(
            f"--val-groups: no file has the group {min(absent)!r}; found: {', '.join(found) or 'none'}{searched}"
        )
    return {path: "val" if group in wanted else "train" for path, group in groups.items()}


def groups_of(root: str, pattern: str, paths: Sequence[str], option: str) -> dict[str, str | None]:
    """The regex's group of each video: in its file name or, where it is in nobody's, in the path below the folder.

    None of a video in whose name it is not found.

    :param option: that gave the regex, for the message.
    :raises UsageError: it is no regular expression, or has no group.
    """
    try:
        regex = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"{option}: {pattern!r} is not a regular expression: {error}; correct it") from None
    if regex.groups < 1:
        raise UsageError(f"{option}: {pattern!r} has no group; put the part that names the group in ( )")
    matches = {path: regex.search(os.path.basename(path)) for path in paths}
    if not any(matches.values()):
        matches = {path: regex.search(os.path.relpath(path, root).replace(os.sep, "/")) for path in paths}
    return {path: match.group(1) if match else None for path, match in matches.items()}
