"""Files that appear whole or not at all and that one process at a time writes; their text, JSON, lines and hashes."""

import errno
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ssan.errors import SsanError, UsageError

# The annotations of the largest public data sets have some tens of millions of bytes.
MOST_TEXT_BYTES = 500_000_000
# Of a name; every file system takes 255 of them, and what goes before and behind a temporary name takes some.
MOST_NAME_BYTES = 150
# What is not everywhere; a link at the end of a path is not followed, and a pipe is not waited for.
NO_LINK, NO_WAIT = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
LOCK = ".lock"
# Between two looks at a lock that somebody else has.
WAIT_SECONDS = 0.1


def cache_folder() -> Path | None:
    """The folder for what can be made or fetched again; None where the user has no home.

    That is ``$SSAN_CACHE``, or else ``ssan`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.
    """
    if given := os.environ.get("SSAN_CACHE", ""):
        return Path(given)
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "ssan"
    except RuntimeError:  # no home
        return None


@contextmanager
def writing(path: str | Path, mode: str = "w", *, new: bool = False) -> Iterator[IO[Any]]:
    """Open ``path`` for writing ("w" for UTF-8 text, "wb" for bytes); with ``new`` unless a file is there.

    Readers see the old content or the new one, never a part. The name of a file that is not UTF-8 comes out in text
    as the bytes that it has.

    Raises ``SsanError`` with code ``no_space`` where the disk is full; the old file is then untouched.
    """
    with (
        replacing(path, new=new) as partial,
        _open(partial, mode) as handle,
    ):
        yield handle


def _open(path: str, mode: str) -> IO[Any]:
    if "b" in mode:
        return open(path, mode)
    return open(path, mode, encoding="utf-8", errors="surrogateescape", newline="")


@contextmanager
def replacing(path: str | Path, *, sync: bool = True, new: bool = False) -> Iterator[str]:
    """Give the name of a temporary file beside ``path``; what is written there takes the name ``path`` at the end.

    With ``new`` a file that is there by then stays, and ``FileExistsError`` is raised.

    It is flushed to the disk first, unless ``sync`` is off, for thousands of files that can be made again. If the
    block raises, the temporary file is removed and ``path`` stays as it was. Its name cannot be foreseen and is new,
    so that nobody can have laid a link there that leads to somebody's file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(_temporary(path.name))
    try:
        with naming_a_full_disk(path):
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK, 0o666))
            yield str(partial)
            if sync:
                with open(partial, "rb+") as handle:
                    os.fsync(handle.fileno())
            if new:
                _name_new(partial, path)
            else:
                os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _name_new(partial: Path, path: Path) -> None:
    """Give a file its name unless one has it, which between two programs only a link can tell."""
    try:
        os.link(partial, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))  # a file system without links
        os.replace(partial, path)
    else:
        partial.unlink()


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[str]:
    """As ``replacing``, for a folder, which the block makes; one that is there already is then removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, old = path.with_name(_temporary(path.name)), path.with_name(_temporary(path.name))
    try:
        with naming_a_full_disk(path):
            yield str(partial)
            if path.exists():
                os.replace(path, old)
            os.replace(partial, path)
    finally:
        for folder in (partial, old):
            shutil.rmtree(folder, ignore_errors=True)


def _temporary(name: str) -> str:
    """A hidden name that begins as ``name`` does, and that nobody can foresee."""
    return f".{_beginning(name)}.{secrets.token_hex(8)}.part"


