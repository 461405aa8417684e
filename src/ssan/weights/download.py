"""Reading what lies elsewhere, by HTTP or on this machine: so many bytes at most, and so many seconds."""

import base64
import http.client
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from ssan.errors import UsageError, on_one_line
from ssan.files import open_regular

# Without a byte for so long, a server is given up; the whole of a file may take longer.
SILENT_SECONDS = 30.0
MOST_SECONDS = 4 * 3600.0
MOST_PAGE_BYTES = 20_000_000
PIECE = 1 << 20


class UnreachableError(Exception):
    """What was asked for cannot be had from there; the message says why, in a line."""


@dataclass(frozen=True)
class Connection:
    """How other machines are reached.

    :param certificates: a file of certificates to trust in the place of the system's.
    :param proxy: address of a proxy; without it, what the environment says (``https_proxy``).
    """

    certificates: str | None = None
    proxy: str | None = None


@contextmanager
def opened(url: str, connection: Connection | None = None, accept: str = "*/*") -> Iterator[tuple[IO[bytes], Any]]:
    """Open what a URL names (http, https or file): the bytes, and an HTTP answer's headers and address, or None.

    :raises UnreachableError: it cannot be had, also while it is read.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme == "file":
            with open_regular(urllib.request.url2pathname(parts.path), "a file") as file:
                yield file, None
            return
        if parts.scheme not in ("http", "https"):
            raise UnreachableError(f"{without_password(url)}: expected an address that begins with https, http or file")
        host = parts.netloc.rpartition("@")[2]
        request = urllib.request.Request(
            urllib.parse.urlunsplit(parts._replace(netloc=host)), headers={"Accept": accept, "User-Agent": "ssan"}
        )
        if parts.username is not None:
            who = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            # Not for wherever the answer sends us on to.
            request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(who.encode()).decode()}")
        with _opener(connection or Connection()).open(request, timeout=SILENT_SECONDS) as answer:
            yield answer, answer
    except UsageError as error:
        raise UnreachableError(str(error)) from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is the answer too
        reason = error.reason if type(error) is urllib.error.URLError else error
        raise UnreachableError(f"{without_password(url)}: {on_one_line(reason)}") from error


def _opener(connection: Connection) -> urllib.request.OpenerDirector:
    """What follows http and https alone, whatever an answer says."""
    proxies = None if connection.proxy is None else dict.fromkeys(("http", "https"), connection.proxy)
    try:
        context = ssl.create_default_context(cafile=connection.certificates)
    except OSError as error:
        raise UnreachableError(f"{connection.certificates}: no file of certificates ({error})") from error
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=context),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def copy_of(
    url: str,
    into: IO[bytes],
    most_bytes: int,
    connection: Connection | None = None,
    told: Callable[[int], object] = lambda _: None,
) -> int:
    """Copy what a URL names into an open file, and return how many bytes it has.

    :param told: called with the number of bytes of each piece.
    :raises UnreachableError: it cannot be had, has more than ``most_bytes``, or comes too slowly.
    """
    until, size = time.monotonic() + MOST_SECONDS, 0
    with opened(url, connection) as (source, answer):
        promised = None if answer is None else answer.headers.get("Content-Length")
        while piece := _piece_of(source, url):
            size += len(piece)
            if size > most_bytes:
                raise UnreachableError(f"{without_password(url)}: it has more than the {most_bytes:,} bytes expected")
            if time.monotonic() > until:
                raise UnreachableError(f"{without_password(url)}: not there after {MOST_SECONDS:.0f} s")
            into.write(piece)
            told(len(piece))
        if promised is not None and promised.isdecimal() and size != int(promised):
            raise UnreachableError(f"{without_password(url)}: it broke off after {size:,} of {int(promised):,} bytes")
    return size


def _piece_of(source: IO[bytes], url: str) -> bytes:
    """The next bytes; what the network or the disk fails with is told from what the place they go to fails with."""
    try:
        return source.read(PIECE)
    except OSError as error:
        raise UnreachableError(f"{without_password(url)}: {on_one_line(error)}") from error


def read_page(url: str, accept: str, connection: Connection) -> tuple[str, str, str]:
    """A page of text, its kind, and its address after what it was sent on to.

    :raises UnreachableError: it cannot be had, or is too long for a page.
    """
    with opened(url, connection, accept) as (source, answer):
        content = source.read(MOST_PAGE_BYTES + 1)
        if len(content) > MOST_PAGE_BYTES:
            raise UnreachableError(f"{without_password(url)}: longer than a page of an index is")
        kind = "text/html" if answer is None else answer.headers.get_content_type()
        return content.decode("utf-8", "replace"), kind, url if answer is None else answer.url


def without_password(url: str) -> str:
    """A URL for a message."""
    return re.sub(r"(?<=//)[^/]*@", "", url)
