"""Videos below a folder: all of them, or those that annotations name.

A clip file (``ssan.video.clip_file``) counts as a folder with the videos and folders that it has inside.
"""

import contextlib
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssan.datasets.samples import inside, is_plain
from ssan.errors import AnnotationError, UsageError, printable, quoted
from ssan.files import LOCK, is_text
from ssan.video.clip_file import ClipFile, open_clip_file, split_path

VIDEO_SUFFIXES = frozenset({
    ".264", ".265", ".3g2", ".3gp", ".amv", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".h265",
    ".hevc", ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpe",
    ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv",
    ".xvid", ".y4m",
})  # fmt: skip
IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png"])
SYSTEM_FOLDERS = frozenset([
    "__macosx", "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "system volume information",
    "lost+found",
])  # fmt: skip
"""What archives and systems leave beside videos, in lower case: no class, and no video of anybody's."""

# What often lies beside videos and is none: nothing needs to be said of it.
_COMPANIONS = frozenset({
    ".aac", ".ass", ".csv", ".db", ".flac", ".htm", ".html", ".idx", ".ini", ".json", ".jsonl", ".log", ".m4a", ".md",
    ".mp3", ".nfo", ".npy", ".npz", ".ogg", ".opus", ".pdf", ".srt", ".sub", ".tsv", ".txt", ".vtt", ".wav", ".xml",
    ".yaml", ".yml",
})  # fmt: skip
_TEXTS = frozenset(["readme", "license", "licence", "copying", "makefile"])


@dataclass
class Found:
    """What lies below a folder.

    :param videos: in sorted order.
    :param mixed: folders with videos and pictures, of which the videos are taken, and how many pictures are left out.
    :param covered: folders of pictures taken for one video each, and how many folders of videos in them are left out.
    :param passed_over: files that are no videos by their names, nor what usually lies beside videos.
    """

    videos: list[str] = field(default_factory=list)
    mixed: dict[str, int] = field(default_factory=dict)
    covered: dict[str, int] = field(default_factory=dict)
    passed_over: list[str] = field(default_factory=list)

    def add(self, other: "Found") -> None:
        self.videos += other.videos
        self.mixed |= other.mixed
        self.covered |= other.covered
        self.passed_over += other.passed_over

    def notes(self) -> list[str]:
        """What there is to be said of it, in a line each."""
        notes = []
        if self.mixed:
            notes.append(
                f"{_count(len(self.mixed), 'folder')} with pictures beside videos, such as "
                f"{printable(min(self.mixed))}: the videos are read, and "
                f"{_count(sum(self.mixed.values()), 'picture')} left out"
            )
        if self.covered:
            notes.append(
                f"{_count(len(self.covered), 'folder')} with pictures beside folders of videos, such as "
                f"{printable(min(self.covered))}: the pictures are read as one video, and "
                f"{_count(sum(self.covered.values()), 'folder')} left out"
            )
        if self.passed_over:
            first = ", ".join(map(printable, self.passed_over[:NUM_NAMED]))
            more = f" and {len(self.passed_over) - NUM_NAMED} more" if len(self.passed_over) > NUM_NAMED else ""
            notes.append(
                f"{_count(len(self.passed_over), 'file')} passed over, as no name of a video ends so: {first}{more}; a "
                "name that ends in .mp4, or whatever it is, has it read"
            )
        return notes


NUM_NAMED = 5
"""How many of the files that are passed over are named."""


def is_tree(path: str | Path) -> bool:
    """Whether videos can lie below this path: whether it is a folder, or a clip file, or a folder in one."""
    if os.path.isdir(path):
        return True
    packed = _in_clip_file(path)
    return packed is not None and packed[0].is_folder(packed[1])


def is_frame_folder(path: str | Path) -> bool:
    """Whether a folder directly holds pictures and no videos, and so is one video."""
    with os.scandir(path) as entries:
        return _are_frames(list(entries))


def subfolders(root: str | Path) -> list[str]:
    """The names of the folders directly below one, sorted.

    Those that are hidden or a system's are left out, and those of runs: a run may be kept beside the data it learns.
    """
    packed = _in_clip_file(root)
    if packed:
        clips, folder = packed
        return clips.subfolders(folder)
    try:
        with os.scandir(root) as entries:
            folders = [entry for entry in entries if _is_visible(entry) and _is_folder(entry)]
            return sorted(entry.name for entry in folders if not _is_run(entry.path))
    except OSError as error:
        raise UsageError(
            f"the folder cannot be looked into ({error.strerror}); look at its permissions", path=str(root)
        ) from None


def find_videos(root: str | Path) -> list[str]:
    """Every video below a folder, sorted, as ``look_for_videos`` finds them."""
    return look_for_videos(root).videos


def look_for_videos(root: str | Path) -> Found:
    """Every video below a folder: files by suffix, and folders that directly hold pictures; and what was left out.

    A folder that holds videos too is walked, and not taken for a video: a picture that strays into a class must not
    hide its videos. Of a folder with pictures and with folders of videos, those count of which there are more.

    A folder that cannot be looked into stands for itself, so that whoever reads it is told why. A folder that links
    lead to again, or in which ``root`` itself lies, is not walked again; hidden ones and a system's are left out.
    """
    packed = _in_clip_file(root)
    if packed:
        clips, within = packed
        return Found([os.path.join(clips.path, name) for name in clips.below(within)])
    found = Found()
    walked = _above(root)
    pending = [(str(root), True)]
    while pending:
        path, folder = pending.pop()
        if not folder:
            found.videos.append(path)
            continue
        try:
            status = os.stat(path)
            with os.scandir(path) as entries:
                children = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            found.videos.append(path)
            continue
        inode = (status.st_dev, status.st_ino)
        if inode in walked:
            continue
        walked.add(inode)
        visible = list(filter(_is_visible, children))
        pictures = sum(map(_is_picture, visible))
        if _are_frames(visible):
            found.videos.append(path)
            if below := _num_with_videos(visible):
                found.covered[path] = below
            continue
        if pictures:
            found.mixed[path] = pictures
        for child in reversed(visible):
            # A folder named x.mp4 is no video file, but what lies in it may be.
            if (below := _is_folder(child)) or _is_video(child):
                pending.append((child.path, below))
        found.passed_over += [child.path for child in visible if _is_unknown(child)]
    return found


