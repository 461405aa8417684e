"""Files that appear whole or not at all, and hashes of what is in them."""

import errno
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ssan.errors import SsanError, UsageError

# The annotations of the largest public data sets have some tens of millions of bytes.
MOST_TEXT_BYTES = 500_000_000


@contextmanager
def writing(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open ``path`` for writing ("w" for UTF-8 text, "wb" for bytes).

    Readers see the old content or the new one, never a part. The name of a file that is not UTF-8 comes out in text
    as the bytes that it has.

    Raises ``SsanError`` with code ``no_space`` where the disk is full; the old file is then untouched.
    """
    with (
        replacing(path) as partial,
        _open(partial, mode) as handle,
    ):
        yield handle


def _open(path: str, mode: str) -> IO[Any]:
    if "b" in mode:
        return open(path, mode)
    return open(path, mode, encoding="utf-8", errors="surrogateescape", newline="")


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
        with naming_a_full_disk(path):
            yield str(partial)
            if sync:
                with open(partial, "rb+") as handle:
                    os.fsync(handle.fileno())
            os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[str]:
    """As ``replacing``, for a folder, which the block makes; one that is there already is then removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (path.with_name(f".{path.name}.{os.getpid()}.{what}.part") for what in ("new", "old"))
    try:
        with naming_a_full_disk(path):
            yield str(partial)
            if path.exists():
                os.replace(path, old)
            os.replace(partial, path)
    finally:
        for folder in (partial, old):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def naming_a_full_disk(path: str | Path) -> Iterator[None]:
    """Turn an error for want of space (a full disk, a quota, a limit on file sizes) into one with code ``no_space``."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise SsanError(
            f"the disk is full while writing ({error.strerror}); what was there before is untouched. Free space and "
            "run again",
            code="no_space",
            path=str(path),
        ) from error


def remove_partials(folder: str | Path, name: str = "") -> None:
    """Remove the temporary files and folders that writers killed in the middle have left in ``folder``.

    :param name: how the names of the files begin that were to be written.
    """
    for partial in Path(folder).glob(f".{glob.escape(name)}*.part"):
        if partial.is_dir() and not partial.is_symlink():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all; NaN and infinity are refused with ``ValueError``."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    if not is_text(text):
        text = json.dumps(value, indent=1, allow_nan=False)  # the names of files need not be UTF-8
    with writing(path) as handle:
        handle.write(text + "\n")


def read_text(
    path: str | Path,
    expected: str,
    *,
    most_bytes: int = MOST_TEXT_BYTES,
    error: type[SsanError] = UsageError,
    encoding: str = "utf-8-sig",
) -> str:
    """The text of a file, UTF-8 unless told otherwise, without its byte order mark and with its line ends as they are.

    A pipe or a device is refused, which could last for ever, and so is a file of more than ``most_bytes``.

    :param expected: what should be there, for the message.
    :param error: raised for what is in the file; for a file that is not there it is ``UsageError``.
    """
    where = str(path)
    if not os.path.isfile(where):
        what = "not a file" if os.path.exists(where) else "no such file"
        raise UsageError(f"{what}; expected {expected}", code="missing", path=where)
    try:
        with open(where, "rb") as handle:
            content = handle.read(most_bytes + 1)
    except OSError as problem:
        raise UsageError(f"it cannot be read ({problem.strerror}); look at its permissions", path=where) from None
    if len(content) > most_bytes:
        raise error(f"larger than {most_bytes:,} bytes; expected {expected}", code="bad_annotation", path=where)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as problem:
        name = "UTF-8" if encoding == "utf-8-sig" else encoding
        raise error(
            f"not {name} text (byte {problem.start}); save the file as UTF-8", code="bad_annotation", path=where
        ) from None


def read_json(path: str | Path, *, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Read a JSON file; a missing or malformed one is a ``UsageError`` that names the file and the line.

    :param pairs: makes each object of its keys and values, in their order; a dict, where the last of equal keys
        counts, by default.
    """
    text = read_text(path, "JSON")
    try:
        return json.loads(text, object_pairs_hook=pairs)
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


def is_text(word: str) -> bool:
    """Whether a word can be written as UTF-8; what stands for half a letter or for other bytes cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in word)


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
