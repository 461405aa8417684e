"""Audit of a list of videos: each is looked at before a run depends on it.

Each distinct video is looked at once, several side by side in processes apart, and what is found is remembered as it
comes (``ssan.datasets.audit_cache``), so that a check that was interrupted goes on, and an unchanged video is not
looked at again. What the list says is then held against it: parts and numbers of frames that are not there, and videos
that are the same file under two names.
"""

import csv
import io
import os
import queue
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from tqdm import tqdm

from ssan.datasets.audit_cache import Memory, stamp
from ssan.datasets.samples import Sample
from ssan.errors import SsanError, VideoError, printable, quoted
from ssan.files import is_text, sha256, writing
from ssan.processes import num_cores, share_memory_among
from ssan.video.clip import existing_path
from ssan.video.container_length import announced_bytes
from ssan.video.reader import OwnReader, open_video

Depth = Literal["open", "whole"]


@dataclass(frozen=True)
class Look:
    """What looking at one video has shown, whatever a list says of it.

    ``usable`` is a video that opens and of which the first frame decodes: a truncated one can still be trained on.
    ``code`` and ``message`` say what is wrong with it, if anything is. ``frames_decoded`` is None where not all frames
    were looked at, to the end.
    """

    usable: bool
    code: str | None = None
    message: str = ""
    frames_promised: int | None = None
    frames_decoded: int | None = None
    at_seconds: float | None = None
    duration_seconds: float | None = None

    def error(self, path: str) -> VideoError:
        message = self.message
        return VideoError(message, code=self.code, path=path)

    @property
    def is_final(self) -> bool:
        """Whether looking again would find the same; what a limit of time or memory or the system ended would not."""
        return self.code not in ("missing", "decode_error") or self.frames_decoded is not None


@dataclass(frozen=True)
class Finding:
    """What a check says of one video: the answer of ``ssan data check``, and the samples that it speaks of.

    :param rejected: ids of those of its samples that cannot be used as the list says.
    """

    path: str
    ok: bool
    code: str | None
    message: str
    frames_promised: int | None
    frames_decoded: int | None
    at_seconds: float | None
    same_as: str | None = None
    look: Look = field(default_factory=lambda: Look(True))
    samples: tuple[Sample, ...] = ()
    rejected: frozenset[str] = frozenset()

    def as_dict(self) -> dict[str, Any]:
        names = ("path", "ok", "code", "message", "frames_promised", "frames_decoded", "at_seconds", "same_as")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Fault:
    """A sample that cannot be used, and why."""

    sample: Sample
    error: SsanError


@dataclass(frozen=True)
class Audit:
    """What a check has found: a finding for each distinct video, in the order of the list.

    :param memory: the file in which that is remembered; None where nowhere.
    """

    samples: Sequence[Sample]
    findings: list[Finding]
    num_remembered: int
    memory: Path | None

    @property
    def unusable(self) -> list[Fault]:
        """The samples whose video does not open, has no frame that decodes, or ends before their part, in order."""
        bad: dict[str, SsanError] = {}
        for found in self.findings:
            for sample in found.samples:
                if not found.look.usable:
                    bad[sample.id] = found.look.error(sample.path)
                elif (message := _begins_too_late(sample, found.look)) is not None:
                    bad[sample.id] = VideoError(message, code="too_few_frames", path=sample.path)
        return [Fault(sample, bad[sample.id]) for sample in self.samples if sample.id in bad]

    @property
    def damaged(self) -> list[Finding]:
        """Videos that are known to be truncated or damaged further in, and are usable as far as they decode."""
        return [found for found in self.findings if found.look.usable and found.look.code is not None]

    @property
    def clean(self) -> list[Sample]:
        """The samples with which nothing is wrong, in their order."""
        rejected = {identity for found in self.findings for identity in found.rejected}
        return [sample for sample in self.samples if sample.id not in rejected]