def loose_videos(folder: str | Path) -> list[str]:
    """The video files that lie directly in a folder, sorted."""
    packed = _in_clip_file(folder)
    if packed:
        return sorted(os.path.join(folder, name) for name in packed[0].videos(packed[1]))
    try:
        with os.scandir(folder) as entries:
            return sorted(e.path for e in entries if _is_visible(e) and _is_video(e) and not _is_folder(e))
    except OSError:
        return []


def _above(root: str | Path) -> set[tuple[int, int]]:
    """The folders that a folder lies in, by device and number: a link to one of them leads to the folder again."""
    inodes = set()
    for path in {os.path.abspath(root), os.path.realpath(root)}:
        for parent in Path(path).parents:
            with contextlib.suppress(OSError):
                status = os.stat(parent)
                inodes.add((status.st_dev, status.st_ino))
    return inodes


def _are_frames(children: Sequence[os.DirEntry[str]]) -> bool:
    """Whether what a folder directly holds is the frames of one video."""
    visible = list(filter(_is_visible, children))
    pictures = sum(map(_is_picture, visible))
    if not pictures or any(_is_video(child) and not _is_folder(child) for child in visible):
        return False
    return pictures > _num_with_videos(visible)


def _num_with_videos(children: Iterable[os.DirEntry[str]]) -> int:
    """How many of these are folders with a picture or a video file somewhere below."""
    return sum(_has_video_below(child.path) for child in children if _is_folder(child))


def _has_video_below(folder: str) -> bool:
    seen, pending = set(), [folder]
    while pending:
        path = pending.pop()
        try:
            status = os.stat(path)
            with os.scandir(path) as entries:
                visible = list(filter(_is_visible, entries))
        except OSError:
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        if any(_is_picture(child) or (_is_video(child) and not _is_folder(child)) for child in visible):
            return True
        pending += [child.path for child in visible if _is_folder(child)]
    return False


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
        self._forms: dict[str, dict[str, str]] = {}

    def find(self, name: str) -> str | None:
        """The path of the video ``name``, which is relative to the root, with its suffix or without; None if missing.

        Without one, or where that very file is not there, of several the webm file counts, else the first by name.
        """
        found = self._find(name)
        if found is None and not name.isascii():
            there = self._as_written_there(name)
            found = None if there is None else self._find(there)
        return found

    def _as_written_there(self, name: str) -> str | None:
        """The name of a video with its letters in the Unicode form that the file's or the folder's name has.

        Systems differ in it: a list that was written on one may name files that were copied from another.
        """
        written, pieces = "", name.split(os.sep)
        for depth, piece in enumerate(pieces):
            stem, suffix = os.path.splitext(piece)
            if written not in self._forms:
                _, present, by_stem = self._listing(written)
                names = (*by_stem, *sorted(present, reverse=True))  # of two with one form the first by name counts
                self._forms[written] = {unicodedata.normalize("NFC", one): one for one in names}
            forms = self._forms[written]
            found = forms.get(unicodedata.normalize("NFC", piece))
            if found is None and depth == len(pieces) - 1 and suffix.lower() in VIDEO_SUFFIXES:
                found = forms.get(unicodedata.normalize("NFC", stem))
            if found is None:
                return None
            written = os.path.join(written, found)
        return written

    def _find(self, name: str) -> str | None:
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
        """The path of a video that a list names, or would be at, and whether it is there; errors as ``resolve``."""
        path, relative = self.resolve(name, source=source, line=line)
        there = self.find(relative)
        return there or path, there is not None

    def resolve(self, name: str, *, source: str, line: int | None = None) -> tuple[str, str]:
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


def _is_visible(entry: os.DirEntry[str]) -> bool:
    # A hidden picture is some program's thumbnail of the folder, not a frame.
    return not entry.name.startswith(".") and entry.name.casefold() not in SYSTEM_FOLDERS


def _is_run(folder: str) -> bool:
    """Whether a folder is one that training writes, or has begun to."""
    return any(os.path.lexists(os.path.join(folder, name)) for name in (LOCK, "journal.jsonl"))


def _is_picture(entry: os.DirEntry[str]) -> bool:
    return os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and not _is_folder(entry)


def _is_video(entry: os.DirEntry[str]) -> bool:
    return os.path.splitext(entry.name)[1].lower() in VIDEO_SUFFIXES


def _is_unknown(entry: os.DirEntry[str]) -> bool:
    """Whether a file is neither a video nor a picture nor what usually lies beside them, by its name."""
    stem, suffix = os.path.splitext(entry.name.lower())
    known = suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES or suffix in _COMPANIONS
    return not known and stem not in _TEXTS and not _is_folder(entry)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def home_of(root: str, videos: str | None, names: Iterable[str]) -> str:
    """The folder that videos lie in: ``videos`` where that is given, or the first of these below the root, or that."""
    return videos or next((path for name in names if is_tree(path := os.path.join(root, name))), root)


def names_in(folder: str) -> list[str]:
    """The names of all there is directly in a folder, sorted; none where it is no folder or cannot be looked into."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
