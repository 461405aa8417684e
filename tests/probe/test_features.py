"""Features of clips in the store: computed once, for these files, by this network."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssan.datasets import Sample, Samples, read
from ssan.errors import UsageError
from ssan.models.catalogue import build
from ssan.models.classifier import Classifier
from ssan.probe.features import ClipFeatures, Frozen, describe, entries_of, own_store
from ssan.video.preprocess import Preprocess


class Counting(Classifier):
    """A classifier that counts the clips it has seen."""

    num_seen = 0

    def time_features(self, clips: Tensor) -> Tensor:
        self.num_seen += len(clips)
        return super().time_features(clips)


@pytest.fixture
def frozen() -> Frozen:
    torch.manual_seed(3)
    model = Counting(build("tsn_tiny", 2).backbone, 2).eval()
    return Frozen(model, Preprocess(num_frames=3, size_px=32, crop_px=32), "ab12", "tsn_tiny", 256)


@pytest.fixture
def clips(people: Path) -> Samples:
    return read("folder", people, "all")


def described(frozen: Frozen, clips: Samples, store: Path, **options: Any) -> ClipFeatures:
    return describe(frozen, clips, store, root=clips.source, quiet=True, **options)


def test_a_clips_features_are_what_the_network_gives_of_its_views(
    frozen: Frozen, clips: Samples, tmp_path: Path
) -> None:
    found = described(frozen, clips, tmp_path / "store", num_views=2, batch=4)
    views, _ = frozen.preprocess.test_views(clips[5].path, 2)
    with torch.inference_mode():
        expected = frozen.model.time_features(views)  # type: ignore[operator]
    assert found.times(5).shape == (2, 3, 256)
    assert np.abs(found.times(5) - expected.numpy()).max() <= 1e-3 * float(expected.abs().max())
    assert np.allclose(found.pooled()[5], found.times(5).astype(np.float64).mean(axis=1), atol=1e-6)
    assert [sample.path for sample in found.samples] == [sample.path for sample in clips]


def test_what_is_in_the_store_is_not_computed_again(frozen: Frozen, clips: Samples, tmp_path: Path) -> None:
    some = clips.kept(list(clips)[:10])
    described(frozen, some, tmp_path / "store")
    assert frozen.model.num_seen == 10
    first = described(frozen, clips, tmp_path / "store")
    assert (first.num_done_before, frozen.model.num_seen) == (10, len(clips))
    again = described(frozen, clips, tmp_path / "store")
    assert (again.num_done_before, frozen.model.num_seen) == (len(clips), len(clips))
    assert np.array_equal(first.pooled(), again.pooled())


def test_a_clip_whose_file_has_changed_is_computed_again(
    frozen: Frozen, clips: Samples, people: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(people, tmp_path / "people"))
    mine = read("folder", root, "all")
    described(frozen, mine, tmp_path / "store")
    frame = next(Path(mine[3].path).iterdir())
    os.utime(frame, ns=(1, frame.stat().st_mtime_ns + 10**9))
    seen = frozen.model.num_seen
    described(frozen, mine, tmp_path / "store")
    assert frozen.model.num_seen == seen + 1


def test_a_set_that_was_moved_has_its_features(frozen: Frozen, people: Path, tmp_path: Path) -> None:
    names = [
        entries_of(read("folder", root, "all"), str(root)) for root in (people, shutil.copytree(people, tmp_path / "b"))
    ]
    assert names[0] == names[1]


def test_parts_of_a_video_are_entries_of_their_own() -> None:
    parts = [
        Sample("a", "v/x.webm"), Sample("b", "v/x.webm", start_seconds=1.0, end_seconds=2.5),
        Sample("c", "v/x.webm", start_frame=3, end_frame=9), Sample("d", "v/x.webm", start_frame=3, end_frame=8),
    ]  # fmt: skip
    assert len(set(entries_of(parts, "v"))) == 4


def test_a_clip_that_is_listed_twice_is_computed_once(frozen: Frozen, clips: Samples, tmp_path: Path) -> None:
    found = describe(frozen, [*clips, clips[0]], tmp_path / "store", root=clips.source, quiet=True)
    assert frozen.model.num_seen == len(clips)
    assert np.array_equal(found.times(0), found.times(len(clips)))


def test_another_network_has_its_features_beside_and_in_a_shared_store_is_refused(
    frozen: Frozen, clips: Samples, tmp_path: Path
) -> None:
    other = Frozen(frozen.model, frozen.preprocess, "cd34", "tsn_tiny", 256)
    assert own_store(tmp_path, frozen, 1) != own_store(tmp_path, other, 1)
    assert own_store(tmp_path, frozen, 1) != own_store(tmp_path, frozen, 2)
    described(frozen, clips, tmp_path / "store")
    with pytest.raises(UsageError, match='hash is "ab12" there and "cd34" here') as refused:
        described(other, clips, tmp_path / "store")
    assert refused.value.code == "wrong_model"


def test_interrupted_it_keeps_what_was_computed(
    frozen: Frozen, clips: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Counting.time_features

    def until_the_ninth(self: Counting, batch: Tensor) -> Tensor:
        if self.num_seen >= 8:
            raise KeyboardInterrupt
        return real(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Counting, "time_features", until_the_ninth)
        with pytest.raises(KeyboardInterrupt):
            described(frozen, clips, tmp_path / "store", batch=4)
    found = described(frozen, clips, tmp_path / "store", batch=4)
    assert (found.num_done_before, frozen.model.num_seen) == (8, len(clips))


def test_clips_that_are_missing_or_unreadable_are_left_out_with_what_was_wrong(
    frozen: Frozen, clips: Samples, tmp_path: Path
) -> None:
    (tmp_path / "broken.webm").write_bytes(b"no video at all")
    bad = [
        Sample("gone", str(tmp_path / "gone.webm"), exists=False), Sample("broken", str(tmp_path / "broken.webm")),
    ]  # fmt: skip
    found = describe(frozen, [bad[0], *clips, bad[1]], tmp_path / "store", root=clips.source, quiet=True)
    assert [(sample.id, error.code) for sample, error in found.failed] == [("gone", "missing"), ("broken", "not_video")]
    assert len(found.samples) == len(clips)


def test_features_that_are_not_numbers_are_left_out_and_refused_where_all_are(
    frozen: Frozen, clips: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Counting.time_features

    def broken(self: Counting, batch: Tensor) -> Tensor:
        features = real(self, batch)
        features[0, -1, 7] = torch.nan
        return features

    monkeypatch.setattr(Counting, "time_features", broken)
    found = described(frozen, clips, tmp_path / "some", batch=6)
    assert len(found.failed) == -(-len(clips) // 6)
    assert {error.code for _, error in found.failed} == {"nan"}
    with pytest.raises(UsageError, match=f"features of all {len(clips)} clips are NaN") as refused:
        described(frozen, clips, tmp_path / "all", batch=1)
    assert refused.value.code == "nan"


def test_a_network_that_knows_no_times_gives_one_for_each_view(clips: Samples, tmp_path: Path) -> None:
    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(0.01))

        def features(self, batch: Tensor) -> Tensor:
            return self.scale * batch.float().mean(dim=(1, 3, 4))

    frozen = Frozen(Whole(), Preprocess(num_frames=2, size_px=32, crop_px=32), "ef", "whole", 3)
    assert described(frozen, clips, tmp_path / "store").times(0).shape == (1, 1, 3)
