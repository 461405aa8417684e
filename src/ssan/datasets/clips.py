"""Dataset of clips, the only one: from a sample to the clip that a network sees, in training and in testing."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssan.datasets.samples import Sample
from ssan.errors import VideoError
from ssan.video.clip import Clip, Frame, FramePart, Part
from ssan.video.preprocess import Augmentation, Preprocess


def part_of(sample: Sample) -> Part | None:
    """The part of its video that a sample is; None for all of it."""
    start, end = sample.start_seconds, sample.end_seconds
    if isinstance(start, Frame) or isinstance(end, Frame):
        return FramePart(sample.start_frame or 0, sample.end_frame)
    return None if start is None and end is None else (start, end)


Item = tuple[Tensor, int] | VideoError


class TrainingClips(Dataset[Item]):
    """Randomly sampled, augmented clips; item (epoch, index) is the same whichever process or worker makes it."""

    def __init__(self, samples: Sequence[Sample], preprocess: Preprocess, augment: Augmentation, seed: int) -> None:
        self.samples, self.preprocess, self.augment, self.seed = samples, preprocess, augment, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: tuple[int, int]) -> Item:
        """A clip (t, 3, h, w) of type uint8 and its class, or the error that the video gave."""
        return self._augmented(draw, *self._read(draw))

    def __getitems__(self, draws: Sequence[tuple[int, int]]) -> list[Item]:
        """The items of a batch: the next video is read, which is another process's work, while one is augmented."""
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._read, draws[0])
            items = []
            for draw, following in zip(draws, [*draws[1:], None], strict=True):
                clip, rng = coming.result()
                if following is not None:
                    coming = ahead.submit(self._read, following)
                items.append(self._augmented(draw, clip, rng))
        return items

    def _read(self, draw: tuple[int, int]) -> tuple[Clip | VideoError, np.random.Generator]:
        sample, rng = self.samples[draw[1]], np.random.default_rng([self.seed, *draw])
        try:
            return self.preprocess.training_clip(sample.path, rng, part_of(sample)), rng
        except VideoError as error:
            return error, rng

    def _augmented(self, draw: tuple[int, int], clip: Clip | VideoError, rng: np.random.Generator) -> Item:
        if isinstance(clip, VideoError):
            return clip
        label = self.samples[draw[1]].label_index
        assert label is not None
        return self.augment.apply(clip.frames, label, rng)


class TestClips(Dataset[Item]):
    """The views of each video in a fixed order, (v, t, 3, h, w); a video without label has class -1."""

    __test__ = False  # not a test, whatever its name says to pytest

    def __init__(
        self,
        samples: Sequence[Sample],
        preprocess: Preprocess,
        *,
        num_views: int = 1,
        num_crops: Literal[1, 3, 10] = 1,
    ) -> None:
        self.samples, self.preprocess, self.num_views, self.num_crops = samples, preprocess, num_views, num_crops

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: tuple[int, int]) -> Item:
        sample = self.samples[draw[1]]
        try:
            views, _ = self.preprocess.test_views(sample.path, self.num_views, self.num_crops, part_of(sample))
        except VideoError as error:
            return error
        return views, -1 if sample.label_index is None else sample.label_index


def collate(items: Sequence[Item]) -> tuple[Tensor, Tensor]:
    """Stack clips and classes; a video's error is raised here, in the process that trains."""
    for item in items:
        if isinstance(item, VideoError):
            raise item
    good = [item for item in items if not isinstance(item, VideoError)]
    return torch.stack([clip for clip, _ in good]), torch.tensor([label for _, label in good])


def collate_one_view(items: Sequence[Item]) -> tuple[Tensor, Tensor]:
    """As ``collate``, for videos with a single view each: (b, 1, t, 3, h, w) becomes (b, t, 3, h, w)."""
    clips, labels = collate(items)
    return clips.squeeze(1), labels


def collate_with_errors(items: Sequence[Item]) -> tuple[Tensor | None, list[VideoError | None]]:
    """Stack the views of the videos that could be read; for each item of the batch, what went wrong or None."""
    good = [item[0] for item in items if not isinstance(item, VideoError)]
    errors = [item if isinstance(item, VideoError) else None for item in items]
    # A single video may have many views: it is not copied.
    return (torch.stack(good) if len(good) > 1 else good[0][None]) if good else None, errors
