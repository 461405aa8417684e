"""Files that appear whole or not at all, and hashes of what is in them."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ssan.errors import SsanError, UsageError


@contextmanager
def writing(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open ``path`` for writing ("w" for UTF-8 text, "wb" for bytes).

    Readers see the old content or the new one, never a part.

    Raises ``SsanError`` with code ``no_space`` where the disk is full; the old file is then untouched.
    """
    with (
        replacing(path) as partial,
        open(partial, mode, encoding=None if "b" in mode else "utf-8", newline=None if "b" in mode else "") as handle,
    ):
        yield handle


@contextmanager
def replacing(path: str | Path, *, sync: bool = True) -> Iterator[str]:
    """Give the name of a temporary file beside ``path``; what is written there takes the name ``path`` at the end.

    It is flushed to the disk first, unless ``sync`` is off, for thousands of files that can be made again. If the
    block raises, the temporary file is removed and ``path`` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _named_when_full(path):
            yield str(partial)
            if sync:
                with open(partial, "rb+") as handle:
                    os.fsync(handle.fileno())
            os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def _named_when_full(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise SsanError(
            "the disk is full while writing; what was there before is untouched. Free space and run again",
            code="no_space",
            path=str(path),
        ) from error


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all; NaN and infinity are refused with ``ValueError``."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    with writing(path) as handle:
        handle.write(text + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a missing or malformed one is a ``UsageError`` that names the file and the line."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError("no such file; expected JSON", code="missing", path=str(path)) from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"not UTF-8 text (byte {error.start}); save the file as UTF-8", code="bad_annotation", path=str(path)
        ) from None
    except json.JSONDecodeError as error:
        raise UsageError(
            f"not valid JSON: {error.msg}; copy or export the file again",
            code="bad_annotation",
            path=str(path),
            line=error.lineno,
        ) from None
    except (RecursionError, ValueError) as error:  # nested without end, or a number of thousands of digits
        raise UsageError(
            f"not usable JSON: {error}; copy or export the file again", code="bad_annotation", path=str(path)
        ) from None


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