def _beginning(name: str) -> str:
    """As much of a name as leaves room for more behind it."""
    if len(os.fsencode(name)) <= MOST_NAME_BYTES:
        return name
    return os.fsencode(name)[: MOST_NAME_BYTES // 2].decode("utf-8", "ignore")


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

    Whoever calls it holds the lock of what is written there (``one_writer``): others' are none of its business.

    :param name: how the names of the files begin that were to be written.
    """
    for partial in Path(folder).glob(f".{glob.escape(_beginning(name))}*.part"):
        if partial.is_dir() and not partial.is_symlink():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


_locks: set[int] = set()
"""The descriptors of the locks that this process holds."""
_told_of_no_locks = False


def _let_go() -> None:
    """A process made by fork has its parent's locks, and would hold them when the parent has been killed."""
    for descriptor in _locks:
        os.close(descriptor)
    _locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def one_writer(path: str | Path, *, folder: bool = False, wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """See that no other process writes ``path`` until the block ends; whoever else comes is refused, or waits.

    A hidden file beside it, or in it, is locked meanwhile, and says by whom. The lock ends with the process however
    that ends; a file that a killed one has left means nothing. Where a file system has no locks, that is said once.

    :param folder: ``path`` is a folder, which is made if there is none, and is gone again if nothing was put there.
    :param wait: called once, with who writes there, before waiting for the other; without it nobody waits.
    :raises UsageError: another process, or another thread of this one, is writing there.
    """
    path = Path(path)
    directory = path if folder else path.parent
    if folder and path.exists() and not path.is_dir():
        raise UsageError("a file lies where the folder is to be; name another folder", path=str(path))
    lock = directory / (LOCK if folder else _lock_name(path.name))
    new = [parent for parent in (directory, *directory.parents) if not parent.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = _locked(lock, path, wait)
        _locks.add(descriptor)
        try:
            yield
        finally:
            if descriptor in _locks:  # else it is the parent's
                _locks.remove(descriptor)
                # Removed while it is locked, so that nobody locks a file that is about to vanish.
                with suppress(OSError):
                    lock.unlink()
                os.close(descriptor)
    finally:
        for parent in new:
            with suppress(OSError):  # something was put there
                parent.rmdir()


def _lock_name(name: str) -> str:
    short = _beginning(name)
    return f".{short}{'' if short == name else '.' + hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}{LOCK}"


def is_lock(name: str) -> bool:
    """Whether a file of this name is a lock, perhaps one that a killed process has left."""
    return name.startswith(".") and name.endswith(LOCK)


def _locked(lock: Path, path: Path, wait: Callable[[str], None] | None = None) -> int:
    """The descriptor of the file ``lock``, locked for whoever writes ``path``."""
    told = False
    while True:
        descriptor = _open_lock(lock)
        try:
            if sys.platform == "win32" or _lock(descriptor, path):
                # Whoever had it may have removed it between our opening and our locking it.
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), os.lstat(lock)):
                        break
            elif wait is None:
                raise UsageError(
                    f"it is being written by {_holder(descriptor)}; wait until that has ended, or name another path",
                    path=str(path),
                )
            else:
                if not told:
                    wait(_holder(descriptor))
                told = True
                time.sleep(WAIT_SECONDS)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    who = f"{os.getpid()} {time.strftime('%Y-%m-%d %H:%M:%S')} {socket.gethostname()}"
    with suppress(OSError):  # of a full disk they are told who need room
        os.ftruncate(descriptor, 0)
        os.write(descriptor, who.encode())
    return descriptor


def _open_lock(lock: Path) -> int:
    flags = os.O_CREAT | NO_LINK | NO_WAIT
    try:
        return os.open(lock, os.O_RDWR | flags, 0o666)
    except PermissionError:  # left by a killed process of another user, it can be locked all the same
        return os.open(lock, os.O_RDONLY | NO_LINK | NO_WAIT)


def _lock(descriptor: int, path: Path) -> bool:
    """Lock an open file; whether nobody else has. True too where the file system has no locks."""
    global _told_of_no_locks
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        if not _told_of_no_locks:
            print(
                f"ssan: {path}: the file system has no locks ({error.strerror}); see that nothing else writes it",
                file=sys.stderr,
            )
        _told_of_no_locks = True
    return True


def _holder(descriptor: int) -> str:
    """Who holds a lock, as far as its file says so."""
    said = os.pread(descriptor, 200, 0).decode(errors="replace")
    found = re.fullmatch(r"(\d{1,10}) (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) ([\w.-]{1,80})", said)
    if found is None:
        return "another process"
    process, since, machine = found.groups()
    where = "" if machine == socket.gethostname() else f" on {machine}"
    return f"process {process}{where} since {since}"


@contextmanager
def taking_turns(handle: IO[Any]) -> Iterator[None]:
    """Wait until no other process that appends to an open file is within such a block."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with suppress(OSError):  # a file system without locks; short lines hardly ever meet
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        handle.flush()
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)


def open_regular(path: str | Path, expected: str) -> IO[bytes]:
    """Open a file to be read; a pipe or a device, which could last for ever or wait for ever, is refused.

    :param expected: what should be there, for the message.
    :raises UsageError: there is no such file (code ``missing``), it is none, or it cannot be read.
    """
    where = str(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | NO_WAIT)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name with a zero in it
        raise UsageError(f"no such file; expected {expected}", code="missing", path=where) from None
    except OSError as problem:
        raise UsageError(f"it cannot be read ({problem.strerror}); look at its permissions", path=where) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"not a file; expected {expected}", code="missing", path=where)
    return os.fdopen(descriptor, "rb")


def pread_exactly(descriptor: int, into: memoryview, offset: int) -> bool:
    """Fill ``into`` from byte ``offset`` of a file on; whether there was enough.

    A file that shrinks meanwhile gives less, where a memory map of it would end the process.
    """
    while into:
        if hasattr(os, "preadv"):
            count = os.preadv(descriptor, [into], offset)
        else:
            os.lseek(descriptor, offset, os.SEEK_SET)
            piece = os.read(descriptor, len(into))
            count = len(piece)
            into[:count] = piece
        if count == 0:
            return False
        into, offset = into[count:], offset + count
    return True


def write_json(path: str | Path, value: Any, *, new: bool = False) -> None:
    """Write ``value`` as indented JSON, whole or not at all; NaN and infinity are refused with ``ValueError``.

    With ``new`` a file that is there stays, and ``FileExistsError`` is raised.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    if not is_text(text):
        text = json.dumps(value, indent=1, allow_nan=False)  # the names of files need not be UTF-8
    with writing(path, new=new) as handle:
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
    with open_regular(path, expected) as handle:
        try:
            content = handle.read(most_bytes + 1)
        except OSError as problem:
            raise UsageError(f"it cannot be read ({problem.strerror}); look at the disk", path=where) from None
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


def read_jsonl(
    path: str | Path, expected: str, *, most_bytes: int | None = None
) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The complete lines of a file with a JSON object a line: each as the byte that it ends before, and the object.

    A line is complete with its newline, and ends at no other character: a name may hold what Python takes for the end
    of a line. What follows the last newline was cut off by a crash, and is left out. A line that is no object is None.

    :param expected: what should be there, for the message.
    :param most_bytes: of a line; a longer one is none, and the last that is read.
    :raises UsageError: there is no such file, or it is none.
    """
    with open_regular(path, expected) as handle:
        end = 0
        while line := handle.readline(-1 if most_bytes is None else most_bytes + 1):
            if not line.endswith(b"\n"):
                if most_bytes is not None and len(line) > most_bytes:
                    yield end, None
                return
            end += len(line)
            try:
                content = json.loads(line)
            except (ValueError, RecursionError):
                content = None
            yield end, content if isinstance(content, dict) else None


def is_text(word: str) -> bool:
    """Whether a word can be written as UTF-8; what stands for half a letter or for other bytes cannot."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(os.open(path, os.O_RDONLY | NO_WAIT), "rb") as handle:
        if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a file", str(path))  # it could last for ever
        return hashlib.file_digest(handle, "sha256").hexdigest()