def audit(
    samples: Sequence[Sample],
    *,
    depth: Depth = "open",
    workers: int | None = None,
    memory: str | Path | None = None,
    again: bool = False,
    compare: bool = False,
    quiet: bool = False,
) -> Audit:
    """Look at each video of a list.

    :param depth: ``open`` finds its length and decodes its first frame; ``whole`` decodes every frame.
    :param workers: how many videos to look at side by side; by default one for each core that may be used.
    :param memory: the file that remembers; by default one in the user's folder for caches.
    :param again: look at videos again that have not changed since they were looked at.
    :param compare: find files with the same bytes too, which reads those that have the same length.
    """
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(os.path.abspath(sample.path), []).append(sample)
    paths = [group[0].path for group in groups.values()]
    looks: list[Look | None] = [None] * len(paths)
    stamps: list[str | None] = []
    workers = max(1, num_cores() if workers is None else workers)
    silent = quiet or not sys.stderr.isatty()
    with Memory(memory, quiet=quiet) as remembered:
        for index, path in enumerate(paths):
            stamps.append(stamp(path))
            known = None if again else _recall(remembered, path, stamps[index], depth)
            looks[index] = known or _not_there(path, stamps[index])
        num_remembered = sum(look is not None and look.code != "missing" for look in looks)
        unknown = [index for index, look in enumerate(looks) if look is None]
        # A process apart takes as long to start as some fifty videos to open.
        most = workers if depth == "whole" else 1 + len(unknown) // 50
        with (
            tqdm(
                total=len(paths), initial=len(paths) - len(unknown), desc="checking videos", unit="video",
                disable=silent, file=sys.stderr, leave=False,
            ) as bar,
            closing(_side_by_side(lambda index: look_at(paths[index], depth), unknown, min(workers, most))) as found,
        ):  # fmt: skip
            for index, look in found:
                looks[index] = look
                mark = stamps[index]
                if mark is not None and look.is_final:
                    remembered.keep(paths[index], mark, asdict(look), whole=depth == "whole")
                bar.update()
        twins = _twins(paths, stamps, remembered, workers) if compare else {}
        memory_path = None if remembered.problem else remembered.path
    findings, listed = [], list(groups.values())
    for index, group in enumerate(listed):
        seen = looks[index]
        assert seen is not None
        findings.append(_judged(seen, group, listed[twins[index]] if index in twins else None))
    return Audit(samples, findings, num_remembered, memory_path)


def look_at(path: str, depth: Depth) -> Look:
    """Look at one video, by its first frame or by all."""
    wrong: VideoError | None = None
    try:
        with open_video(path) as video:
            promised, seconds = video.num_promised, video.duration_seconds
            try:
                _ = video.size_px
            except VideoError as error:
                wrong = error
            usable = wrong is None
            if depth == "open":
                return _look(usable, wrong, promised, None, None, seconds)
            try:
                found = video.examine()
            except VideoError as error:
                return _look(usable, wrong or error, promised, None, None, seconds)
            return _look(
                usable, found.error or wrong, found.frames_promised, found.frames_decoded, found.at_seconds, seconds
            )
    except VideoError as error:
        return _look(False, _cut_off(path, error) if error.code == "not_video" else error)


def _look(
    usable: bool,
    wrong: SsanError | None,
    promised: int | None = None,
    decoded: int | None = None,
    at_seconds: float | None = None,
    duration_seconds: float | None = None,
) -> Look:
    code, message = (wrong.code, wrong.message) if wrong else (None, "")
    return Look(usable, code, message, promised, decoded, at_seconds, duration_seconds)


def _cut_off(path: str, error: VideoError) -> VideoError:
    """Why a file does not open: an mp4 whose list of frames is at its end does not when that end is lacking."""
    try:
        size, announced = os.stat(path).st_size, announced_bytes(path) or 0
    except OSError:
        return error
    if size >= announced:
        return error
    return VideoError(
        f"only {size:,} of {announced:,} bytes are there, and without the rest it does not open; expected the whole "
        "file. Copy or download it again",
        code="truncated",
        path=path,
    )


def _not_there(path: str, mark: str | None) -> Look | None:
    """What needs no looking: a path at which there is no file."""
    if mark is None:
        try:
            existing_path(path)
        except VideoError as error:
            return _look(False, error)
    return None


def _recall(memory: Memory, path: str, mark: str | None, depth: Depth) -> Look | None:
    kept = None if mark is None else memory.finding(path, mark, whole=depth == "whole")
    return None if kept is None else Look(**kept)


Task = TypeVar("Task")
Answer = TypeVar("Answer")


