"""Our loader against others: clips a second, workers and all, on the same files and for the same batches.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.loader [--videos DIR] [--tsm CHECKOUT]

A clip is 8 frames, one drawn from each of 8 segments, resized to 256 x 256, TSN's multi-scale crop to 224; four make a
batch. Ours are ``TrainingClips`` in ``Batches``, as training uses them. PyAV in sequence, decord and torchcodec stand
in a dataset with our sampling and our augmentation in torch's own loader; each is told to resize while it decodes, and
told the number of frames, which ours has to find out. On JPEG frames the peer is the dataset code of TSM's repository
with its own transforms, out of CHECKOUT (a clone of github.com/mit-han-lab/temporal-shift-module; it needs
torchvision, whose two operators are declared first). Its clips are normalised floats and ours bytes, each as its
training wants them.

A turn is one pass of a loader, whose workers live on, over a list of videos; all loaders take turns. The figure is the
rate over PyAV's in the same round (over TSM's for JPEG), the median of the rounds, and that of the best rounds; beside
it how much processor time its workers take for a clip, over the base's, which other work on the machine disturbs less.
Memory is that of a worker and of the process that decodes for it, what is theirs alone (USS), after the rounds; with
two workers, because a single one also owns what its parent has written to since.

DIR adds real videos (each file a list by itself is short: they are repeated). What is not installed is blank. Writes
benchmarks/results/loader.json.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.speed import decode
from benchmarks.timing import RESULTS, machine
from ssan.datasets.clips import TrainingClips, collate
from ssan.datasets.samples import Sample
from ssan.files import write_json
from ssan.training.batches import Batches, BatchPlan
from ssan.video.preprocess import Augmentation, Preprocess, segment_indices
from ssan.video.reader import open_video, read_clip

OUT = RESULTS / "loader.json"
NUM_FRAMES, SIZE_PX, CROP_PX, BATCH = 8, 256, 224, 4
BASE, BASE_OF_JPEG = "PyAV in sequence", "TSM"
# Kind: the rendered file, and how many clips a turn has.
KINDS = {
    "h264 340x256": ("h264_340x256_10s.mp4", 16),
    "h264 340x256, short groups": ("h264_340x256_g12.mp4", 16),
    "vp9 427x240": ("vp9_427x240_4s.webm", 24),
    "h264 1920x1080": ("h264_1080p_10s.mp4", 8),
    "mpeg4 320x240, avi": ("mpeg4_320x240_10s.avi", 24),
    "jpeg 427x240": ("vp9_427x240_4s.webm", 32),
}
# Real files of these kinds, by what their names contain.
REAL = {
    "h264 340x256, real": ("mmaction2/demo__demo.mp4", "rawvideo_dataset__part_0.mp4"),
    "vp9 427x240, real": ("task41/1.webm", "task41/2.webm", "task5/"),
    "mpeg4, avi, real": ("tests__data__test.avi",),
}


def augmentation() -> Augmentation:
    return Augmentation(crop="multi_scale", crop_px=CROP_PX)


class Peer(Dataset[tuple[Tensor, int]]):
    """Another reader's clips, with our sampling and our augmentation."""

    def __init__(
        self, paths: Sequence[str], counts: Sequence[int], read: Callable[[str, list[int]], np.ndarray]
    ) -> None:
        self.paths, self.counts, self.read = paths, counts, read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        rng = np.random.default_rng([0, item])
        pictures = self.read(self.paths[item], segment_indices(self.counts[item], NUM_FRAMES, rng=rng))
        return augmentation().apply(torch.from_numpy(pictures).permute(0, 3, 1, 2), 0, rng)


