"""Label Studio's exports: frames on the timeline of a video, seconds of its sound, choices for all of it.

Source: the tags TimelineLabels, Video, Labels and Choices of Label Studio 1.20, and its exports JSON and JSON_MIN.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ssan.datasets.captions import shown
from ssan.datasets.media import MediaFiles, names_video
from ssan.datasets.samples import Samples
from ssan.datasets.spans import Span, annotation_files, label_of, samples_of, seconds_of
from ssan.datasets.splits import SplitRule
from ssan.datasets.tables import MOST_DIGITS, fault
from ssan.errors import UsageError, few, named, quoted, shortened
from ssan.files import read_json

FORM = '[{"data": {"video": ...}, "annotations": [{"result": [{"from_name", "type", "value": {...}}]}]}]'
RATE_FIELD = "fps"
MOST_RATE = 100_000


def read_label_studio(
    root: str,
    split: str,
    *,
    annotations: str | None = None,
    videos: str | None = None,
    control: str | None = None,
    rate: str | None = None,
    first_frame: str | None = None,
    video: str | None = None,
    annotator: str | None = None,
    rule: SplitRule,
) -> Samples:
    """Label Studio: an export, JSON or JSON_MIN, or all in a folder.

    Ranges of ``TimelineLabels`` are frames, from the first to the last, both in it, counted from 1; but they are not
    the frames of the file. Label Studio divides time by the rate in its labelling configuration (``frameRate``, 24
    unless set), whatever the file has. So frame n is the time [(n - 1) / rate, n / rate), and a range from a to b is
    [(a - 1) / rate, b / rate) in seconds: which frames of the file these are, its own time stamps say. Bounds of
    ``Labels`` on sound and of ``TimeSeriesLabels`` are seconds. ``Choices`` label the whole video.

    :param control: the name of the tag that gave the labels; needed where several did.
    :param rate: of ``frameRate``; the export does not have it, unless each task has a field ``fps``. ``file`` is for a
        rate that was the file's own: then frames are those of the file.
    :param first_frame: the number of the first frame, 1 or 0: what wrote the ranges may have counted from 0.
    :param video: the field of a task's data that names the video; needed where several do.
    :param annotator: the id or address of whose annotation counts; needed where a task has several.
    :raises UsageError: there is no file, or a choice must be made.
    :raises AnnotationError: a file is malformed.
    """
    files, folder = annotation_files(root, annotations, videos, ".json", "export of Label Studio")
    how = _How(control, _rate(rate), _first(first_frame), video, annotator)
    tasks = [task for path in files for task in _tasks(path, how)]
    control = control if control is not None else _only_control(tasks, annotations or root)
    finder = MediaFiles(folder)
    notes: Counter[str] = Counter()
    spans = [span for task in tasks for span in task.spans(control, how, finder, notes)]
    said = [f"{num} {what}" for what, num in notes.items()]
    return samples_of(spans, split, folder, annotations or root, rule, said)


@dataclass(frozen=True, slots=True)
class _How:
    control: str | None
    rate: float | str | None
    first_frame: int
    video: str | None
    annotator: str | None


def _rate(word: str | None) -> float | str | None:
    if word is None or word == "file":
        return word
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not 0 < value <= MOST_RATE:
        raise UsageError(f"rate is {quoted(word, 40)}; expected frames a second, such as 24, or 'file'")
    return value


def _first(word: str | None) -> int:
    if word not in (None, "0", "1"):
        raise UsageError(f"first_frame is {quoted(str(word), 40)}; it must be 0 or 1")
    return 1 if word is None else int(word)


@dataclass(slots=True)
class _Region:
    control: str
    key: str
    kind: str
    value: dict[str, Any]


@dataclass(slots=True)
class _Task:
    """A task and what one person has said of its video."""

    path: str
    prefix: str
    number: str
    data: dict[str, Any]
    upload: str | None
    regions: list[_Region]
    annotator: str | None

    def spans(self, control: str, how: _How, finder: MediaFiles, notes: Counter[str]) -> Iterator[Span]:
        regions = [region for region in self.regions if region.control == control]
        if not regions:
            notes[f"tasks have nothing from {quoted(control, 80)}"] += 1
            return
        names = self._video(how.video)
        if names is None:
            notes["tasks are of no video, and are left out"] += 1
            return
        path, exists = finder.locate(names, self.path, uploaded=self.upload is not None or "/upload/" in names[0])
        for number, region in enumerate(regions):
            key = region.key or f"{self.number}-{number}"
            labels = self._labels(region)
            for start, stop, in_frames in self._bounds(region, how, notes):
                for label in labels or [""]:
                    whole = start is None
                    yield Span(path, exists, "" if whole else key, label, start, stop, in_frames)

    def _video(self, field: str | None) -> list[str] | None:
        """What the task calls its video; None where it has none."""
        found = {key: value for key, value in self.data.items() if isinstance(value, str) and names_video(value)}
        if field is not None:
            value = self.data.get(field)
            if not isinstance(value, str) or not value:
                raise fault(f"{self.prefix}its field {quoted(field, 40)} is {shown(value)}; expected a path", self.path)
            found = {field: value}
        if len(found) > 1:
            raise UsageError(
                f"{self.prefix}{len(found)} fields name videos: {few(list(found), 10, named)}; say which with --reader "
                "video=FIELD",
                path=self.path,
            )
        names = list(found.values())
        if self.upload is not None and (names or names_video(self.upload)):
            names.append(self.upload)
        return names or None

    def _labels(self, region: _Region) -> list[str]:
        value = region.value.get(region.kind)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
            raise fault(
                f"{self.prefix}{shortened(region.kind, 40)} is {shown(value)}; expected a list of labels", self.path
            )
        return list(dict.fromkeys(map(label_of, value)))

    def _bounds(
        self, region: _Region, how: _How, notes: Counter[str]
    ) -> Iterator[tuple[float | int | None, float | int | None, bool]]:
        """The spans of a region, and whether they count frames."""
        value = region.value
        if "ranges" in value:
            ranges = value["ranges"]
            if not isinstance(ranges, list) or not all(isinstance(one, dict) for one in ranges):
                raise fault(f'{self.prefix}ranges is {shown(ranges)}; expected [{{"start", "end"}}]', self.path)
            for one in ranges:
                begin, last = (self._frame(one.get(name), how.first_frame) for name in ("start", "end"))
                if last < begin:
                    raise fault(
                        f"{self.prefix}the range ends with frame {last + how.first_frame} and starts with frame "
                        f"{begin + how.first_frame}; expected an end after the start",
                        self.path,
                    )
                rate = how.rate if how.rate is not None else self._own_rate(notes)
                if isinstance(rate, str):
                    yield begin, last + 1, True
                else:
                    yield begin / rate, (last + 1) / rate, False
        elif "start" in value and "end" in value:
            yield *seconds_of(value["start"], value["end"], self.path, self.prefix), False
        else:
            yield None, None, False

    def _frame(self, value: object, first: int) -> int:
        """The number of a frame, from 0."""
        number = int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e12 else value
        if type(number) is not int or not first <= number < 10**MOST_DIGITS:
            raise fault(
                f"{self.prefix}a bound of a range is {shown(value)}; expected a frame, a whole number from {first}"
                f"{' (--reader first_frame=0 where they count from 0)' if number == 0 else ''}",
                self.path,
            )
        return number - first

    def _own_rate(self, notes: Counter[str]) -> float:
        """The rate that the data of the task name."""
        value = self.data.get(RATE_FIELD)
        try:
            rate = float(value) if isinstance(value, str | int | float) else 0.0
        except (ValueError, OverflowError):
            rate = 0.0
        if not 0 < rate <= MOST_RATE:
            raise UsageError(
                f"{self.prefix}ranges are in frames, and the export does not say at which rate Label Studio counted "
                "them; say it with --reader rate=24, or whatever frameRate is in the labelling configuration (24 where "
                "it is not set)",
                path=self.path,
            )
        notes[f"ranges are counted at {rate:g} frames a second, as their tasks say ({RATE_FIELD})"] += 1
        return rate


def _only_control(tasks: list[_Task], source: str) -> str:
    counts = Counter(region.control for task in tasks for region in task.regions)
    if len(counts) != 1:
        told = [f"{name} ({num})" for name, num in counts.most_common()]
        raise UsageError(
            f"{len(counts)} controls have labels of spans: {few(told, 10, named)}; say which with --reader "
            "control=NAME",
            path=source,
        )
    return next(iter(counts))


def _tasks(path: str, how: _How) -> Iterator[_Task]:
    content = read_json(path)
    rows = content if isinstance(content, list) else [content]
    seen: Counter[str] = Counter()
    for order, row in enumerate(rows, start=1):
        prefix = f"task {order}: "
        if not isinstance(row, dict):
            raise fault(f"{prefix}{shown(row)}; expected {FORM}, or that of JSON_MIN", path)
        number = str(row.get("id", order))[:40]
        if "annotations" not in row and "data" not in row:
            annotator = _who(row.get("annotator"))
            if how.annotator in (None, annotator):
                seen[number] += 1
                if seen[number] > 1:
                    raise _several(prefix, path)
                yield _Task(path, prefix, number, row, None, list(_minimal(row)), annotator)
            continue
        data, given = row.get("data"), row.get("annotations")
        if not isinstance(data, dict) or not isinstance(given, list):
            raise fault(f"{prefix}there is no object 'data', or no list 'annotations'; expected {FORM}", path)
        upload = row.get("file_upload")
        found = []
        for one in given:
            if not isinstance(one, dict) or not isinstance(one.get("result"), list):
                raise fault(f"{prefix}an annotation has no list 'result'; expected {FORM}", path)
            who = _who(one.get("completed_by"))
            if not one.get("was_cancelled") and how.annotator in (None, *who.split("\n")):
                regions = list(_regions(one["result"], path, prefix, how.control))
                found.append(
                    _Task(
                        path, prefix, number, data, upload if isinstance(upload, str) and upload else None, regions, who
                    )
                )
        if len(found) > 1:
            raise _several(prefix, path)
        yield from found


def _several(prefix: str, path: str) -> UsageError:
    return UsageError(
        f"{prefix}it has several annotations; say whose counts with --reader annotator=ID (or address), or leave the "
        "others out of the export",
        path=path,
    )


def _who(value: object) -> str:
    """The id and the address of an annotator, one a line."""
    if isinstance(value, dict):
        return "\n".join(str(value[key])[:200] for key in ("id", "email") if key in value)
    return "" if isinstance(value, list) or value is None else str(value)[:200]


def _regions(result: list[Any], path: str, prefix: str, control: str | None) -> Iterator[_Region]:
    for one in result:
        if not isinstance(one, dict):
            raise fault(f"{prefix}a result is {shown(one)}; expected an object, as in {FORM}", path)
        kind, value, name = one.get("type"), one.get("value"), one.get("from_name")
        if not isinstance(kind, str) or not isinstance(value, dict) or not isinstance(name, str):
            if control is not None and name == control:
                raise fault(f"{prefix}a result has no type or no value; expected {FORM}", path)
            continue  # relations between regions, and the like
        if kind == "choices" or _is_span(value, kind):
            yield _Region(name, str(one.get("id", ""))[:40], kind, value)


def _is_span(value: dict[str, Any], kind: str) -> bool:
    return "ranges" in value or ("start" in value and "end" in value and kind in value)


def _minimal(row: dict[str, Any]) -> Iterator[_Region]:
    """The regions in a task of JSON_MIN, which stand there under the names of their controls."""
    for name, values in row.items():
        if isinstance(values, list):
            for value in values:
                kinds = [key for key in value if key.lower().endswith("labels")] if isinstance(value, dict) else []
                if len(kinds) == 1 and _is_span(value, kinds[0]):
                    yield _Region(name, str(value.get("id", ""))[:40], kinds[0], value)
        elif isinstance(values, dict) and isinstance(values.get("choices"), list):
            yield _Region(name, "", "choices", values)
