"""Videos that annotations name by where they lay on another machine, found by the ends of these paths."""

import os
import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import parse_qs, unquote, urlsplit

from ssan.datasets.tables import fault
from ssan.datasets.tree import VIDEO_SUFFIXES, is_tree, look_for_videos
from ssan.errors import few, named, printable, quoted
from ssan.files import is_text

MOST_PATH_LETTERS = 10_000


def spellings(said: str) -> list[str]:
    """The paths that an address or a path of any system can mean, the likeliest first, with ``/`` between folders.

    >>> spellings("file:///C:/films/a%20b.mp4")
    ['/C:/films/a b.mp4', '/C:/films/a%20b.mp4']
    >>> spellings("/data/local-files/?d=films/a.mp4")
    ['films/a.mp4']
    """
    path = said.replace("\\", "/")
    try:
        parts = urlsplit(path)
        query = parse_qs(parts.query).get("d", []) if "local-files" in parts.path else []
    except ValueError:
        return [path]
    if query:
        return [query[0].replace("\\", "/")]
    if "://" not in path and not path.startswith("file:"):
        return list(dict.fromkeys([path, unquote(path), unquote(parts.path)]))
    return list(dict.fromkeys([unquote(parts.path), parts.path]))


def names_video(said: str) -> bool:
    """Whether a path or an address ends as a video's does."""
    return any(os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES for path in spellings(said[:MOST_PATH_LETTERS]))


class MediaFiles:
    """The videos below a folder, by their names alone, or with some of the folders that they lie in."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._names: dict[str, list[str]] | None = None
        self._stems: dict[str, list[str]] = {}
        self._uploads: dict[str, list[str]] = {}

    def locate(
        self, said: Sequence[str], source: str, line: int | None = None, *, uploaded: bool = False
    ) -> tuple[str, bool]:
        """The path of a video, or where it would be, and whether it is there.

        A video with the same name counts, or one that differs by its suffix, as it may have been converted. Of several,
        the one whose folders are those in the path that is named, from its end on.

        :param said: the paths or addresses that the annotation has for it; the first that is found counts.
        :param uploaded: whether the name may have been changed as Label Studio changes those of uploads: eight
            hexadecimal digits and a dash before it, blanks as ``_``, and other signs left out.
        :raises AnnotationError: several videos fit equally well, or the path is none.
        """
        paths = [path for name in said for path in spellings(name[:MOST_PATH_LETTERS])]
        bases = [os.path.basename(path.rstrip("/")) for path in paths]
        if not paths or any("\0" in base or base in ("", ".", "..") or not is_text(base) for base in bases):
            raise fault(f"{quoted(said[0]) if said else 'nothing'} names no video; expected its path", source, line)
        for path, base in zip(paths, bases, strict=True):
            for found in self._found(base, uploaded):
                if found:
                    return self._nearest(found, path, source, line), True
        return os.path.join(self.folder, _as_it_was(bases[0]) if uploaded else bases[0]), False

    def _found(self, base: str, uploaded: bool) -> list[list[str]]:
        """Videos that fit a name, in the order in which they count."""
        if self._names is None:
            self._look()
        assert self._names is not None
        name = _form(base)
        stem, suffix = os.path.splitext(name)
        stem = stem if suffix.lower() in VIDEO_SUFFIXES else name
        found = [self._names.get(name, []), self._stems.get(stem, [])]
        if uploaded:
            was = _as_it_was(base)
            found += self._found(was, False) if was != base else []
            found.append(self._uploads.get(_as_uploaded(os.path.splitext(was)[0]), []))
        return found

    def _look(self) -> None:
        self._names = {}
        for path in look_for_videos(self.folder).videos if is_tree(self.folder) else ():
            if path == self.folder:
                continue
            name = _form(os.path.basename(path))
            stem, suffix = os.path.splitext(name)
            stem = stem if suffix.lower() in VIDEO_SUFFIXES else name
            self._names.setdefault(name, []).append(path)
            self._stems.setdefault(stem, []).append(path)
            self._uploads.setdefault(_as_uploaded(stem), []).append(path)

    def _nearest(self, found: Sequence[str], path: str, source: str, line: int | None) -> str:
        folders = [_form(name) for name in path.split("/")[:-1] if name]

        def in_common(candidate: str) -> int:
            own = [_form(name) for name in os.path.dirname(os.path.relpath(candidate, self.folder)).split(os.sep)]
            pairs = zip(reversed(own), reversed(folders), strict=False)
            return next((num for num, (one, other) in enumerate(pairs) if one != other), min(len(own), len(folders)))

        best = max(map(in_common, found))
        nearest = [candidate for candidate in found if in_common(candidate) == best]
        homes = sorted({os.path.dirname(candidate) for candidate in nearest})
        if len(homes) > 1:
            raise fault(
                f"{quoted(path)} can be any of {len(nearest)} videos below {printable(self.folder)}: "
                f"{few(sorted(nearest), show=named)}; name the folder of the right ones with --videos",
                source,
                line,
            )
        webm = [candidate for candidate in nearest if candidate.lower().endswith(".webm")]
        return min(webm or nearest)


_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _as_it_was(base: str) -> str:
    """A name without what Label Studio puts before that of an upload."""
    return _UPLOAD.sub("", base, count=1) if _UPLOAD.match(base) else base


def _as_uploaded(stem: str) -> str:
    """A name as a web server keeps it."""
    return re.sub(r"[^-\w.]", "", _form(stem).strip().replace(" ", "_"))
