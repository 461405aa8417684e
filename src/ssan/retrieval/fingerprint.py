"""Fingerprints of captions and features, which tell them apart from others, wherever they lie."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ssan.datasets.samples import Samples
from ssan.features.store import STORE
from ssan.files import read_json, read_jsonl
from ssan.retrieval.pairs import hash_captions


def fingerprint_captions(samples: Samples) -> dict[str, Any]:
    """``num`` and ``list`` of captions as they were read; ``list`` is over ids, captions and clips, in their order."""
    return {"num": len(samples), "list": hash_captions(samples)}


def videos_of(samples: Iterable[Any]) -> set[str]:
    """The ids of the features that captions belong to."""
    return {sample.video or sample.id for sample in samples}


def hash_features(path: str | Path, videos: set[str]) -> str:
    """The start of a SHA-256 over what is known of features without reading them, as far as they are of these videos.

    Of a store that ``ssan extract`` made: where its vectors come from, and the checksum of each entry. Of a folder of
    .npy files: their names and sizes. Of any other file: its size. Entries of other videos do not count, so that a
    store may grow.
    """
    path = Path(path)
    if (path / STORE).is_file():
        said = read_json(path / STORE)
        parts: Any = [said, sorted(_entries(path, videos))]
    elif path.is_dir():
        files = (Path(folder, name) for folder, _, names in os.walk(path) for name in names if name.endswith(".npy"))
        named = ((file.relative_to(path).with_suffix("").as_posix(), file) for file in files)
        parts = sorted((name, _bytes(file)) for name, file in named if name.partition("@")[0] in videos)
    else:
        parts = _bytes(path)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _entries(store: Path, videos: set[str]) -> list[list[Any]]:
    """Id, number of vectors and checksum of each entry; what is no entry is for who opens the store to tell of."""
    found = []
    for part in store.glob("part-*.jsonl"):
        for _, said in read_jsonl(part, "the entries of a store"):
            name = said.get("id") if said is not None else None
            if said is not None and isinstance(name, str) and (name in videos or name.rpartition("@")[0] in videos):
                found.append([name, said.get("num"), said.get("crc")])
    return [[name, str(num), str(crc)] for name, num, crc in found]


def _bytes(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def fingerprint(
    captions: Mapping[str, Samples | None],
    features: Mapping[str, str],
    *,
    vectors: str | None = None,
    narrations: str | None = None,
) -> dict[str, Any]:
    """What is trained or measured on: captions by split, features by the names of their streams, words and narrations.

    :param captions: None of a split that is not used.
    """
    known = {split: samples for split, samples in captions.items() if samples is not None}
    videos = videos_of(sample for samples in known.values() for sample in samples)
    return {
        "captions": {split: fingerprint_captions(samples) for split, samples in known.items()},
        "features": {name: hash_features(path, videos) for name, path in features.items()},
        "vectors": None if vectors is None else _bytes(Path(vectors)),
        "narrations": None if narrations is None else _bytes(Path(narrations)),
    }


def differences(there: Any, here: Mapping[str, Any]) -> list[str]:
    """In what a fingerprint that was written down differs from one that was taken now, in words."""
    if not isinstance(there, Mapping):
        return []
    said = []
    for split, now in here["captions"].items():
        then = there.get("captions", {}).get(split) if isinstance(there.get("captions"), Mapping) else None
        if isinstance(then, Mapping) and (then.get("num"), then.get("list")) != (now["num"], now["list"]):
            said.append(f"other captions ({split}: {then.get('num')!r} then, {now['num']} now)")
    for name, now in here["features"].items():
        then = there.get("features", {}).get(name) if isinstance(there.get("features"), Mapping) else None
        if then is not None and then != now:
            said.append(f"other features {name!r}")
    for key, what in (("vectors", "word vectors"), ("narrations", "narrations")):
        if there.get(key, here[key]) != here[key]:
            said.append(f"other {what}")
    return said
