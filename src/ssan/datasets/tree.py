"""Which videos lie below a folder: all of them, or those that annotations name.

A clip file (``ssan.video.clip_file``) counts as a folder with the videos and folders that it has inside.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ssan.datasets.samples import inside, is_plain, quoted
from ssan.errors import AnnotationError, UsageError
from ssan.files import is_text
from ssan.video.clip_file import ClipFile, open_clip_file, split_path

VIDEO_SUFFIXES = frozenset({
    ".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts",
    ".vob", ".webm", ".wmv",
})  # fmt: skip
IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png"])


def is_tree(path: str | Path) -> bool:
    """Whether videos can lie below this path: whether it is a folder, or a clip file, or a folder in one."""
    if os.path.isdir(path):
        return True
    packed = _in_clip_file(path)
    return packed is not None and packed[0].is_folder(packed[1])


def is_frame_folder(path: str | Path) -> bool:
    """Whether a folder directly holds pictures, and so is one video."""
    with os.scandir(path) as entries:
        return any(map(_is_picture, entries))


def subfolders(root: str | Path) -> list[str]:
    """The names of the folders directly below one, sorted; hidden ones are left out."""
    packed = _in_clip_file(root)
    if packed:
        clips, folder = packed
        return clips.subfolders(folder)
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if _is_folder(entry) and not entry.name.startswith("."))
    except OSError as error:
        raise UsageError(
            f"the folder cannot be looked into ({error.strerror}); look at its permissions", path=str(root)
        ) from None


def find_videos(root: str | Path) -> list[str]:
    """Every video below a folder, sorted: files by suffix, and folders that directly hold pictures.

    A folder that cannot be looked into stands for itself, so that whoever reads it is told why. A folder that links
    lead to again is walked once; hidden ones are left out.
    """
    packed = _in_clip_file(root)
    if packed:
        clips, within = packed
        return [os.path.join(clips.path, name) for name in clips.below(within)]
    found: list[str] = []
    walked: set[tuple[int, int]] = set()
    pending = [(str(root), True)]
    while pending:
        path, folder = pending.pop()
        if not folder:
            found.append(path)
            continue
        try:
            status = os.stat(path)
            with os.scandir(path) as entries:
                children = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            found.append(path)
            continue
        place = (status.st_dev, status.st_ino)
        if place in walked:
            continue
        walked.add(place)
        if any(map(_is_picture, children)):
            found.append(path)
            continue
        # A folder named x.mp4 is no video file, but what lies in it may be.
        visible = [child for child in reversed(children) if not child.name.startswith(".")]
        pending += [(child.path, _is_folder(child)) for child in visible if _is_folder(child) or _is_video(child)]
    return found


def identity(path: str, root: str, *, suffix: bool = False) -> str:
    """The id of a video where its format gives none: its path below the root, without a file's suffix but on demand."""
    beginning = os.path.join(root, "")
    plain = path.startswith(beginning) and is_plain(path[len(beginning) :])  # as those of a listing are
    relative = path[len(beginning) :] if plain else os.path.relpath(path, root)
    whole = suffix or split_path(root) is not None or os.path.isdir(path) or split_path(path) is not None
    name = (relative if whole else str(Path(relative).with_suffix(""))).replace(os.sep, "/")
    # An id is text wherever it goes; bytes that are none are written as \xff.
    return name if is_text(name) else os.fsencode(name).decode("utf-8", "backslashreplace")


def _in_clip_file(path: str | Path) -> tuple[ClipFile, str] | None:
    """The clip file that a path leads to or into, and the name in it; None where it leads to none."""
    found = split_path(path)
    return (open_clip_file(found[0]), found[1]) if found else None


