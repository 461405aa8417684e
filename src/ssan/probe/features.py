"""The frozen features of clips, kept in a store: whatever was computed once is read back."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ssan.datasets.clips import TestClips, collate_with_errors
from ssan.datasets.fingerprint import files_of
from ssan.datasets.samples import Sample
from ssan.errors import SsanError, UsageError, VideoError
from ssan.features.store import VectorWriter, open_vectors, part_id
from ssan.processes import terminable
from ssan.training.batches import Batches, BatchPlan
from ssan.training.environment import out_of_memory
from ssan.video.preprocess import Preprocess

KIND = "features of clips at each time, view by view"


@dataclass(frozen=True)
class Frozen:
    """A network whose features are looked at, and that is not trained.

    :param model: in evaluation mode, on the device where it is to compute: ``time_features``, or else ``features``.
    :param hash: of its weights.
    """

    model: nn.Module
    preprocess: Preprocess
    hash: str
    name: str
    dim: int


@dataclass
class ClipFeatures:
    """The features of clips, read from the store as they are asked for.

    :param ids: of each clip that has features, its entry in the store.
    :param failed: clips without, each with what was wrong.
    """

    store: Path
    num_views: int
    ids: list[str]
    samples: list[Sample]
    failed: list[tuple[Sample, SsanError]] = field(default_factory=list)
    num_done_before: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._vectors = open_vectors(self.store)
        self.dim = self._vectors.dim

    def times(self, item: int) -> np.ndarray:
        """All features of a clip, (views, times, dim), float16."""
        rows = self._vectors.rows(self.ids[item])
        if len(rows) % self.num_views:
            raise UsageError(
                f"{len(rows)} rows of {self.ids[item]!r} are not those of {self.num_views} views; name another folder",
                code="bad_annotation",
                path=str(self.store),
            )
        return rows.reshape(self.num_views, -1, self.dim)

    def pooled(self) -> np.ndarray:
        """The mean over time of each view of each clip, (clips, views, dim), float32."""
        found = np.empty((len(self.ids), self.num_views, self.dim), np.float32)
        for item in range(len(self.ids)):
            found[item] = self.times(item).mean(axis=1, dtype=np.float64)
        return found


def provenance(frozen: Frozen, num_views: int) -> dict[str, Any]:
    """What decides the features of a clip, beside its file."""
    return {
        "source": "ssan probe",
        "kind": KIND,
        "model": frozen.name,
        "hash": frozen.hash,
        "preprocess": frozen.preprocess.as_dict(),
        "views": num_views,
    }


def own_store(folder: str | Path, frozen: Frozen, num_views: int) -> Path:
    """Where in a run's folder these features are: those of another network, or of other frames, lie beside them."""
    described = json.dumps(provenance(frozen, num_views), sort_keys=True)
    return Path(folder) / hashlib.sha256(described.encode()).hexdigest()[:16]


def entries_of(samples: Sequence[Sample], root: str) -> list[str]:
    """The name in the store of each clip: its path below ``root``, its part, and the size and time of its file.

    A file that changes becomes another entry; a set that is moved, with its times, has the entries of before.
    """
    marks = files_of(samples).marks.tolist()
    names = []
    for sample, (size, changed) in zip(samples, marks, strict=True):
        part = part_id(os.path.relpath(sample.path, root), *sample.seconds)
        if sample.start_frame is not None or sample.end_frame is not None:
            part += f"#{sample.start_frame}-{sample.end_frame}"
        names.append(f"{part} {size:x}.{changed:x}")
    return names


