"""Description of a list of videos: how many, in which classes, how long, how large, and what is missing."""

import os
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ssan.datasets.doubts import doubts
from ssan.datasets.samples import Sample, Samples
from ssan.errors import VideoError
from ssan.video.mirror import flip_pairs
from ssan.video.reader import open_video

NUM_NAMED = 5
"""How many missing videos, and how many repeated captions, are named."""


def describe(samples: Samples, *, look: int = 50) -> dict[str, Any]:
    """Describe a list; of its videos only up to ``look`` are opened, spread evenly over those that are there.

    A sample is a line of the list; several can be about one video, as its parts or its captions. Balance counts samples
    with a label, over all classes of the data, also those that have none here. A caption is repeated where several
    videos have it, which in retrieval no model can tell apart.
    """
    videos: dict[str, Sample] = {}
    for sample in samples:
        videos.setdefault(video_of(sample), sample)
    missing = [sample.path for sample in videos.values() if not sample.exists]
    flips = flip_pairs(samples.classes)
    counts = count_classes(samples)
    per_split: dict[str, Counter[str]] = {}
    for sample in samples:
        per_split.setdefault(sample.split or "", Counter())["num_samples"] += 1
    for sample in videos.values():
        per_split[sample.split or ""]["num_videos"] += 1
        per_split[sample.split or ""]["num_missing"] += not sample.exists
    parts = [sample for sample in samples if not sample.is_whole]
    counted = [sample.end_frame - (sample.start_frame or 0) for sample in parts if sample.end_frame is not None]
    bounded = [end - (start or 0) for start, end in (sample.seconds for sample in parts) if end is not None]
    captions = [(video_of(sample), sample.caption) for sample in samples if sample.caption is not None]
    videos_with: dict[str, set[str]] = {}
    for video, caption in captions:
        videos_with.setdefault(caption, set()).add(video)
    repeated = sorted((-len(homes), caption) for caption, homes in videos_with.items() if len(homes) > 1)
    return {
        "num_videos": len(videos),
        "num_samples": len(samples),
        "num_missing": len(missing),
        "first_missing": missing[:NUM_NAMED],
        "splits": {
            split: {key: per_split[split][key] for key in ("num_videos", "num_samples", "num_missing")}
            for split in sorted(per_split, key=_order_of_split)
        },
        "num_classes": len(samples.classes),
        "classes": samples.classes,
        "class_counts": counts,
        "num_unlabelled": sum(sample.label_index is None for sample in samples),
        "balance": balance(counts),
        "flip_pairs": [list(pair) for pair in flips.pairs],
        "flip_pair_labels": [[samples.classes[a], samples.classes[b]] for a, b in flips.pairs],
        "directed_without_partner": sorted(flips.directed - set(flips.partner)),
        "num_frames_listed": spread(sample.num_frames for sample in samples if sample.num_frames is not None),
        "num_parts": len(parts),
        "part_seconds": spread(bounded),
        "part_frames": spread(counted),
        "num_captions": len(captions),
        "caption_words": spread(len(caption.split()) for _, caption in captions),
        "captions_per_video": spread(Counter(video for video, _ in captions).values()),
        "num_repeated_captions": len(repeated),
        "repeated_captions": [{"caption": text, "num_videos": -num} for num, text in repeated[:NUM_NAMED]],
        "warnings": doubts(samples),
        "looked_at": _looked_at(evenly([sample.path for sample in videos.values() if sample.exists], look)),
    }


def video_of(sample: Sample) -> str:
    """What tells the videos of a list apart: the id of its features where there is one, else the path."""
    return sample.path if sample.video is None else sample.video


def count_classes(samples: Samples) -> list[int]:
    """The number of samples of each class, in the order of the class indices."""
    counts = Counter(sample.label_index for sample in samples)
    return [counts[index] for index in range(len(samples.classes))]


def balance(counts: Sequence[int]) -> dict[str, Any] | None:
    """How evenly samples are spread over classes; None where there are no classes.

    ``ratio`` is largest to smallest, None where the smallest has none. Of equal ones the first class is named.
    """
    if not counts:
        return None
    smallest, largest = (pick(range(len(counts)), key=counts.__getitem__) for pick in (min, max))
    return {
        "smallest": {"class": smallest, "num": counts[smallest]},
        "largest": {"class": largest, "num": counts[largest]},
        "median": statistics.median(counts),
        "ratio": round(counts[largest] / counts[smallest], 3) if counts[smallest] else None,
        "num_empty": sum(count == 0 for count in counts),
    }


def spread(values: Iterable[float]) -> dict[str, Any] | None:
    """The number of values, the smallest, the median, the largest; None where there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    low, middle, high = ordered[0], statistics.median(ordered), ordered[-1]
    return {"num": len(ordered), "smallest": round(low, 3), "median": round(middle, 3), "largest": round(high, 3)}


def evenly(paths: Sequence[str], most: int) -> list[str]:
    """At most so many of them, spread evenly, in their order."""
    num = min(most, len(paths))
    return [paths[(2 * number + 1) * len(paths) // (2 * num)] for number in range(num)]


def _looked_at(paths: Sequence[str]) -> dict[str, Any]:
    """Open videos and decode the first frame of each."""
    frames, seconds, rates = [], [], []
    sizes: Counter[tuple[int, int]] = Counter()
    failed = []
    for path in paths:
        try:
            with open_video(path) as video:
                sizes[video.size_px] += 1
                frames.append(video.num_frames)
                seconds.append(video.duration_seconds)
                if video.duration_seconds > 0:
                    rates.append(video.num_frames / video.duration_seconds)
        except VideoError as error:
            failed.append(error.as_dict())
    return {
        "num_videos": len(paths),
        "num_failed": len(failed),
        "failed": failed[:NUM_NAMED],
        "num_frames": spread(frames),
        "duration_seconds": spread(seconds),
        "frames_per_second": spread(rates),
        "sizes_px": [{"width": width, "height": height, "num": num} for (height, width), num in sizes.most_common()],
        "num_folders": sum(map(os.path.isdir, paths)),
    }


def _order_of_split(split: str) -> int:
    return ["train", "val", "test", ""].index(split)