def _side_by_side(do: Callable[[Task], Answer], tasks: Iterable[Task], num: int) -> Generator[tuple[Task, Answer]]:
    """Do many tasks, ``num`` at a time, each on a thread with a reader of its own; give the answers as they come.

    Closing it, as an interruption does, ends what the readers are at.
    """
    todo: queue.SimpleQueue[Task] = queue.SimpleQueue()
    for task in tasks:
        todo.put(task)
    if num <= 1:
        while not todo.empty():
            task = todo.get()
            yield task, do(task)
        return
    done: queue.SimpleQueue[tuple[Task, Answer] | None] = queue.SimpleQueue()
    share_memory_among(num)
    readers = [OwnReader() for _ in range(num)]

    def work(own: OwnReader) -> None:
        with own:
            while not own.ended:
                try:
                    task = todo.get_nowait()
                except queue.Empty:
                    return
                done.put((task, do(task)))

    with ThreadPoolExecutor(num) as pool:
        threads = [pool.submit(work, own) for own in readers]
        for thread in threads:
            thread.add_done_callback(lambda _: done.put(None))
        try:
            running = num
            while running:
                answer = done.get()
                if answer is not None:
                    yield answer
                    continue
                running -= 1
                for thread in threads:
                    if thread.done():
                        thread.result()  # raises what a thread has raised
        finally:
            for own in readers:
                own.end()


def _twins(paths: Sequence[str], stamps: Sequence[str | None], memory: Memory, workers: int) -> dict[int, int]:
    """Of each file that has the bytes of an earlier one: the number of the first with them, both by their order."""
    sizes: dict[int, list[int]] = {}
    for index, mark in enumerate(stamps):
        if mark is not None and os.path.isfile(paths[index]) and (size := os.path.getsize(paths[index])):
            sizes.setdefault(size, []).append(index)
    alike = [index for indices in sizes.values() if len(indices) > 1 for index in indices]
    hashes = {index: known for index in alike if (known := memory.hash(paths[index], str(stamps[index])))}
    unknown = [index for index in alike if index not in hashes]
    with closing(_side_by_side(lambda index: _hash(paths[index]), unknown, min(workers, len(unknown)))) as found:
        for index, digest in found:
            if digest is not None:
                hashes[index] = digest
                memory.keep_hash(paths[index], str(stamps[index]), digest)
    first: dict[str, int] = {}
    twins = {}
    for index in sorted(hashes):
        original = first.setdefault(hashes[index], index)
        if original != index:
            twins[index] = original
    return twins


def _hash(path: str) -> str | None:
    try:
        return sha256(path)
    except OSError:  # gone or locked since; the look at it says so
        return None


def _judged(look: Look, samples: Sequence[Sample], original: Sequence[Sample] | None) -> Finding:
    """Hold against what a look has shown what the list says of a video, and of the ``original`` with the same bytes."""
    path = samples[0].path
    same_as = None if original is None else original[0].path
    code, message = look.code, look.message
    rejected = {sample.id for sample in samples} if code else set()
    homes = _homes(samples)
    if code is None:
        misfits = {sample.id: why for sample in samples if (why := _misfit(sample, look))}
        elsewhere = [sample for sample in samples if sample.is_whole and _home(sample) != homes[0]]
        if misfits:
            others = f" (and {len(misfits) - 1} more like it)" if len(misfits) > 1 else ""
            code, message = "too_few_frames", next(iter(misfits.values())) + others
            rejected = set(misfits)
        elif elsewhere and samples[0].is_whole:
            code = "duplicate"
            message = (
                f"it is listed {_spoken(homes[0])} and again {_spoken(_home(elsewhere[0]))}; expected every video in "
                "one split, with one label. Leave out all but one"
            )
            rejected = {sample.id for sample in elsewhere}
        elif original is not None and (there := _homes(original)) != homes:
            code = "duplicate"
            message = (
                f"it has the same bytes as {printable(original[0].path)}, which is listed {_spoken(there[0])}; this "
                f"one is listed {_spoken(homes[0])}. Expected every video in one split, with one label. Leave one out"
            )
            rejected = {sample.id for sample in samples}
    ok = not rejected
    if ok and original is not None:
        code, message = "duplicate", f"it has the same bytes as {printable(original[0].path)}; both can be used"
    return Finding(
        path,
        ok,
        code,
        message,
        look.frames_promised,
        look.frames_decoded,
        look.at_seconds,
        same_as,
        look,
        tuple(samples),
        frozenset(rejected),
    )


