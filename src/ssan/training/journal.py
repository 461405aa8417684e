"""The journal of a run: one JSON object a line, and the tables and curves that are drawn from it."""

import csv
import io
import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from ssan.errors import UsageError
from ssan.files import is_text, naming_a_full_disk, read_jsonl, taking_turns, writing


class Journal:
    """Appends events to ``journal.jsonl`` in a run's folder; each line is complete once it is written.

    Numbers that are not finite are written as null: the journal stays valid JSON.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "journal.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)

    def record(self, event: str, **fields: Any) -> None:
        """Append one event with the present time in seconds since 1970."""
        content = {"event": event, "time": round(time.time(), 3), **_finite(fields)}
        line = json.dumps(content, ensure_ascii=False)
        if not is_text(line):  # a path may hold bytes that are no text
            line = json.dumps(content)
        # An evaluation writes into the journal of a run that goes on, and processes that share the work into one.
        with naming_a_full_disk(self.path), open(self.path, "ab+") as handle, taking_turns(handle):
            _mend(handle)
            handle.write(line.encode() + b"\n")

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """The events so far, oldest first; a last line cut off by a crash is left out."""
        return read_journal(self.path, event) if self.path.exists() else []

    def write_tables(self) -> None:
        """Write ``metrics.csv``: one row an epoch; after a resumption the later record of an epoch counts."""
        rows = {row["epoch"]: row for row in self.events("epoch")}
        if not rows:
            return
        columns = [key for key in next(iter(rows.values())) if key not in ("event", "time")]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[epoch] for epoch in sorted(rows))
        with writing(self.folder / "metrics.csv") as handle:
            handle.write(text.getvalue())


def read_journal(path: str | Path, event: str | None = None) -> list[dict[str, Any]]:
    """Events of a ``journal.jsonl``, oldest first, of one kind where ``event`` is given.

    :raises UsageError: there is no journal, or a complete line of it is no record.
    """
    found = []
    for number, (_, record) in enumerate(read_jsonl(path, "a journal; name a run's folder"), start=1):
        if record is None:
            raise UsageError(
                "not a line of a journal; expected one JSON object", code="bad_annotation", path=str(path), line=number
            )
        if event is None or record.get("event") == event:
            found.append(record)
    return found


def planned_epochs(events: Iterable[Mapping[str, Any]]) -> int | None:
    """How many epochs a run is to have by its journal: its recipe says it, and after that whoever asked for more.

    None where neither does.
    """
    planned = None
    for event in events:
        recipe = event.get("recipe")
        said = recipe.get("epochs") if event.get("event") == "start" and isinstance(recipe, Mapping) else None
        if event.get("event") == "resumed":
            said = event.get("epochs")
        if type(said) is int and said > 0:
            planned = said
    return planned


def _mend(handle: IO[bytes]) -> None:
    """Remove what a crash left of a line, so that the next line is one."""
    if handle.seek(0, os.SEEK_END) == 0:
        return
    handle.seek(-1, os.SEEK_END)
    if handle.read(1) != b"\n":
        handle.seek(0)
        handle.truncate(handle.read().rfind(b"\n") + 1)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return value
