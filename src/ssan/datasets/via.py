"""VIA 3 projects: temporal segments with attributes. Source: the project format of VIA 3 (VGG Image Annotator)."""

from collections import Counter
from typing import Any

from ssan.datasets.captions import shown
from ssan.datasets.media import MediaFiles, names_video
from ssan.datasets.samples import Samples
from ssan.datasets.spans import Span, annotation_files, label_of, samples_of, seconds_of
from ssan.datasets.splits import SplitRule
from ssan.datasets.tables import fault
from ssan.errors import UsageError, few, named, quoted
from ssan.files import read_json

FORM = '{"attribute": {...}, "file": {...}, "view": {...}, "metadata": {ID: {"vid", "z": [start, end], "av": {...}}}}'
OF_SEGMENT, OF_FILE, CHECKBOX = "FILE1_Z2_XY0", "FILE1_Z0_XY0", 2


def read_via(
    root: str,
    split: str,
    *,
    annotations: str | None = None,
    videos: str | None = None,
    attribute: str | None = None,
    rule: SplitRule,
) -> Samples:
    """VIA 3: the temporal segments of a project, a JSON file as VIA saves it, or all in a folder.

    Times are seconds from the beginning of the file. A segment has a value for each attribute: a text, or one or
    several of its options. Regions within a picture, and moments, are no segments, and are counted.

    :param attribute: the name of the attribute whose values are the labels, or its id; needed where segments have
        several. One of the whole file (not of segments) gives a label to whole videos.
    :raises UsageError: there is no file, or a choice must be made.
    :raises AnnotationError: a file is malformed, or has no such attribute.
    """
    files, folder = annotation_files(root, annotations, videos, ".json", "VIA project")
    projects = [(path, _project(path)) for path in files]
    finder = MediaFiles(folder)
    spans: list[Span] = []
    notes: Counter[str] = Counter()
    for path, project in projects:
        chosen = _attribute(project, attribute, path)
        spans += _segments(project, chosen, path, finder, notes)
    said = [f"{num} {what}" for what, num in notes.items()]
    return samples_of(spans, split, folder, annotations or root, rule, said)


def _project(path: str) -> dict[str, dict[str, Any]]:
    content = read_json(path)
    found: dict[str, dict[str, Any]] = {}
    for key in ("attribute", "file", "view", "metadata"):
        value = content.get(key) if isinstance(content, dict) else None
        if not isinstance(value, dict):
            raise fault(f"there is no object {key!r}; expected {FORM}, as VIA 3 saves it", path)
        for name, inner in value.items():
            if not isinstance(inner, dict):
                raise fault(f"{key} {quoted(name, 40)} is {shown(inner)}; expected an object, as in {FORM}", path)
        found[key] = value
    return found


def _attribute(project: dict[str, dict[str, Any]], wanted: str | None, path: str) -> str:
    """The id of the attribute whose values are the labels."""
    known = {key: about for key, about in project["attribute"].items() if _anchor(about) in (OF_SEGMENT, OF_FILE)}
    if wanted is not None:
        found = [key for key, about in known.items() if about.get("aname") == wanted] or [
            key for key in known if key == wanted
        ]
        if len(found) != 1:
            names = few([str(about.get("aname")) for about in known.values()], 10, named)
            raise fault(
                f"{len(found)} attributes are called {quoted(wanted, 80)}; expected one of {names}, or its id",
                path,
            )
        return found[0]
    used = Counter(
        key
        for about in project["metadata"].values()
        if _is_segment(about) and isinstance(about.get("av"), dict)
        for key in about["av"]
        if key in known and _anchor(known[key]) == OF_SEGMENT
    )
    if len(used) != 1:
        told = [f"{known[key].get('aname')} ({num})" for key, num in used.most_common()]
        raise UsageError(
            f"{len(used)} attributes of segments have values: {few(told, 10, named)}; say which has the labels with "
            "--reader attribute=NAME",
            path=path,
        )
    return next(iter(used))


def _anchor(about: dict[str, Any]) -> object:
    return about.get("anchor_id")


def _is_segment(about: dict[str, Any]) -> bool:
    return isinstance(about.get("z"), list) and len(about["z"]) == 2 and not about.get("xy")


def _segments(
    project: dict[str, dict[str, Any]], chosen: str, path: str, finder: MediaFiles, notes: Counter[str]
) -> list[Span]:
    of_file = _anchor(project["attribute"][chosen]) == OF_FILE
    there: dict[str, tuple[str, bool]] = {}
    spans = []
    for key, about in project["metadata"].items():
        prefix = f"metadata {quoted(key, 40)}: "
        bounds: tuple[float | None, float | None] = (None, None)
        if of_file:
            if about.get("z") or about.get("xy"):
                continue
        elif not _is_segment(about):
            if about.get("z") or about.get("xy"):
                notes["regions of a picture or moments of a video are no segments, and are left out"] += 1
            continue
        else:
            start, stop = about["z"]
            bounds = seconds_of(start, stop, path, prefix)
        view = str(about.get("vid"))
        if view not in there:
            file = _file(project, view, path, prefix)
            if file is None:
                notes["segments are of files that are no videos, and are left out"] += 1
                continue
            there[view] = finder.locate(file, path)
        for label in _values(project["attribute"][chosen], about.get("av"), chosen, path, prefix) or [""]:
            spans.append(Span(*there[view], "" if of_file else key, label, *bounds))
    return spans


def _file(project: dict[str, dict[str, Any]], view: str, path: str, prefix: str) -> list[str] | None:
    """What a view calls its video; None where it shows no video."""
    listed = project["view"].get(view, {}).get("fid_list")
    known = [project["file"].get(str(one)) for one in listed] if isinstance(listed, list) else []
    if len(known) != 1 or known[0] is None:
        raise fault(
            f"{prefix}the view {quoted(view, 40)} shows {len(known)} files; expected one, which is in 'file'", path
        )
    names = [name for name in (known[0].get("src"), known[0].get("fname")) if isinstance(name, str) and name]
    names = [name for name in names if not name.startswith(("data:", "blob:"))]
    is_video = known[0].get("type") == 4 or any(map(names_video, names))
    if is_video and not names:
        raise fault(f"{prefix}the file of the view {quoted(view, 40)} has no name; expected 'fname'", path)
    return names if is_video else None


def _values(attribute: dict[str, Any], values: object, chosen: str, path: str, prefix: str) -> list[str]:
    """The labels that a segment has: its text, or the options that are chosen."""
    value = values.get(chosen) if isinstance(values, dict) else None
    if value is None or value == "":
        return []
    options = attribute.get("options")
    if isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str):
        raise fault(f"{prefix}the value of the attribute is {shown(value)}; expected text", path)
    if not isinstance(options, dict) or not options:
        return [label_of(value)]
    keys = [key for key in value.split(",") if key] if attribute.get("type") == CHECKBOX else [value]
    labels = []
    for key in keys:
        label = options.get(key)
        if not isinstance(label, str):
            raise fault(
                f"{prefix}{quoted(key, 40)} is no option of {quoted(str(attribute.get('aname')), 80)}; expected one of "
                f"{few(list(options), 10, named)}",
                path,
            )
        labels.append(label_of(label))
    return labels
