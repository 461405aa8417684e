"""Extraction: features beside those computed window by window, resumed, shared, interrupted, and what is refused."""

import json
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.forked import ForkedCommand
from torch import nn

from ssan.datasets import Sample, Samples, read
from ssan.errors import ModelError, SsanError, UsageError
from ssan.features.extract import (
    Encoder,
    Rate,
    encoder_of_weights,
    extract,
    jobs_of,
    usual_rate,
)
from ssan.features.store import Vectors, open_vectors
from ssan.models.catalogue import build
from ssan.recipe import make_recipe
from ssan.video.preprocess import Preprocess
from ssan.weights.classifier_file import load_labeller, save_labeller

RATE = Rate(0.7, 0.3)


@pytest.fixture(autouse=True)
def _forked_readers_are_no_fault() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        yield


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(3)
    model = build("ssan_tiny", 4).eval()
    return Encoder(model, Preprocess(num_frames=3, size_px=40, crop_px=32), "ab12", "ssan_tiny", 256)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model file with classes of its own, which do not matter here."""
    torch.manual_seed(5)
    recipe = make_recipe({"model": "ssan_tiny", "num_frames": 2, "size_px": 40, "crop_px": 32})
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_labeller(path, build("ssan_tiny", 2), ["one", "other"], recipe, {})
    return path


@pytest.fixture
def videos(order_set: Path) -> Samples:
    found = read("sthv2", order_set, "all")
    return found.kept(found[:5])


def content(folder: Path) -> dict[str, tuple[bytes, bytes]]:
    store = open_vectors(folder)
    return {name: (store.rows(name).tobytes(), store.spans(name).tobytes()) for name in store.ids}


@torch.no_grad()
def by_hand(encoder: Encoder, path: str, spans: np.ndarray) -> np.ndarray:
    """The features of each window, one clip at a time, each read by itself."""
    rows = []
    for start, end in spans.tolist():
        (clip,), _ = encoder.preprocess.test_views(path, part=(start, end))
        rows.append(encoder.model.features(clip[None])[0].numpy())
    return np.stack(rows)


# ------------------------------------------------------------------------------------------------------------ features


def test_features_are_what_the_linear_layer_takes(encoder: Encoder) -> None:
    model, clips = encoder.model, torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        features = model.features(clips)
        assert features.shape == (2, 256)
        torch.testing.assert_close(model.fc(features), model(clips), atol=1e-6, rtol=1e-5)
        assert torch.equal(model.features(clips[:1].float()), model.backbone(clips[:1].float()).mean(dim=1))


@pytest.mark.slow
def test_each_window_has_the_features_of_its_clip(encoder: Encoder, videos: Samples, tmp_path: Path) -> None:
    done = extract(encoder, videos, tmp_path / "f", RATE, batch=2, quiet=True)
    store = open_vectors(tmp_path / "f")
    assert store.ids == [sample.id for sample in videos]
    assert (done.num_videos, done.num_vectors, done.dim, done.failed) == (5, store.num_vectors, 256, [])
    for sample in videos:
        spans = store.spans(sample.id)
        assert len(spans) > 2
        np.testing.assert_allclose(spans[:, 0], 0.3 * np.arange(len(spans)), atol=1e-9)
        np.testing.assert_allclose(store.rows(sample.id), by_hand(encoder, sample.path, spans), atol=2e-3)
    assert len({row.tobytes() for sample in videos for row in store.rows(sample.id)}) > 10


def test_a_store_says_where_its_features_come_from(encoder: Encoder, videos: Samples, tmp_path: Path) -> None:
    extract(encoder, videos, tmp_path, RATE, quiet=True, data={"root": "clips"})
    assert open_vectors(tmp_path).provenance == {
        "source": "ssan extract", "kind": "pooled features, mean over the frames of a window", "model": "ssan_tiny",
        "hash": "ab12", "preprocess": encoder.preprocess.as_dict(), "window_seconds": 0.7, "stride_seconds": 0.3,
        "vectors_per_second": 1 / 0.3,
    }  # fmt: skip
    start, end = (json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines())
    assert (start["event"], start["num_videos"], start["data"]) == ("start", 5, {"root": "clips"})
    assert (end["event"], end["num_videos"], end["num_failed"]) == ("end", 5, 0)
    for name in ("read_seconds", "compute_seconds", "write_seconds"):
        assert 0 < end[name] <= end["seconds"]


@pytest.mark.slow
def test_the_number_of_reading_processes_changes_nothing(encoder: Encoder, videos: Samples, tmp_path: Path) -> None:
    stores = []
    for workers in (0, 2):
        done = extract(encoder, videos, tmp_path / str(workers), RATE, batch=2, workers=workers, quiet=True)
        assert done.read_seconds > 0
        stores.append(content(tmp_path / str(workers)))
    assert stores[0] == stores[1]


def test_a_video_shorter_than_a_window_is_one_window(encoder: Encoder, videos: Samples, tmp_path: Path) -> None:
    extract(encoder, videos, tmp_path, Rate(60, 10), quiet=True)
    store = open_vectors(tmp_path)
    (view,), clip = encoder.preprocess.test_views(videos[0].path)
    assert store.spans(videos[0].id).tolist() == [[0, clip.duration_seconds]]
    with torch.no_grad():
        np.testing.assert_allclose(store.rows(videos[0].id), encoder.model.features(view[None]), atol=2e-3)


# --------------------------------------------------------------------------------------------------------------- parts


def captions(path: str) -> Samples:
    """Four captions of one video: two of one part, one of another, one of all of it; and one of a second video."""
    return Samples(
        [
            Sample("c1", path, start_seconds=0.5, end_seconds=1.5, caption="a", video="v"),
            Sample("c2", path, start_seconds=0.5, end_seconds=1.5, caption="b", video="v"),
            Sample("c3", path, start_seconds=1.0, caption="c", video="v"),
            Sample("c4", path, caption="d", video="v"),
            Sample("w", path, caption="e"),
        ],
        [],
        "captions.csv",
    )


def test_captions_of_one_part_share_an_entry(encoder: Encoder, videos: Samples, tmp_path: Path) -> None:
    samples = captions(videos[0].path)
    assert [job.id for job in jobs_of(samples)] == ["v@0.5-1.5", "v@1-", "v", "w"]
    assert [job.id for job in jobs_of(samples, whole_videos=True)] == ["v", "w"]
    done = extract(encoder, samples, tmp_path, Rate(0.4, 0.3), quiet=True)
    store = open_vectors(tmp_path)
    assert (done.num_videos, store.ids) == (4, ["v@0.5-1.5", "v@1-", "v", "w"])
    # Seconds of the video, up to the end of the part.
    np.testing.assert_allclose(store.spans("v@0.5-1.5"), [[0.5, 0.9], [0.8, 1.2], [1.1, 1.5]], atol=1e-9)
    for name in ("v@0.5-1.5", "v@1-"):
        np.testing.assert_allclose(
            store.rows(name), by_hand(encoder, videos[0].path, store.spans(name)), atol=2e-3, err_msg=name
        )
    np.testing.assert_allclose(store.spans("v@1-")[0], [1.0, 1.4])
    assert store.spans("v@1-")[-1, 1] == pytest.approx(store.spans("v")[-1, 1])


def test_one_id_for_two_files_is_refused(videos: Samples) -> None:
    clash = Samples([Sample("a", "1.mp4", video="v"), Sample("b", "2.mp4", video="v")], [], "list.csv")
    with pytest.raises(SsanError, match=r"two videos have the id 'v': 1\.mp4 and 2\.mp4"):
        jobs_of(clash)


# -------------------------------------------------------------------------------------------------- what cannot be done


@pytest.mark.slow
def test_a_bad_video_is_listed_and_the_work_goes_on(encoder: Encoder, videos: Samples, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_text("this is no video")
    listed = videos.kept(
        [
            Sample("broken", str(broken)),
            *videos[:2],
            Sample("gone", str(tmp_path / "gone.mp4"), exists=False),
            Sample("late", videos[0].path, start_seconds=90.0, end_seconds=95.0),
        ]
    )
    for workers in (0, 2):
        out = tmp_path / f"f{workers}"
        done = extract(encoder, listed, out, RATE, workers=workers, quiet=True)
        assert open_vectors(out).ids == [sample.id for sample in videos[:2]]
        failed = {error.path: (error.code, error.message) for error in done.failed}
        assert {path: code for path, (code, _) in failed.items()} == {
            str(broken): "not_video", str(tmp_path / "gone.mp4"): "missing", videos[0].path: "too_few_frames",
        }  # fmt: skip
        assert "the part 'late@90-95'" in failed[videos[0].path][1]


def test_features_that_are_not_finite_are_a_fault_of_the_video(
    encoder: Encoder, videos: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = encoder.model.features, []

    def spoiled(clips: torch.Tensor) -> torch.Tensor:
        calls.append(clips)
        return whole(clips) / (0 if len(calls) == 2 else 1)

    monkeypatch.setattr(encoder.model, "features", spoiled)
    done = extract(encoder, videos, tmp_path, RATE, batch=64, quiet=True)
    assert [(error.code, error.path) for error in done.failed] == [("nan", videos[1].path)]
    assert open_vectors(tmp_path).ids == [sample.id for n, sample in enumerate(videos) if n != 1]


def test_other_features_than_the_stores_are_refused_before_the_work(
    encoder: Encoder, videos: Samples, tmp_path: Path
) -> None:
    extract(encoder, videos.kept(videos[:1]), tmp_path, RATE, quiet=True)
    with pytest.raises(UsageError, match=r"stride_seconds is 0\.3 there and 0\.5 here"):
        extract(encoder, videos, tmp_path, Rate(0.7, 0.5), quiet=True)
    with pytest.raises(UsageError, match="there are no videos"):
        extract(encoder, videos.kept([]), tmp_path, RATE, quiet=True)
    assert len(open_vectors(tmp_path)) == 1


@pytest.mark.parametrize("lengths", [(0, 1), (1, -1), (float("nan"), 1), (1, float("inf"))])
def test_rates_without_length_are_refused(lengths: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="expected a length in seconds above 0"):
        Rate(*lengths)


def test_more_windows_than_any_video_has_are_refused(encoder: Encoder, videos: Samples, tmp_path: Path) -> None:
    done = extract(encoder, videos.kept(videos[:1]), tmp_path, Rate(1, 1e-6), quiet=True)
    assert [error.code for error in done.failed] == ["decode_error"]
    assert "more than 100000 windows" in done.failed[0].message


# ------------------------------------------------------------------------------------------------------- models, rates


def test_the_usual_rates_are_those_of_reference_22() -> None:
    assert usual_rate(Preprocess(num_frames=1)) == Rate(1, 1)
    assert usual_rate(Preprocess(num_frames=8, sampling="dense", stride=8)) == Rate(64 / 24, 2 / 3)
    assert usual_rate(Preprocess()) == Rate(4, 2 / 3)
    assert usual_rate(Preprocess()).vectors_per_second == pytest.approx(1.5)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of an image network: the backbone of tsn_tiny, and a classifier of 11 classes."""
    torch.manual_seed(7)
    state = build("tsn_tiny", 11).backbone.state_dict()
    torch.save({**state, "fc.weight": torch.ones(11, 256), "fc.bias": torch.ones(11)}, tmp_path / "tiny.pth")
    return tmp_path / "tiny.pth"


