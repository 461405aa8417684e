"""ELAN's files (.eaf): annotations on tiers, with times in milliseconds. Source: the EAF 3.0 schema."""

from collections import Counter
from dataclasses import dataclass, field

from ssan.datasets.markup import Element, elements
from ssan.datasets.media import MediaFiles, names_video, spellings
from ssan.datasets.samples import Samples
from ssan.datasets.spans import Span, annotation_files, check_order, label_of, samples_of
from ssan.datasets.splits import SplitRule
from ssan.datasets.tables import MOST_DIGITS, fault, number_of
from ssan.errors import UsageError, few, named, quoted, shortened

WHAT = "an ELAN file"
ROOT = "ANNOTATION_DOCUMENT"


def read_elan(
    root: str,
    split: str,
    *,
    annotations: str | None = None,
    videos: str | None = None,
    tier: str | None = None,
    media: str | None = None,
    rule: SplitRule,
) -> Samples:
    """ELAN: the annotations of one tier; an ``.eaf`` file, or all in a folder.

    Times are the milliseconds of ``TIME_SLOT``. The clock of the annotations begins ``TIME_ORIGIN`` milliseconds into
    the video, so that many are added; what then lies before the video's beginning is cut off, and said. An annotation
    that refers to one of another tier (``REF_ANNOTATION``) has that one's span. Slots without a time, between
    subdivisions of a longer span, divide it evenly, as ELAN draws them.

    :param tier: whose values are the labels; needed where several tiers have annotations.
    :param media: of several videos of a file, the one meant: its number, from 1, or a part of its name.
    :raises UsageError: there is no file, or a choice must be made.
    :raises AnnotationError: a file is malformed, or has no such tier.
    """
    files, folder = annotation_files(root, annotations, videos, ".eaf", "ELAN file")
    documents = [_Document(path) for path in files]
    chosen = tier if tier is not None else _only_tier(documents, annotations or root)
    finder = MediaFiles(folder)
    spans: list[Span] = []
    notes: Counter[str] = Counter()
    for document in documents:
        spans += document.spans(chosen, media, finder, notes)
    if not any(chosen in document.tiers for document in documents):
        there = sorted({name for document in documents for name in document.tiers})
        raise fault(f"no tier is called {quoted(chosen)}; expected one of {few(there, 10, named)}", annotations or root)
    said = [f"{num} {what}" for what, num in notes.items()]
    return samples_of(spans, split, folder, annotations or root, rule, said)


def _only_tier(documents: list["_Document"], source: str) -> str:
    counts: Counter[str] = Counter()
    for document in documents:
        counts.update({name: len(noted) for name, noted in document.tiers.items() if noted})
    if len(counts) != 1:
        told = [f"{name} ({num})" for name, num in counts.most_common()]
        raise UsageError(
            f"{len(counts)} tiers have annotations: {few(told, 10, named)}; say which has the labels with --reader "
            "tier=NAME",
            path=source,
        )
    return next(iter(counts))


@dataclass(slots=True)
class _Note:
    """An annotation: between two time slots, or of what ``refers`` names."""

    key: str
    line: int
    value: str = ""
    begins: str = ""
    ends: str = ""
    refers: str = ""


@dataclass(slots=True)
class _Media:
    names: list[str]
    origin_ms: int
    line: int
    is_video: bool