class Finder:
    """The videos below a folder by the names that annotations use, from one listing of each folder.

    Asking the system for 200,000 files one by one is slow. A video may have been converted since the annotations were
    written: where there is no ``a/b.avi``, ``a/b.mp4`` is the video, or the folder of frames ``a/b``.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self._root = os.path.normpath(self.root)
        self._beginning = _beginning(self.root)
        self._listings: dict[str, tuple[str, frozenset[str], dict[str, str]]] = {}

    def find(self, name: str) -> str | None:
        """The path of the video ``name``, which is relative to the root, with its suffix or without; None if missing.

        Without one, or where that very file is not there, of several the webm file counts, else the first by name.
        """
        folder, _, last = name.rpartition(os.sep)
        beginning, present, by_stem = self._listing(folder)
        stem, suffix = os.path.splitext(last) if "." in last else (last, "")
        if suffix.lower() in VIDEO_SUFFIXES:
            found = last if last in present else by_stem.get(stem)
        else:
            found = by_stem.get(last)
            if found is None and suffix and os.path.exists(os.path.join(self.root, name)):
                found = last  # of a kind that we would not look for
        return None if found is None else beginning + found

    def locate(self, name: str, *, source: str, line: int | None = None) -> tuple[str, bool]:
        """The path where the video that a list names is, or would be, and whether it is there; errors as ``place``."""
        path, relative = self.place(name, source=source, line=line)
        there = self.find(relative)
        return there or path, there is not None

    def place(self, name: str, *, source: str, line: int | None = None) -> tuple[str, str]:
        """The path that a list names, joined to the root, and the same relative to the root, both without detours.

        :param source: the list, and the line of it, for the error.
        :raises AnnotationError: the name leads out of the root (code ``path_escape``), or is the root.
        """
        if is_plain(name):  # the way that 200,000 names of a list take
            return self._beginning + name, name
        path = inside(self.root, name, source=source, line=line)
        if path == self._root:
            raise AnnotationError(
                f"the path is {quoted(name)}; expected a file below {self.root}",
                code="bad_annotation",
                path=source,
                line=line,
            )
        begins = path.startswith(self._beginning) and not name.startswith(os.sep)
        return path, path[len(self._beginning) :] if begins else os.path.relpath(path, self.root)

    def _listing(self, folder: str) -> tuple[str, frozenset[str], dict[str, str]]:
        """What stands before the names in a folder below the root, they, and for each stem the name that counts."""
        if folder not in self._listings:
            path = os.path.join(self.root, folder)
            names = sorted(_named(path))
            by_stem: dict[str, str] = {}
            for name, stem in [pair for pair in names if _is_webm(pair[0])] + names:
                by_stem.setdefault(stem, name)
            self._listings[folder] = _beginning(path), frozenset(name for name, _ in names), by_stem
        return self._listings[folder]


def _beginning(folder: str) -> str:
    """What stands before the name of a file in a folder, so that both together are a path without detours."""
    normal = os.path.normpath(folder)
    return "" if normal == "." else os.path.join(normal, "")


def _named(folder: str) -> Iterator[tuple[str, str]]:
    """The videos directly in a folder, folders among them: each with its name, and that without suffix."""
    packed = _in_clip_file(folder)
    if packed:
        clips, within = packed
        for name in clips.videos(within):
            yield name, name
        return
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)
                if entry.is_symlink() and not os.path.exists(entry.path):
                    continue
                if suffix.lower() in VIDEO_SUFFIXES:
                    yield entry.name, stem
                elif _is_folder(entry):
                    yield entry.name, entry.name
    except OSError:  # what is not there holds nothing
        return


def _is_webm(name: str) -> bool:
    return name.lower().endswith(".webm")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link that leads in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_picture(entry: os.DirEntry[str]) -> bool:
    # A hidden picture is some program's thumbnail of the folder, not a frame.
    suffix = Path(entry.name).suffix.lower()
    return suffix in IMAGE_SUFFIXES and not entry.name.startswith(".") and not _is_folder(entry)


def _is_video(entry: os.DirEntry[str]) -> bool:
    return Path(entry.name).suffix.lower() in VIDEO_SUFFIXES and not entry.name.startswith(".")


def home_of(root: str, videos: str | None, names: Iterable[str]) -> str:
    """The folder that videos lie in: ``videos`` where that is given, or the first of these below the root, or that."""
    return videos or next((path for name in names if is_tree(path := os.path.join(root, name))), root)


def names_in(folder: str) -> list[str]:
    """The names of all there is directly in a folder, sorted; none where it is no folder or cannot be looked into."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