def test_a_network_of_single_frames_sees_one_of_each_window(weights: Path, videos: Samples, tmp_path: Path) -> None:
    encoder = encoder_of_weights("tsn_tiny", str(weights))
    assert (encoder.preprocess.num_frames, encoder.preprocess.size_px, encoder.preprocess.crop_px) == (1, 55, 48)
    assert (encoder.preprocess.resize, encoder.dim, encoder.name) == ("short_side", 256, "tsn_tiny")
    state = torch.load(weights, weights_only=True)
    torch.testing.assert_close(encoder.model.backbone.conv1.weight.contiguous(), state["conv1.weight"])  # type: ignore[union-attr,operator]
    extract(encoder, videos.kept(videos[:1]), tmp_path / "f", usual_rate(encoder.preprocess), quiet=True)
    spans = open_vectors(tmp_path / "f").spans(videos[0].id)
    np.testing.assert_allclose(np.diff(spans[:, 0]), 1)


def test_weights_that_leave_layers_untrained_are_refused(weights: Path) -> None:
    with pytest.raises(ModelError, match=r"no weights for the layers of ssan_tiny that look across .* tsn_tiny"):
        encoder_of_weights("ssan_tiny", str(weights))


def test_resnet_152_has_its_features(tmp_path: Path) -> None:
    from ssan.models.catalogue import MODELS, without_memory

    with without_memory():
        model = build("tsn_r152", 1)
    assert "ssan_r152" in MODELS
    assert model.backbone.num_features == 2048
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 151 + 4  # and those of the short cuts


