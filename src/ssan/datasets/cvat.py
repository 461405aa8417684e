"""CVAT's exports (XML 1.1): tracks of a video, or tags of its frames. Source: CVAT's page on its XML format, 1.1."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ssan.datasets.markup import Element, elements
from ssan.datasets.media import MediaFiles
from ssan.datasets.samples import Samples
from ssan.datasets.spans import Span, annotation_files, label_of, samples_of
from ssan.datasets.splits import SplitRule
from ssan.datasets.tables import fault, number_of
from ssan.errors import UsageError, quoted

WHAT = "an export of CVAT, 'CVAT for video 1.1'"
ROOT = "annotations"
_STEP = re.compile(r"\s*(?:step\s*=\s*([0-9]{1,9}))?\s*")
_FRAME_NAME = re.compile(r"frame_([0-9]{1,9})")


def read_cvat(
    root: str,
    split: str,
    *,
    annotations: str | None = None,
    videos: str | None = None,
    attribute: str | None = None,
    frames: str | None = None,
    rule: SplitRule,
) -> Samples:
    """CVAT: ``annotations.xml`` of a task, a job or a project of videos, or all XML files in a folder.

    A track of 'CVAT for video 1.1' is a span for each time that its object is there: from a frame that is not
    ``outside`` to the next that is, which is in it no more. Tags of 'CVAT for images 1.1' on frames that follow each
    other are one span. Bounds are frames of the file, from 0, whatever rate it has. CVAT numbers those of the whole
    video, also where a task begins at ``start_frame`` or has every nth frame (``frame_filter``): a frame that was
    annotated then stands for itself and for those up to the next, but for none after ``stop_frame``.

    :param attribute: the name of an attribute whose values are the labels, not the names of CVAT's labels. Where the
        value changes a span ends and another begins.
    :param frames: ``task`` where frames are counted from the first of the task, one a step; ``video``, the default, as
        CVAT exports them.
    :raises UsageError: there is no file, or a task is not of a video.
    :raises AnnotationError: a file is malformed, or a frame is none of its task.
    """
    if frames not in (None, "video", "task"):
        raise UsageError(f"frames is {quoted(frames, 40)}; it must be 'video' or 'task'")
    files, folder = annotation_files(root, annotations, videos, ".xml", "export of CVAT")
    finder = MediaFiles(folder)
    spans: list[Span] = []
    notes: Counter[str] = Counter()
    for path in files:
        spans += _Export(path, attribute, frames == "task", finder, notes).spans()
    said = [f"{num} {what}" for what, num in notes.items()]
    return samples_of(spans, split, folder, annotations or root, rule, said)


@dataclass(slots=True)
class _Task:
    """What the export says of a task: its frames are ``start``, ``start + step`` and so on, ``stop`` the last."""

    about: dict[str, str]
    start: int
    stop: int | None
    step: int
    line: int


@dataclass(frozen=True, slots=True)
class _Shape:
    """An object in one frame of the video, where it may be out of sight."""

    frame: int
    outside: bool
    label: str


class _Export:
    """A file, of which one track at a time is kept, and of tags the numbers of their frames."""

    def __init__(
        self, path: str, attribute: str | None, counts_task: bool, finder: MediaFiles, notes: Counter[str]
    ) -> None:
        self.path, self._attribute, self._counts_task = path, attribute, counts_task
        self._finder, self._notes = finder, notes
        self._tasks: dict[str, _Task] = {}
        self._videos: dict[str, tuple[str, bool]] = {}
        self._about: dict[str, str] = {}  # of the task that is being read
        self._key = ""  # the task of the track or the image
        self._shapes: list[_Shape] = []
        self._values: dict[str, str] = {}  # attributes of the shape or the tag
        self._points: list[bool] = []  # whether those of a skeleton are outside
        self._image: dict[str, str] = {}
        self._tags: dict[tuple[str, str], set[int]] = {}

    def spans(self) -> Iterator[Span]:
        for element in elements(self.path, ROOT, WHAT):
            ended = element.text is not None
            match element.names[1:]:
                case ("meta", *_):
                    self._read_meta(element)
                case ("track",) if ended:
                    yield from self._of_track(element)
                case ("track",):
                    self._key, self._shapes = self._task(element), []
                case ("track", _) | ("image", "tag") if not ended:
                    self._values, self._points = {}, []
                case ("track", _):
                    self._shapes.append(self._shape(element))
                case ("track", _, "attribute") | ("image", "tag", "attribute"):
                    self._values[element.attributes.get("name", "")] = element.text or ""
                case ("track", _, _) if not ended and "outside" in element.attributes:
                    self._points.append(element.attributes["outside"] == "1")
                case ("image",) if not ended:
                    self._key, self._image = self._task(element), element.attributes
                case ("image", "tag"):
                    self._put_tag(element)
                case ("image", _) if not ended:
                    self._notes["shapes in single frames are no spans, and are left out"] += 1
        for (key, label), frames in self._tags.items():
            yield from self._of_tags(key, label, sorted(frames))

    # ------------------------------------------------------------------------------------------------------ tasks

    def _read_meta(self, element: Element) -> None:
        of_task = element.names[2:] in (("task",), ("job",), ("project", "tasks", "task"))
        if of_task and element.text is None:
            self._about = {}
        elif of_task:
            self._put_task(self._about, element.line)
        elif element.text is not None and element.names[-2] in ("task", "job"):
            self._about[element.names[-1]] = element.text

    def _put_task(self, about: dict[str, str], line: int) -> None:
        numbers: dict[str, int | None] = {}
        for name in ("start_frame", "stop_frame"):
            word = about.get(name) or None
            numbers[name] = None if word is None else number_of(word)
            if word is not None and numbers[name] is None:
                raise fault(f"{name} is {quoted(word, 40)}; expected a whole number", self.path, line)
        found = _STEP.fullmatch(about.get("frame_filter", ""))
        step = int(found[1] or 1) if found else 0
        if not step:
            raise fault(
                f"frame_filter is {quoted(about.get('frame_filter', ''), 40)}; expected 'step=N', from 1",
                self.path,
                line,
            )
        start = numbers["start_frame"] or 0
        self._tasks[about.get("id", "")] = _Task(about, start, numbers["stop_frame"], step, line)

    def _task(self, element: Element) -> str:
        """The id of the task that a track or an image is of."""
        if not self._tasks:
            raise fault(f"it says nothing of its task (<meta>); expected {WHAT}", self.path, element.line)
        key = element.attributes.get("task_id")
        if key is None and len(self._tasks) == 1:
            return next(iter(self._tasks))
        if key is None or key not in self._tasks:
            raise fault(
                f"<{element.names[-1]}> is of the task {quoted(str(key), 40)}, which <meta> does not name; expected "
                f"{WHAT}",
                self.path,
                element.line,
            )
        return key

    def _video(self, key: str) -> tuple[str, bool]:
        if key not in self._videos:
            task = self._tasks[key]
            source = task.about.get("source") or ""
            if not source:
                raise UsageError(
                    f"the task {quoted(task.about.get('name', key), 80)} names no video (<source>); expected a task of "
                    "a video, not of pictures",
                    path=self.path,
                    line=task.line,
                )
            self._videos[key] = self._finder.locate([source], self.path, task.line)
        return self._videos[key]

    def _frame(self, word: str | None, key: str, line: int) -> int:
        """The frame of the video that a number in the file stands for."""
        task, number = self._tasks[key], number_of(word or "")
        if number is None:
            raise fault(f"a frame is {quoted(str(word), 40)}; expected a whole number, from 0", self.path, line)
        if self._counts_task:
            return task.start + number * task.step
        ahead = number - task.start
        beyond = task.stop is not None and number > task.stop + task.step
        if ahead < 0 or ahead % task.step or beyond:
            last = "" if task.stop is None else f" to {task.stop}"
            raise fault(
                f"frame {number} is none of its task, which has every {task.step}. frame from {task.start}{last}; "
                "where frames are counted from the task's first, say --reader frames=task",
                self.path,
                line,
            )
        return number

    def _after(self, frame: int, key: str) -> int:
        """The frame at which ends what a frame stands for."""
        task = self._tasks[key]
        return frame + task.step if task.stop is None else max(frame + 1, min(frame + task.step, task.stop + 1))

    # ------------------------------------------------------------------------------------------------------ spans

    def _label(self, element: Element, before: str) -> str:
        """The label of a shape or a tag; an attribute keeps its value until another is said."""
        if self._attribute is None:
            return label_of(element.attributes.get("label", ""))
        return label_of(self._values.get(self._attribute, before))

    def _shape(self, element: Element) -> _Shape:
        outside = element.attributes.get("outside")
        hidden = outside == "1" if outside is not None else bool(self._points) and all(self._points)
        before = self._shapes[-1].label if self._shapes else ""
        frame = self._frame(element.attributes.get("frame"), self._key, element.line)
        if self._shapes and frame <= self._shapes[-1].frame:
            raise fault(
                f"frame {frame} of a track follows frame {self._shapes[-1].frame}; expected them in the order of time",
                self.path,
                element.line,
            )
        return _Shape(frame, hidden, "" if self._attribute is None else self._label(element, before))

    def _of_track(self, track: Element) -> Iterator[Span]:
        name = "" if self._attribute is not None else self._label(track, "")
        found: list[tuple[int, int, str]] = []
        begun: _Shape | None = None
        for shape in self._shapes:
            if begun is not None and (shape.outside or shape.label != begun.label):
                found.append((begun.frame, shape.frame, begun.label))
                begun = None
            if begun is None and not shape.outside:
                begun = shape
        if begun is not None:
            found.append((begun.frame, self._after(self._shapes[-1].frame, self._key), begun.label))
        for first, stop, label in found:
            path, exists = self._video(self._key)
            yield Span(path, exists, track.attributes.get("id", "")[:40], label or name, first, stop, in_frames=True)

    def _put_tag(self, tag: Element) -> None:
        """Note the frame that a tag is of: CVAT calls those of a video by their numbers in it."""
        name = _FRAME_NAME.fullmatch(self._image.get("name", "").rpartition("/")[2].partition(".")[0])
        if name:
            frame = int(name[1])
        else:
            frame = self._frame(self._image.get("id"), self._key, tag.line)
        self._tags.setdefault((self._key, self._label(tag, "")), set()).add(frame)

    def _of_tags(self, key: str, label: str, frames: list[int]) -> Iterator[Span]:
        path, exists = self._video(key)
        first = frames[0]
        for frame, following in zip(frames, [*frames[1:], None], strict=True):
            if following is None or following - frame != self._tasks[key].step:
                yield Span(path, exists, f"frame-{first}", label, first, self._after(frame, key), in_frames=True)
                first = frame if following is None else following
