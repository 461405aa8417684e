"""Cache of audits: what they have found, remembered from one to the next in a small SQLite file."""

import hashlib
import json
import os
import sqlite3
import stat
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from ssan.files import cache_folder
from ssan.video.clip_file import split_path

CHECK = 1
"""Changes when a check would find something else in the same file than before."""

_WAIT_SECONDS = 20.0
_TABLES = """
CREATE TABLE IF NOT EXISTS findings (
    path BLOB PRIMARY KEY, stamp TEXT NOT NULL, version TEXT NOT NULL, whole INTEGER NOT NULL, finding TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hashes (path BLOB PRIMARY KEY, stamp TEXT NOT NULL, sha256 TEXT NOT NULL) WITHOUT ROWID;
"""

Answer = TypeVar("Answer")


def usual_place() -> Path | None:
    """``checks.sqlite`` in the user's folder for what can be made again; None where there is no such folder."""
    folder = cache_folder()
    return None if folder is None else folder / "checks.sqlite"


class Memory:
    """Findings by the absolute path of the video and its stamp, which changes when the video does.

    Each one is in the file when ``keep`` returns: a process that is killed loses none. A file that cannot be written,
    or is none of ours, is said once on standard error (``problem``), and then nothing is remembered: a check does not
    fail for that. Several processes may use one file at a time.
    """

    def __init__(self, path: str | Path | None = None, *, quiet: bool = False) -> None:
        self.path = Path(path) if path is not None else usual_place()
        self.problem: str | None = None
        self._quiet = quiet
        self._version = f"{CHECK} av {version('av')}"
        self._file: sqlite3.Connection | None = None
        if self.path is not None:
            path = self.path
            self._file = self._trying(lambda: _opened(path), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def finding(self, path: str, stamp: str, *, whole: bool) -> Any:
        """What was kept of a video, if it has not changed since; what a look at all of it found counts for less too."""
        rows = self._run(
            "SELECT finding FROM findings WHERE path = ? AND stamp = ? AND version = ? AND whole >= ?",
            (_key(path), stamp, self._version, whole),
        )
        return json.loads(rows[0][0]) if rows else None

    def keep(self, path: str, stamp: str, finding: Any, *, whole: bool) -> None:
        self._run(
            "INSERT OR REPLACE INTO findings VALUES (?, ?, ?, ?, ?)",
            (_key(path), stamp, self._version, whole, json.dumps(finding)),
        )

    def hash(self, path: str, stamp: str) -> str | None:
        """The SHA-256 of a file's bytes, if it is known and the file has not changed since."""
        rows = self._run("SELECT sha256 FROM hashes WHERE path = ? AND stamp = ?", (_key(path), stamp))
        return str(rows[0][0]) if rows else None

    def keep_hash(self, path: str, stamp: str, sha256: str) -> None:
        self._run("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?)", (_key(path), stamp, sha256))

    def _run(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        file = self._file
        return [] if file is None else self._trying(lambda: file.execute(statement, values).fetchall(), [])

    def _trying(self, step: Callable[[], Answer], otherwise: Answer) -> Answer:
        try:
            return step()
        except (sqlite3.Error, OSError) as error:
            self.problem = str(error)
            if self._file is not None:
                self._file.close()
                self._file = None
            if not self._quiet:
                print(
                    f"ssan: {self.path}: what is found cannot be remembered here ({error}); name another file with "
                    "--memory, or another folder with XDG_CACHE_HOME",
                    file=sys.stderr,
                )
            return otherwise


def _opened(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without a transaction around it each statement is committed as it is run.
    file = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)
    try:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        file.executescript(_TABLES)
        for table, columns in (("findings", 5), ("hashes", 3)):
            found = len(file.execute(f"PRAGMA table_info({table})").fetchall())
            if found != columns:
                raise sqlite3.DatabaseError(f"its table {table} has {found} columns, expected {columns}")
    except BaseException:
        file.close()
        raise
    return file


def _key(path: str) -> bytes:
    return os.fsencode(os.path.abspath(path))  # the names of files need not be UTF-8


def stamp(path: str) -> str | None:
    """What changes when a video changes: its length and times, or those of everything in its folder of frames.

    The time of the last change of any kind is among them: a file that was replaced by another one of the same length
    and date of writing, or given other permissions, is looked at again. Of a video in a clip file it is that file's.
    None where there is no file or folder.
    """
    packed = split_path(path)
    try:
        if packed is not None:
            return f"clips {_marks(os.stat(packed[0]))}"
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode):
            return _marks(status)
        if not stat.S_ISDIR(status.st_mode):
            return None
        with os.scandir(path) as entries:
            marks = sorted((os.fsencode(entry.name), _marks(entry.stat())) for entry in entries)
    except (OSError, ValueError):
        return None
    return "folder " + hashlib.sha256(repr(marks).encode()).hexdigest()


def _marks(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