def _misfit(sample: Sample, look: Look) -> str | None:
    """What a list says of a video that the video has not got."""
    there = look.frames_promised
    if sample.end_frame is not None and there is not None and sample.end_frame > there:
        return _begins_too_late(sample, look) or (
            f"the part {quoted(sample.id)} ends with frame {sample.end_frame - 1}, the video has {there} frames; "
            "expected it to hold the part. Correct the list, or copy or extract the video again"
        )
    if sample.num_frames is not None and there is not None and sample.num_frames > there and os.path.isdir(sample.path):
        return (
            f"the list says {sample.num_frames} frames, the folder holds {there}; expected as many. Extract the frames "
            "again, or correct the list"
        )
    return _begins_too_late(sample, look)


def _begins_too_late(sample: Sample, look: Look) -> str | None:
    first, frames = sample.start_frame, look.frames_promised
    if first is not None and frames is not None and first >= frames:
        return (
            f"the part {quoted(sample.id)} begins with frame {first}, the video has {frames} frames; expected it to "
            "begin before. Correct the list, or copy or extract the video again"
        )
    (start, _), seconds = sample.seconds, look.duration_seconds
    if start is not None and seconds is not None and start >= seconds:
        return (
            f"the part {quoted(sample.id)} begins at {start:g} s, the video ends at {seconds:.2f} s; expected it to "
            "begin before. Correct the list, or copy or download the video again"
        )
    return None


Home = tuple[str | None, str | None]
"""The split and the label under which a video is listed."""


def _home(sample: Sample) -> Home:
    return sample.split, sample.label


def _homes(samples: Sequence[Sample]) -> list[Home]:
    """The different homes of a video, in the order of the list."""
    return list(dict.fromkeys(map(_home, samples)))


def _spoken(home: Home) -> str:
    split, label = home
    where = f"in the split {split!r}" if split else "in no split"
    return f"{where} with the label {quoted(label)}" if label is not None else f"{where} without a label"


def as_csv(rows: Iterable[Sequence[object]]) -> str:
    """Rows of values as text; the module itself puts no quotes around a lone carriage return, which ends a line."""
    text = io.StringIO()
    plain, careful = (
        csv.writer(text, lineterminator="\n", quoting=quoting) for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
    )
    for row in rows:
        (careful if any("\r" in str(value) for value in row) else plain).writerow(row)
    return text.getvalue()


def write_skipped(path: str | Path, faults: Sequence[Fault]) -> None:
    """Write ``skipped.csv``: one line for each video left out, with its id, path, code and cause."""
    rows = [[fault.sample.id, fault.sample.path, fault.error.code, fault.error.message] for fault in faults]
    with writing(path) as handle:
        handle.write(as_csv([["id", "path", "code", "message"], *rows]))


LIST_COLUMNS = ("path", "label", "split", "id", "num_frames", "caption", "start_seconds", "end_seconds",
                "start_frame", "end_frame")  # fmt: skip


def write_list(
    path: str | Path, samples: Sequence[Sample], folder: str, beside: Mapping[str, Sequence[object]] | None = None
) -> list[Sample]:
    """Write samples as a list that ``read_csv`` reads, with paths relative to ``folder``; return those left out.

    Left out is what such a list cannot say: a path outside the folder, and names or labels that are not UTF-8 text or
    begin or end with a space.

    :param beside: further columns, which stand after the label, each with a value for each sample.
    """
    beside = beside or {}
    columns = [*LIST_COLUMNS[:2], *beside, *LIST_COLUMNS[2:]]
    rows: list[Sequence[object]] = [columns]
    left_out = []
    for place, sample in enumerate(samples):
        relative = os.path.relpath(sample.path, folder)
        words = [relative, sample.label or "", sample.id, sample.caption or ""]
        outside = relative == os.pardir or relative.startswith(os.path.join(os.pardir, ""))
        if outside or not all(is_text(word) and word == word.strip() for word in words):
            left_out.append(sample)
            continue
        row = {**sample.as_dict(), "path": relative, **{name: values[place] for name, values in beside.items()}}
        rows.append(["" if row[column] is None else row[column] for column in columns])
    with writing(path) as handle:
        handle.write(as_csv(rows))
    return left_out