def describe(
    frozen: Frozen,
    samples: Sequence[Sample],
    store: str | Path,
    *,
    root: str,
    num_views: int = 1,
    batch: int = 16,
    workers: int = 0,
    quiet: bool = False,
) -> ClipFeatures:
    """The features of all clips; those that the store lacks are computed, each written when it is done.

    Interrupted (Ctrl-C, SIGTERM) it raises ``KeyboardInterrupt``; what is in the store stays there, and the next call
    goes on.

    :param root: the folder of the data, below which a path tells clips apart.
    :param num_views: of each clip, spread over it as in ``ssan eval --views``.
    :param batch: clips, times views, that go through the network together.
    :raises UsageError: the store has features of another network, preprocessing or number of views.
    """
    began, store = time.perf_counter(), Path(store)
    names = entries_of(samples, root)
    failed: dict[int, SsanError] = {}
    with terminable(), VectorWriter(store, frozen.dim, provenance(frozen, num_views)) as writer:
        missing = [item for item, name in enumerate(names) if name not in writer.done]
        for item in missing:
            if not samples[item].exists:
                path = samples[item].path
                failed[item] = VideoError(
                    "there is no such file; look at --data and --videos", code="missing", path=path
                )
        # A clip may be listed for training and for testing: it is computed once.
        first_of = {names[item]: item for item in reversed(missing)}
        todo = [item for item in missing if item not in failed and first_of[names[item]] == item]
        if not quiet:
            rows = num_views * frozen.preprocess.num_frames
            print(
                f"features of {len(samples)} clips, {len(samples) - len(missing)} of them in {store}: {len(todo)} to "
                f"compute, {num_views} views of {frozen.preprocess.num_frames} frames, at most "
                f"{len(todo) * rows * frozen.dim * 2 / 1e6:.1f} MB",
                file=sys.stderr,
                flush=True,
            )
        if todo:
            clips = TestClips([samples[item] for item in todo], frozen.preprocess, num_views=num_views)
            plan = BatchPlan(len(todo), max(1, batch // num_views))
            silent = quiet or not sys.stderr.isatty()
            with tqdm(
                total=len(todo), desc="features", unit="clip", disable=silent, file=sys.stderr, leave=False
            ) as bar:
                loader = Batches(clips, plan, workers=workers, collate=collate_with_errors)
                for draws, (views, outcomes) in zip(list(plan), loader, strict=True):
                    items = [todo[draw.item] for draw in draws]
                    good = [item for item, error in zip(items, outcomes, strict=True) if error is None]
                    failed |= {item: error for item, error in zip(items, outcomes, strict=True) if error is not None}
                    rows_of = [] if views is None else _time_features(frozen.model, views, batch)
                    for item, rows_nd in zip(good, rows_of, strict=True):
                        error = _keep(writer, names[item], rows_nd, samples[item])
                        if error is not None:
                            failed[item] = error
                    bar.update(len(items))
    failed |= {item: failed[first_of[names[item]]] for item in missing if first_of[names[item]] in failed}
    _refuse_none(samples, failed, store)
    kept = [item for item in range(len(samples)) if item not in failed]
    return ClipFeatures(
        store,
        num_views,
        [names[item] for item in kept],
        [samples[item] for item in kept],
        [(samples[item], failed[item]) for item in sorted(failed)],
        len(samples) - len(missing),
        time.perf_counter() - began,
    )


@torch.inference_mode()
def _time_features(model: nn.Module, views: Tensor, batch: int) -> list[np.ndarray]:
    """Views (b, v, t, 3, h, w) to the features of each clip, (v * t', dim), on the CPU."""
    device = next(model.parameters()).device
    describing: Any = getattr(model, "time_features", None)
    try:
        parts = []
        for clips in views.flatten(0, 1).split(batch):
            clips = clips.to(device, non_blocking=True)
            found = model.features(clips)[:, None] if describing is None else describing(clips)  # type: ignore[operator]
            parts.append(found.float().cpu())
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise UsageError(
            f"out of memory with {batch} clips of {views.shape[2]} frames of {views.shape[-1]} px at a time; lower "
            "--batch, or use --device cpu"
        ) from error
    times = torch.cat(parts).unflatten(0, views.shape[:2])
    return list(times.flatten(1, 2).numpy())


def _keep(writer: VectorWriter, name: str, rows: np.ndarray, sample: Sample) -> SsanError | None:
    """Write the features of one clip; what makes this very clip unusable is returned.

    A row has no time of its own: all have the bounds of the part that the clip is, or none.
    """
    start, end = sample.seconds
    spans = np.tile(np.array([start or 0.0, max(start or 0.0, end or 0.0)]), (len(rows), 1))
    try:
        writer.add(name, rows, spans, sample.path)
    except SsanError as error:
        if error.code != "nan":
            raise
        return error
    return None


def _refuse_none(samples: Sequence[Sample], failed: dict[int, SsanError], store: Path) -> None:
    if len(failed) < len(samples):
        return
    first = next(iter(failed.values()))
    if all(error.code == "nan" for error in failed.values()):
        raise UsageError(
            f"the features of all {len(samples)} clips are NaN, infinite or beyond float16, so the model's weights are "
            "unusable; take another model",
            code="nan",
        )
    raise UsageError(
        f"none of {len(samples)} clips can be used; first: {first}. Look at --data and --videos", path=str(store)
    )