@cache
def declare_operators() -> torch.library.Library:
    """Let torchvision's wheel for CUDA be imported beside a torch for the CPU, which lacks two operators of its."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # declared already
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def with_pyav(path: str, indices: list[int]) -> np.ndarray:
    return decode.pyav(path, indices, (SIZE_PX, SIZE_PX))


def with_decord(path: str, indices: list[int]) -> np.ndarray:
    return decode.decord(path, indices, (SIZE_PX, SIZE_PX))


def with_torchcodec(path: str, indices: list[int]) -> np.ndarray:
    declare_operators()  # its transforms import torchvision
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    reader = VideoDecoder(
        path, num_ffmpeg_threads=1, dimension_order="NHWC", transforms=[Resize(size=(SIZE_PX, SIZE_PX))]
    )
    return reader.get_frames_at(indices).data.numpy()


PEERS = {
    BASE: (with_pyav, "av"),
    "decord": (with_decord, "decord"),
    "torchcodec": (with_torchcodec, "torchcodec"),
}


def torch_loader(dataset: Dataset[Any], workers: int) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=BATCH, num_workers=workers, persistent_workers=True)


def our_loader(paths: Sequence[str], workers: int) -> Batches:
    samples = [Sample(f"{number}", path, "", 0) for number, path in enumerate(paths)]
    clips = TrainingClips(samples, Preprocess(NUM_FRAMES, size_px=SIZE_PX, crop_px=CROP_PX), augmentation(), seed=0)
    return Batches(clips, BatchPlan(len(paths), BATCH), workers=workers, collate=collate)


def tsm_loader(checkout: Path, folders: Sequence[str], workers: int) -> DataLoader[Any]:
    """The data set of TSM's repository, its transforms and its options for training on RGB frames."""
    declare_operators()
    sys.path.insert(0, str(checkout))
    with contextlib.redirect_stdout(io.StringIO()):
        from ops import transforms  # type: ignore[import-not-found]
        from ops.dataset import TSNDataSet  # type: ignore[import-not-found]
        from torchvision.transforms import Compose

        listed = Path(folders[0]).parent / f"list{len(folders)}.txt"
        listed.write_text("".join(f"{Path(f).name} {len(os.listdir(f))} 0\n" for f in folders))
        steps = [
            transforms.GroupMultiScaleCrop(CROP_PX, [1, 0.875, 0.75, 0.66]),
            transforms.Stack(roll=False),
            transforms.ToTorchFormatTensor(div=True),
            transforms.GroupNormalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
        dataset = TSNDataSet(
            str(listed.parent), str(listed), num_segments=NUM_FRAMES, image_tmpl="{:05d}.jpg", transform=Compose(steps)
        )
    return torch_loader(dataset, workers)


@cache
def num_frames(path: str) -> int:
    with open_video(path) as video:
        return video.num_frames


def extract(path: Path, folder: Path) -> Path:
    """The frames of a video as Something-Something V1 has them."""
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        frames = read_clip(path, lambda n: range(n)).frames.permute(0, 2, 3, 1).contiguous().numpy()
        for number, frame in enumerate(frames, start=1):
            (folder / f"{number:05d}.jpg").write_bytes(simplejpeg.encode_jpeg(frame, quality=95))
    return folder


def one_pass(loader: Iterable[Any]) -> int:
    return sum(len(labels) for _, labels in loader)


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    direct = [int(word) for word in children.read_text().split()] if children.exists() else []
    return [each for child in direct for each in [child, *descendants(child)]]


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own_megabytes(pid: int) -> float:
    """Memory of a process that it shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024 / 1e6


def serve(make: Callable[[], Any], pipe: Connection) -> None:
    """A process with one loader: a pass whenever told to, its clips a second as the answer; in the end its memory."""
    try:
        loader = make()
        one_pass(loader)
    except Exception as error:  # noqa: BLE001 - another project may raise anything
        pipe.send(f"{type(error).__name__}: {str(error)[-300:]}")
        return
    pipe.send(None)
    while pipe.recv():
        workers = descendants(os.getpid())
        began, used = time.perf_counter(), sum(map(processor_seconds, workers))
        count = one_pass(loader)
        pipe.send((count / (time.perf_counter() - began), (sum(map(processor_seconds, workers)) - used) / count))
    pipe.send(sum(map(own_megabytes, descendants(os.getpid()))))


def measure(
    kind: str, loaders: dict[tuple[str, int], Callable[[], Any]], base: str, rounds: int
) -> list[dict[str, Any]]:
    """A row for each loader and number of workers: its rate relative to the base's, and what a worker of it holds."""
    pipes, processes, rates = {}, [], {}
    for key, make in loaders.items():
        pipe, other = Pipe()
        processes.append(Process(target=serve, args=(make, other)))
        processes[-1].start()
        problem = pipe.recv()
        if problem is None:
            pipes[key], rates[key] = pipe, []
        else:
            print(f"{kind}: {key[0]}: {problem}", file=sys.stderr)
    keys = list(pipes) if (base, 1) in pipes else []
    for turn in range(rounds):
        for key in keys[turn % len(keys) :] + keys[: turn % len(keys)]:
            pipes[key].send(True)
            rates[key].append(pipes[key].recv())
    rows = []
    for key in keys:
        name, workers = key
        pipes[key].send(False)
        own, reference = (np.array(rates[of]).T for of in (key, (base, workers)))  # rate, and work for a clip
        rows.append({
            "kind": kind,
            "loader": name,
            "workers": workers,
            "rounds": rounds,
            "over": base,
            "ratio_median": round(float(np.median(own[0] / reference[0])), 3),
            "ratio_best": round(float(own[0].max() / reference[0].max()), 3),
            "work_median": round(float(np.median(own[1]) / np.median(reference[1])), 3),
            "megabytes_per_worker": round(pipes[key].recv() / workers, 1) if workers > 1 else None,
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    for process in processes:
        process.join()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, help="folder of real videos to read as well")
    parser.add_argument("--tsm", type=Path, metavar="CHECKOUT", help="a clone of TSM's repository")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "ssan_decode")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[""], help="parts of kinds' names")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    rendered = {path.name: path for path in decode.render(arguments.work)}
    lists: dict[str, list[str]] = {}
    for kind, (name, clips) in KINDS.items():
        if kind.startswith("jpeg"):
            frames = arguments.work / "frames"
            lists[kind] = [str(extract(rendered[name], frames / f"{number:03d}")) for number in range(clips)]
        else:
            lists[kind] = [str(rendered[name])] * clips
    if arguments.videos:
        found = sorted(path.as_posix() for path in arguments.videos.rglob("*"))
        for kind, parts in REAL.items():
            own = [path for path in found if any(part in path for part in parts) and Path(path).is_file()]
            lists[kind] = (own * 24)[:24] if own else []
    rows = []
    for kind, paths in lists.items():
        if not paths or not any(part in kind for part in arguments.only):
            continue
        loaders: dict[tuple[str, int], Callable[[], Any]] = {}
        counts = [num_frames(path) for path in paths]
        jpeg = kind.startswith("jpeg")
        for workers in (1, 2):
            loaders["ssan", workers] = partial(our_loader, paths, workers)
            if jpeg and arguments.tsm:
                loaders[BASE_OF_JPEG, workers] = partial(tsm_loader, arguments.tsm, paths, workers)
            for name, (read, module) in PEERS.items():
                if not jpeg and importlib.util.find_spec(module):
                    loaders[name, workers] = partial(torch_loader, Peer(paths, counts, read), workers)
        rounds = min(arguments.rounds, 3) if "1080" in kind else arguments.rounds
        rows += measure(kind, loaders, BASE_OF_JPEG if jpeg else BASE, rounds)
    if arguments.only == [""]:
        write_json(OUT, {"schema": 1, "machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