# ----------------------------------------------------------------------------------------------------- resumed, shared


def test_what_is_in_the_store_is_not_done_again(
    encoder: Encoder, videos: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(encoder, videos, tmp_path / "whole", RATE, quiet=True)
    extract(encoder, videos.kept(videos[:2]), tmp_path / "f", RATE, quiet=True)
    seen = []
    windows = Preprocess.windows

    def counted(self: Preprocess, path: str, **options: Any) -> Any:
        seen.append(path)
        return windows(self, path, **options)

    monkeypatch.setattr(Preprocess, "windows", counted)
    done = extract(encoder, videos, tmp_path / "f", RATE, quiet=True)
    assert (done.num_done_before, done.num_videos) == (2, 3)
    assert seen == [sample.path for sample in videos[2:]]
    assert content(tmp_path / "f") == content(tmp_path / "whole")
    again = extract(encoder, videos, tmp_path / "f", RATE, workers=2, quiet=True)
    assert (again.num_done_before, again.num_videos, again.num_vectors) == (5, 0, 0)


def command(model: Path, data: Path, out: Path) -> list[str]:
    rate = ["--window-seconds", 0.7, "--stride-seconds", 0.3, "--workers", 0, "--device", "cpu", "--json"]
    return [str(word) for word in ("extract", model, "--data", data, "--split", "train", "-o", out, *rate)]


@pytest.fixture(scope="module")
def uninterrupted(model_file: Path, order_set: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process that nobody stops makes of the training videos."""
    labeller, out = load_labeller(model_file), tmp_path_factory.mktemp("uninterrupted")
    encoder = Encoder(labeller.model, labeller.preprocess, labeller.hash, "ssan_tiny", 256)
    extract(encoder, read("sthv2", order_set, "train"), out, RATE, quiet=True)
    return content(out)


@pytest.mark.slow
def test_two_processes_under_torchrun_give_together_what_one_gives(
    ssan: Any, model_file: Path, order_set: Path, uninterrupted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num, words = len(uninterrupted), command(model_file, order_set, tmp_path)
    for rank in (1, 0):
        with monkeypatch.context() as patch:
            for name, value in {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2}.items():
                patch.setenv(name, str(value))
            answer = ssan(*words)
        assert answer.code == 0
        share = len(range(rank, num, 2))
        assert len((tmp_path / f"part-{rank}.jsonl").read_text().splitlines()) == share
        if rank == 0:
            assert (answer.json["process"], answer.json["processes"], answer.json["num_videos"]) == (0, 2, share)
        else:
            assert answer.out == ""
            assert f"{share} videos" in answer.err
    assert content(tmp_path) == uninterrupted
    alone = ssan(*words)
    assert (alone.json["num_done_before"], alone.json["num_videos"]) == (num, 0)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_stopped_in_the_middle_goes_on_and_gives_the_same(
    number: signal.Signals, ssan: Any, model_file: Path, order_set: Path, uninterrupted: Any, tmp_path: Path
) -> None:
    words = command(model_file, order_set, tmp_path)
    process = ForkedCommand(
        [sys.executable, "-m", "ssan", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines, deadline = tmp_path / "part-0.jsonl", time.monotonic() + 120
    while not (lines.exists() and lines.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), err
    assert out == ""
    if number != signal.SIGKILL:
        assert "interrupted; what is in" in err
        assert "Traceback" not in err
        assert '"event": "stopped"' in (tmp_path / "journal.jsonl").read_text()
    kept = content(tmp_path)
    assert 2 <= len(kept) < len(uninterrupted)
    assert all(uninterrupted[name] == rows for name, rows in kept.items())
    again = ssan(*words)
    assert (again.json["num_done_before"], again.json["num_videos"]) == (len(kept), len(uninterrupted) - len(kept))
    assert content(tmp_path) == uninterrupted


# --------------------------------------------------------------------------------------------------------- the command


def test_the_command_answers_as_the_contract_says(ssan: Any, model_file: Path, order_set: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    for sample in read("sthv2", order_set, "val")[:3]:
        shutil.copy(sample.path, tmp_path / "plain")
    (tmp_path / "plain" / "no.mp4").write_text("no video")
    answer = ssan(
        "extract", model_file, "--data", tmp_path / "plain", "-o", tmp_path / "f", "--workers", 0, "--device", "cpu",
        "--json",
    )  # fmt: skip
    assert answer.code == 1
    assert answer.json["schema"] == 1
    assert (answer.json["num_videos"], answer.json["num_done_before"], answer.json["dim"]) == (3, 0, 256)
    (failed,) = answer.json["failed"]
    assert (failed["path"], failed["code"], failed["line"]) == (str(tmp_path / "plain" / "no.mp4"), "not_video", None)
    for name in ("read_seconds", "compute_seconds", "write_seconds"):
        assert answer.json[name] >= 0
    store: Vectors = open_vectors(tmp_path / "f")
    assert answer.json["num_vectors"] == store.num_vectors
    assert store.provenance["vectors_per_second"] == pytest.approx(1.5)
    shown = ssan("extract", model_file, "--data", tmp_path / "plain", "-o", tmp_path / "f", "--workers", 0, "--quiet")
    assert shown.code == 1
    assert "0 videos, 0 vectors of 256, 1.5 a second; 3 were there, 1 failed" in shown.out
    assert "not_video" in shown.err


def test_the_command_takes_a_name_with_weights(ssan: Any, weights: Path, order_set: Path, tmp_path: Path) -> None:
    options = ["--data", order_set, "--split", "val", "-o", tmp_path / "f", "--workers", 0, "--json"]
    answer = ssan("extract", "tsn_tiny", "--init", weights, *options)
    assert (answer.code, answer.json["dim"]) == (0, 256)
    assert open_vectors(tmp_path / "f").provenance["vectors_per_second"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tsn_r152"], "tsn_r152 is the name of a network without weights; name a model file"),
        (["tsn_r125"], "Did you mean 'tsn_r152'"),
        (["absent.safetensors"], "absent.safetensors"),
        (["{model}", "--init", "x.pth"], "has its weights already; leave out --init"),
        (["tsn_tiny", "--init", "absent.pth"], "absent.pth"),
        (["{model}", "--stride-seconds", "0"], "stride_seconds is 0; expected"),
        (["{model}", "--split", "vall"], "Did you mean 'val'"),
    ],
)
def test_a_mistake_prints_one_line_that_names_it(
    arguments: list[str], said: str, ssan: Any, model_file: Path, order_set: Path, tmp_path: Path
) -> None:
    filled = [argument.format(model=model_file) for argument in arguments]
    answer = ssan("extract", *filled, "--data", order_set, "-o", tmp_path / "f", "--workers", 0)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert said in answer.err
    assert not (tmp_path / "f").exists()
