"""Features as they are read: every published form, parts by their times, pooling beside a naive twin, no code run."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssan.datasets import Sample
from ssan.errors import SsanError, UsageError
from ssan.features.store import VectorWriter
from ssan.features.streams import FeatureStream, open_features, pooled

DIM_2D, DIM_3D = 5, 7


def vectors(number: int, num: int, dim: int = DIM_2D, dtype: str = "float16") -> np.ndarray:
    return np.random.default_rng([number, num]).standard_normal((num, dim)).astype(dtype)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStream:
    """A video of 7 s in windows of 2 s every second, another in windows of 1 s every 3 s, and a part of the first."""
    with VectorWriter(tmp_path / "store", DIM_2D, {"model": "ssan_tiny"}) as writer:
        writer.add("a", vectors(1, 6), np.array([[k, k + 2] for k in range(6)]), "a.mp4")
        writer.add("gaps", vectors(2, 3), np.array([[0, 1], [3, 4], [6, 7]]), "gaps.mp4")
        writer.add("a@1-2.5", vectors(3, 2), np.array([[1, 2], [1.5, 2.5]]), "a.mp4")
    (stream,) = open_features(tmp_path / "store")
    return stream


def numbers_of(stream: FeatureStream, video: str, start: float | None, end: float | None, of: np.ndarray) -> list[int]:
    """Which rows of a video a part has."""
    rows = stream.rows(video, start, end)
    return [next(k for k, row in enumerate(of) if (row == found).all()) for found in rows]


# -------------------------------------------------------------------------------------------------------- our own store


def test_a_store_gives_whole_videos_and_says_what_it_is(store: FeatureStream) -> None:
    assert (store.name, store.dim, store.provenance) == ("ssan_tiny", DIM_2D, {"model": "ssan_tiny"})
    np.testing.assert_array_equal(store.rows("a"), vectors(1, 6))
    assert store.has("a")
    assert not store.has("b")
    assert not store.has("b", 1, 2)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (2.0, 3.0, [1, 2]),  # windows [1, 3) and [2, 4)
        (0.0, 1.0, [0]),
        (None, 1.5, [0, 1]),
        (5.5, None, [4, 5]),
        (6.9, 99.0, [5]),
        (3.0, 3.0, [2]),  # an instant
        (0.0, 0.0, [0]),
    ],
)
def test_a_part_has_the_windows_that_overlap_it(
    store: FeatureStream, start: float | None, end: float | None, expected: list[int]
) -> None:
    assert store.has("a", start, end)
    assert numbers_of(store, "a", start, end, vectors(1, 6)) == expected


def test_an_entry_of_the_part_alone_comes_first(store: FeatureStream) -> None:
    np.testing.assert_array_equal(store.rows("a", 1, 2.5), vectors(3, 2))
    assert store.rows("a", 1, 2.6).shape == (3, DIM_2D)


@pytest.mark.parametrize(
    ("start", "end", "expected"), [(1.0, 1.5, 0), (2.0, 2.5, 1), (1.5, 2.5, 0), (1.0, 3.0, 0), (4.9, 5.6, 2), (3, 3, 1)]
)
def test_a_part_between_windows_has_the_nearer_one(
    store: FeatureStream, start: float, end: float, expected: int
) -> None:
    assert store.has("gaps", start, end)
    assert numbers_of(store, "gaps", start, end, vectors(2, 3)) == [expected]


def test_a_part_after_the_end_has_no_vectors(store: FeatureStream) -> None:
    assert not store.has("a", 7.0, 8.0)
    with pytest.raises(UsageError, match=r"part 'a@7-8', whose vectors end at 7 s") as caught:
        store.rows("a", 7.0, 8.0)
    assert caught.value.code == "too_few_frames"


@pytest.mark.parametrize(("start", "end"), [(3.0, 2.0), (-1.0, 2.0), (float("nan"), 2.0), (0.0, float("nan"))])
def test_a_part_that_ends_before_it_begins_is_refused(store: FeatureStream, start: float, end: float) -> None:
    with pytest.raises(UsageError, match=r"expected 0 <= start <= end") as caught:
        store.rows("a", start, end)
    assert caught.value.code == "bad_annotation"


def test_a_missing_video_is_told_with_advice(store: FeatureStream) -> None:
    with pytest.raises(UsageError, match=r"no features of 'b'; it has, for instance, 'a'") as caught:
        store.rows("b")
    assert (caught.value.code, caught.value.path) == ("missing", store.where)


# ---------------------------------------------------------------------------------------------------- a folder of .npy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "feature_3d"
    (root / "deep" / "er").mkdir(parents=True)
    np.save(root / "a.npy", vectors(1, 11))
    np.save(root / "deep" / "er" / "b.v1.npy", vectors(2, 3, dtype="float32"))
    np.save(root / "one.npy", vectors(3, 1)[0])
    (root / "notes.txt").write_text("nothing of ours")
    return root


def test_files_are_found_by_their_path_without_suffix(folder: Path) -> None:
    (stream,) = open_features(folder)
    assert (stream.name, stream.dim) == ("feature_3d", DIM_2D)
    np.testing.assert_array_equal(stream.rows("deep/er/b.v1"), vectors(2, 3, dtype="float32"))
    np.testing.assert_array_equal(stream.rows("one"), vectors(3, 1))
    assert [stream.has(name) for name in ("a", "b.v1", "../feature_3d/a", "notes", str(folder / "a"))] == [
        True, False, False, False, False,
    ]  # fmt: skip


def test_a_part_has_the_rows_that_howto100m_takes(folder: Path) -> None:
    (stream,) = open_features(folder, rate=1.5)
    # int(1.9 * 1.5) = 2 up to int(4.1 * 1.5) + 1 = 7, worked by hand.
    assert numbers_of(stream, "a", 1.9, 4.1, vectors(1, 11)) == [2, 3, 4, 5, 6]
    assert numbers_of(stream, "a", 0.0, 0.0, vectors(1, 11)) == [0]
    assert numbers_of(stream, "a", 6.0, 60.0, vectors(1, 11)) == [9, 10]
    assert numbers_of(stream, "a", 6.0, None, vectors(1, 11)) == [9, 10]
    assert stream.has("a", 7.3, 9)
    assert not stream.has("a", 7.4, 9)  # row 11 of 11
    with pytest.raises(UsageError, match=r"'a@7.4-9', whose 11 vectors are 1.5 a second") as caught:
        stream.rows("a", 7.4, 9)
    assert caught.value.code == "too_few_frames"


def test_parts_need_a_rate_and_whole_videos_none(folder: Path) -> None:
    (stream,) = open_features(folder)
    assert stream.rows("a").shape == (11, DIM_2D)
    with pytest.raises(UsageError, match="give their rate"):
        stream.rows("a", 1, 2)


def test_a_pooled_vector_has_no_parts(folder: Path) -> None:
    (stream,) = open_features(folder, rate=1.0)
    assert not stream.has("one", 0, 1)
    with pytest.raises(UsageError, match="pooled already"):
        stream.rows("one", 0, 1)


def test_more_files_can_be_read_than_may_be_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(150):
        np.save(folder / f"{number}.npy", vectors(number, 2))
    (stream,) = open_features(folder)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for number in range(150):
        np.testing.assert_array_equal(stream.rows(f"{number}"), vectors(number, 2))
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 64


class Executed:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.mark),)


def _spoiled(path: Path, how: str) -> None:
    if how == "objects":
        np.save(path, np.array([Executed(path.parent.parent / "mark"), None], dtype=object), allow_pickle=True)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    elif how == "header":
        path.write_bytes(path.read_bytes()[:40])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("no array at all\n" * 20)
    elif how == "whole numbers":
        np.save(path, np.ones((3, DIM_2D), np.int64))
    elif how == "pictures":
        np.save(path, np.ones((3, 4, DIM_2D), np.float32))
    elif how == "no rows":
        np.save(path, np.ones((0, DIM_2D), np.float32))
    elif how == "other":
        np.save(path, np.ones((3, 6), np.float32))
    else:
        np.save(path, np.where(vectors(1, 11) > 1, np.nan, vectors(1, 11)))


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("objects", "bad_annotation", "not a whole .npy file"),
        ("cut", "truncated", "not a whole .npy file"),
        ("header", "truncated", "not a whole .npy file"),
        ("empty", "truncated", "not a whole .npy file"),
        ("text", "bad_annotation", "not a whole .npy file"),
        ("whole numbers", "bad_annotation", "is int64 (3, 5)"),
        ("pictures", "bad_annotation", "is float32 (3, 4, 5)"),
        ("no rows", "bad_annotation", "(0, 5)"),
        ("other", "wrong_model", "length 6, the others before it of 5"),
        ("nan", "nan", "'deep/er/b.v1' are NaN or infinite"),
    ],
)
def test_a_spoiled_file_is_refused_by_name(folder: Path, how: str, code: str, said: str) -> None:
    path = folder / "deep" / "er" / "b.v1.npy"
    _spoiled(path, how)
    (stream,) = open_features(folder)
    np.testing.assert_array_equal(stream.rows("a"), vectors(1, 11))
    with pytest.raises(SsanError) as caught:
        stream.rows("deep/er/b.v1")
    assert (caught.value.code, caught.value.path) == (code, str(path))
    assert said in caught.value.message
    assert not (folder.parent / "mark").exists()


# -------------------------------------------------------------------------------------------- reference 22's own files


def test_msrvtt_of_reference_22_is_two_streams(tmp_path: Path) -> None:
    made = {
        "2d": {f"video{k}": torch.from_numpy(vectors(k, 1)[0]) for k in range(3)},
        "3d": {f"video{k}": torch.from_numpy(vectors(k, 1, DIM_3D, "float32")[0]) for k in range(3)},
    }
    torch.save(made, tmp_path / "msrvtt.pth")
    streams = open_features(tmp_path / "msrvtt.pth")
    assert [(stream.name, stream.dim) for stream in streams] == [("2d", DIM_2D), ("3d", DIM_3D)]
    np.testing.assert_array_equal(streams[1].rows("video2"), vectors(2, 1, DIM_3D, "float32"))
    assert not streams[0].has("video3")
    # As reference 22's loader: each normalised by itself, then joined.
    both = [torch.nn.functional.normalize(made[name]["video1"].float(), dim=0) for name in ("2d", "3d")]
    np.testing.assert_allclose(pooled(streams, [("video1", None, None)])[0], torch.cat(both).numpy(), atol=1e-6)


def youcook() -> list[dict[str, Any]]:
    said = [("x", "Cut the  onion"), ("y", "stir"), ("x", "fry it"), ("x", "stir"), ("z", "stir"), ("z", "Stir ")]
    return [
        {"2d": vectors(k, 1)[0], "3d": vectors(k, 1, DIM_3D, "float32")[0], "caption": caption, "id": video}
        for k, (video, caption) in enumerate(said)
    ]


@pytest.fixture(params=[2, 3, 4, 5])
def youcook_file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    with open(tmp_path / "youcook.pkl", "wb") as handle:
        pickle.dump(youcook(), handle, protocol=request.param)
    return tmp_path / "youcook.pkl"


def test_youcook_of_reference_22_is_matched_by_its_captions(youcook_file: Path) -> None:
    streams = open_features(youcook_file)
    assert [(stream.name, stream.dim) for stream in streams] == [("2d", DIM_2D), ("3d", DIM_3D)]
    made, stream = youcook(), streams[1]
    # The annotations have another order, and one clip that the file has not.
    asked = [("x", 30.0, 42.5, "stir"), ("x", 3.0, 9.0, "cut the onion"), ("x", 10.0, 20.0, "fry it"),
             ("z", 1.0, 2.0, "stir"), ("z", 5.0, 6.0, "stir"), ("y", 0.0, 8.0, "boil")]  # fmt: skip
    assert not stream.has("x", 3.0, 9.0)
    for each in streams:
        each.match(
            Sample(f"{video}-{start}", "", start_seconds=start, end_seconds=end, caption=caption, video=video)
            for video, start, end, caption in asked
        )
    for (video, start, end, _), number in zip(asked, (3, 0, 2, 4, 5), strict=False):
        np.testing.assert_array_equal(stream.rows(video, start, end), made[number]["3d"][None])
    assert not stream.has("y", 0.0, 8.0)
    with pytest.raises(UsageError, match="no features of 'y@0-8'"):
        stream.rows("y", 0.0, 8.0)


def test_equal_captions_of_which_a_list_lacks_one_count_as_missing(youcook_file: Path) -> None:
    stream = open_features(youcook_file)[0]
    stream.match([Sample("1", "", start_seconds=1.0, end_seconds=2.0, caption="stir", video="z")])
    assert not stream.has("z", 1.0, 2.0)


def test_the_clips_of_a_list_have_numbers_too(youcook_file: Path) -> None:
    stream = open_features(youcook_file)[0]
    np.testing.assert_array_equal(stream.rows("x#2"), youcook()[3]["2d"][None])
    np.testing.assert_array_equal(stream.rows("y"), youcook()[1]["2d"][None])
    assert not stream.has("x")
    assert stream.captions[2] == ("x#1", "fry it")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "content", [{"2d": {"a": vectors(1, 3)}}, {"a": vectors(1, 3)}, {"a": vectors(1, 3).T.copy().T}]
)
def test_tables_by_id_can_be_pickled(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(content))
    (stream,) = open_features(tmp_path / "f.pkl", rate=1.0)
    np.testing.assert_array_equal(stream.rows("a", 1.5, 9.0), vectors(1, 3)[1:])


def test_pickles_of_either_numpy_are_read(tmp_path: Path) -> None:
    written = pickle.dumps({"a": vectors(1, 3)}, protocol=2)
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    for content in (written.replace(old, new), written.replace(new, old)):
        (tmp_path / "f.pkl").write_bytes(content)
        np.testing.assert_array_equal(open_features(tmp_path / "f.pkl")[0].rows("a"), vectors(1, 3))


def _call(module: str, name: str, argument: str) -> bytes:
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (_call("os", "mkdir", "{mark}"), "(os.mkdir)"),
        (_call("posix", "mkdir", "{mark}"), "(posix.mkdir)"),
        (_call("numpy", "load", "{mark}"), "(numpy.load)"),
        (_call("builtins", "eval", "1"), "(builtins.eval)"),
        (pickle.dumps({"a": np.array([{}], dtype=object)}), "not features of videos"),
        (pickle.dumps({"a": np.zeros(3, [("x", "<f4")])}), "numpy.dtype of 'V4'"),
        (pickle.dumps({"a": np.zeros(3, "datetime64[s]")}), "numpy.dtype of 'M8'"),
        (pickle.dumps({"a": [1.0, 2.0]}), "not features of videos"),
        (pickle.dumps([]), "not features of videos"),
        (pickle.dumps([{"2d": 3, "caption": "a", "id": "b"}]), "not features of videos"),
        (pickle.dumps({3: np.ones(3)}), "not features of videos"),
        (pickle.dumps({"a": np.ones((2, 3, 4))}), "expected features (n, f)"),
        (pickle.dumps({"a": np.ones(3), "b": np.ones(4)}), "length 4, the others before it of 3"),
        (pickle.dumps({"a": np.ones(3)})[:-9], "cannot be read"),
        (b"", "cannot be read"),
        (b"no pickle at all", "cannot be read"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "not features of videos"),  # place 2147483647
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0fx.", "cannot be read"),  # bytes that are not there
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "something that is not in it"),
    ],
)
def test_a_pickle_of_anything_else_is_refused_by_name(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "f.pkl"
    path.write_bytes(content.replace(b"{mark}", str(tmp_path / "mark").encode()))
    with pytest.raises(UsageError) as caught:
        open_features(path)
    assert said in caught.value.message
    assert caught.value.path == str(path)
    assert not (tmp_path / "mark").exists()


def test_an_array_whose_bytes_are_not_those_of_its_shape_is_refused(tmp_path: Path) -> None:
    written = pickle.dumps({"a": vectors(1, 3)}, protocol=2)
    assert written.count(b"K\x03K\x05") == 1  # the shape
    (tmp_path / "f.pkl").write_bytes(written.replace(b"K\x03K\x05", b"K\x03K\x06"))
    with pytest.raises(UsageError, match="cannot be read as plain features"):
        open_features(tmp_path / "f.pkl")


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_features_that_are_not_finite_are_told_with_file_and_id(tmp_path: Path, suffix: str) -> None:
    path, bad = tmp_path / f"f{suffix}", np.array([1, np.inf, 3], np.float32)
    content = {"good": np.ones(3, np.float32), "v/17": bad}
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save({name: torch.from_numpy(array) for name, array in content.items()}, path)
    with pytest.raises(SsanError, match="'v/17' are NaN or infinite") as caught:
        open_features(path)
    assert (caught.value.code, caught.value.path) == ("nan", str(path))


def test_a_torch_file_that_needs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"2d": Executed(tmp_path / "mark")}, tmp_path / "f.pth")
    with pytest.raises(UsageError, match="need code to be executed are refused"):
        open_features(tmp_path / "f.pth")
    (tmp_path / "g.pth").write_bytes((tmp_path / "f.pth").read_bytes()[:-50])
    with pytest.raises(UsageError, match="cannot be read"):
        open_features(tmp_path / "g.pth")
    assert not (tmp_path / "mark").exists()


def test_what_is_none_of_these_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "f.csv").write_text("a,b\n")
    for name, said in [
        ("nowhere", "no such features"),
        ("none", r"or \.npy files"),
        ("f.csv", "not a form of features"),
    ]:
        with pytest.raises(UsageError, match=said):
            open_features(tmp_path / name)
    with pytest.raises(UsageError, match="expected a number above 0"):
        open_features(tmp_path / "none", rate=0.0)


# -------------------------------------------------------------------------------------------------------------- pooling


def naive_pooled(streams: list[FeatureStream], clips: list[Any], how: str, normalise: bool) -> list[list[float]]:
    """One number at a time, in float64."""
    joined = []
    for video, start, end in clips:
        whole: list[float] = []
        for stream in streams:
            rows = stream.rows(video, start, end).astype(float).tolist()
            columns = [[row[k] for row in rows] for k in range(stream.dim)]
            vector = [max(column) if how == "max" else sum(column) / len(column) for column in columns]
            length = sum(value * value for value in vector) ** 0.5
            whole += [value / max(length, 1e-12) for value in vector] if normalise else vector
        joined.append(whole)
    return joined


@pytest.mark.parametrize("how", ["max", "mean"])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_pooling_equals_its_naive_twin(tmp_path: Path, how: Any, normalise: bool, dtype: str) -> None:
    for name, dim in (("2d", DIM_2D), ("3d", DIM_3D)):
        (tmp_path / name).mkdir()
        for number in range(3):
            rows = vectors(number, 4 + 3 * number, dim, dtype)
            rows[:, 1] = -np.abs(rows[:, 1]) - 1  # a column without anything above zero
            rows[0, 2] = -0.0
            np.save(tmp_path / name / f"v{number}.npy", rows)
    streams = [*open_features(tmp_path / "2d", 1.0), *open_features(tmp_path / "3d", 1.5)]
    clips: list[Any] = [("v1", None, None), ("v0", 0.0, 2.2), ("v2", 3.0, 6.1), ("v1", 1.0, 1.0), ("v0", None, 1.0)]
    found = pooled(streams, clips, how, normalise)
    assert (found.shape, found.dtype) == ((5, DIM_2D + DIM_3D), np.float32)
    np.testing.assert_allclose(found, naive_pooled(streams, clips, how, normalise), rtol=3e-7)
    if normalise:
        np.testing.assert_allclose(np.linalg.norm(found[:, :DIM_2D], axis=1), 1, rtol=1e-6)


def test_pooling_worked_by_hand(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    np.save(tmp_path / "one" / "v.npy", np.array([[3, -1], [1, 4]], np.float16))
    np.save(tmp_path / "two" / "v.npy", np.array([[-2], [-6]], np.float16))
    streams = [*open_features(tmp_path / "one"), *open_features(tmp_path / "two")]
    clip: list[Any] = [("v", None, None)]
    # max (3, 4) has length 5, and max -2 has length 2; mean (2, 1.5) has length 2.5.
    np.testing.assert_allclose(pooled(streams, clip), [[0.6, 0.8, -1]], rtol=1e-6)
    np.testing.assert_allclose(pooled(streams, clip, "mean"), [[0.8, 0.6, -1]], rtol=1e-6)
    np.testing.assert_array_equal(pooled(streams, clip, normalise=False), [[3, 4, -2]])


def test_zeros_stay_zeros_and_no_clips_give_no_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.zeros((3, DIM_2D), np.float32))
    streams = open_features(tmp_path)
    np.testing.assert_array_equal(pooled(streams, [("v", None, None)]), np.zeros((1, DIM_2D)))
    assert pooled(streams, []).shape == (0, DIM_2D)
    with pytest.raises(UsageError, match="expected max or mean"):
        pooled(streams, [("v", None, None)], "sum")  # type: ignore[arg-type]