@dataclass
class _Document:
    """A file, read."""

    path: str
    media: list[_Media] = field(default_factory=list)
    slots: dict[str, int | None] = field(default_factory=dict)
    tiers: dict[str, list[_Note]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tier: list[_Note] = []
        note = _Note("", 0)
        for element in elements(self.path, ROOT, WHAT):
            name = element.names[-1]
            if element.text is not None:
                if name == "ANNOTATION_VALUE":
                    note.value = label_of(element.text)
            elif name == "HEADER":
                units = element.attributes.get("TIME_UNITS", "milliseconds")
                if units != "milliseconds":
                    raise fault(
                        f"times are in {quoted(units, 40)}; expected milliseconds, as ELAN writes them",
                        self.path,
                        element.line,
                    )
            elif name == "MEDIA_DESCRIPTOR":
                self.media.append(self._described(element))
            elif name == "TIME_SLOT":
                self._put_slot(element)
            elif name == "TIER":
                tier = self.tiers.setdefault(self._said(element, "TIER_ID"), [])
            elif name in ("ALIGNABLE_ANNOTATION", "REF_ANNOTATION"):
                note = self._noted(element, aligned=name == "ALIGNABLE_ANNOTATION")
                tier.append(note)

    def _said(self, element: Element, name: str) -> str:
        value = element.attributes.get(name)
        if not value:
            raise fault(
                f"a {shortened(element.names[-1], 40)} has no {name}; expected {WHAT}, as ELAN saves it",
                self.path,
                element.line,
            )
        return value

    def _whole(self, element: Element, name: str) -> int:
        word = element.attributes[name]
        digits = word.removeprefix("-")
        if not (digits.isdecimal() and digits.isascii() and len(digits) <= MOST_DIGITS + 3):
            raise fault(
                f"{name} is {quoted(word, 40)}; expected whole milliseconds, such as 1500", self.path, element.line
            )
        return int(word)

    def _described(self, element: Element) -> _Media:
        known = [element.attributes.get(name, "") for name in ("RELATIVE_MEDIA_URL", "MEDIA_URL")]
        names = [name for name in known if name]
        origin = self._whole(element, "TIME_ORIGIN") if element.attributes.get("TIME_ORIGIN") else 0
        is_video = element.attributes.get("MIME_TYPE", "").startswith("video/") or any(map(names_video, names))
        return _Media(names, origin, element.line, is_video)

    def _put_slot(self, element: Element) -> None:
        name = self._said(element, "TIME_SLOT_ID")
        if name in self.slots:
            raise fault(f"the time slot {quoted(name, 40)} stands twice; ids must differ", self.path, element.line)
        self.slots[name] = self._whole(element, "TIME_VALUE") if "TIME_VALUE" in element.attributes else None

    def _noted(self, element: Element, *, aligned: bool) -> _Note:
        key = self._said(element, "ANNOTATION_ID")
        if not aligned:
            return _Note(key, element.line, refers=self._said(element, "ANNOTATION_REF"))
        begins, ends = (self._said(element, f"TIME_SLOT_REF{number}") for number in (1, 2))
        absent = next((slot for slot in (begins, ends) if slot not in self.slots), None)
        if absent is not None:
            raise fault(
                f"the annotation {quoted(key, 40)} names the time slot {quoted(absent, 40)}, which is not there; "
                "expected one of TIME_ORDER",
                self.path,
                element.line,
            )
        return _Note(key, element.line, begins=begins, ends=ends)

    def spans(self, tier: str, media: str | None, finder: MediaFiles, notes: Counter[str]) -> list[Span]:
        """The annotations of a tier as parts of the video; what is left out is counted in ``notes``."""
        of_tier = self.tiers.get(tier, [])
        if not of_tier:
            notes[f"ELAN files have no annotation on the tier {quoted(tier, 80)}"] += 1
            return []
        video = self._video(media)
        path, exists = finder.locate(video.names, self.path, video.line)
        times = self._times()
        spans = []
        for note in of_tier:
            found = times.get(note.key)
            if found is None:
                notes["annotations have no time, and are left out"] += 1
                continue
            check_order(found[0] / 1000, found[1] / 1000, self.path, note.line)
            start, stop = (bound + video.origin_ms for bound in found)
            if start < 0:
                notes["annotations begin before the video does (TIME_ORIGIN), and are cut off there"] += 1
                start, stop = 0, max(stop, 0)
            spans.append(Span(path, exists, note.key, note.value, start / 1000, stop / 1000))
        return spans

    def _video(self, media: str | None) -> _Media:
        there = [one for one in self.media if one.is_video and one.names]
        last = [spellings(one.names[-1])[0].rpartition("/")[2] for one in there]
        chosen = there
        if media is not None:
            number = number_of(media) or 0
            numbered = [there[number - 1]] if 0 < number <= len(there) else []
            chosen = numbered or [one for one, name in zip(there, last, strict=True) if media in name]
        if len(chosen) != 1:
            advice = "link the video in ELAN" if not there else "say which with --reader media=NUMBER, or a part of it"
            raise UsageError(
                f"it names {len(there)} videos: {few(last, 10, named)}"
                f"{'' if media is None else f', of which media={shortened(media, 80)} fits {len(chosen)}'}; {advice}",
                path=self.path,
            )
        return chosen[0]

    def _times(self) -> dict[str, tuple[float, float]]:
        """Start and end of each annotation in milliseconds, as the annotations count; of those that have such."""
        times: dict[str, tuple[float, float]] = {}
        referring: dict[str, tuple[int, _Note]] = {}  # with the number of the tier
        parts: Counter[tuple[int, str]] = Counter()
        for number, notes in enumerate(self.tiers.values()):
            slots = self._filled([note for note in notes if note.begins])
            for note in notes:
                if note.key in times or note.key in referring:
                    raise fault(
                        f"the annotation {quoted(note.key, 40)} stands twice; ids must differ", self.path, note.line
                    )
                if note.refers:
                    referring[note.key] = (number, note)
                    parts[number, note.refers] += 1
                    continue
                start, stop = (slots.get(slot, self.slots[slot]) for slot in (note.begins, note.ends))
                if start is not None and stop is not None:
                    times[note.key] = (start, stop)
        # Several that refer to one annotation share its span in an order, but have no times of their own.
        own = {key: note.refers for key, (number, note) in referring.items() if parts[number, note.refers] == 1}
        seen: set[str] = set()
        for key in own:
            passed, refers = [], key
            while refers in own and refers not in seen:
                seen.add(refers)
                passed.append(refers)
                refers = own[refers]
            if refers in times:
                times.update(dict.fromkeys(passed, times[refers]))
        return times

    def _filled(self, notes: list[_Note]) -> dict[str, float]:
        """The times of slots without one, between annotations that follow each other from a time to a time."""
        filled: dict[str, float] = {}
        following = {note.begins: note.ends for note in notes}
        seen: set[str] = set()
        for note in notes:
            start = self.slots[note.begins]
            if start is None:
                continue
            passed = [note.ends]
            while self.slots[passed[-1]] is None and passed[-1] in following and passed[-1] not in seen:
                seen.add(passed[-1])
                passed.append(following[passed[-1]])
            stop = self.slots[passed[-1]]
            if stop is not None:
                for number, slot in enumerate(passed[:-1], start=1):
                    filled[slot] = start + (stop - start) * number / len(passed)
        return filled
