"""The folder of a run: begun once, gone on with by the same recipe and data alone, and told how the run ended."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar, cast

from ssan.errors import TrainingError, UsageError
from ssan.files import one_writer
from ssan.processes import processes
from ssan.training.callbacks import InterruptedRun
from ssan.training.journal import Journal, planned_epochs

# What a journal tells of how far a training has come; the last of them says whether it has ended.
MOMENTS = ("start", "resumed", "interrupted", "failed", "end")

Training = TypeVar("Training", bound=Callable[..., dict[str, Any]])


def ending_in_the_journal(run: Training) -> Training:
    """Let a function that trains into a folder, its third argument, be alone there, and note how it ended.

    It notes there when it is interrupted or fails. Of several processes the first is the one that writes. What is
    refused before a step is made is no failure of the run, and leaves the journal as it was.
    """

    @functools.wraps(run)
    def noting(recipe: Any, data: Any, out: str | Path, **rest: Any) -> dict[str, Any]:
        with one_writer(out, folder=True) if processes().first else nullcontext():
            try:
                return run(recipe, data, out, **rest)
            except InterruptedRun:
                _note(out, "interrupted")
                raise
            except TrainingError as error:
                _note(out, "failed", code=error.code, message=error.message)
                raise

    return cast(Training, noting)


def _note(out: str | Path, event: str, **fields: Any) -> None:
    if processes().first:
        Journal(out).record(event, **fields)


def open_run(
    out: str | Path,
    start: Mapping[str, Any],
    changed: Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]],
    *,
    resume: bool,
    first: bool,
    begin: Callable[[Path], None],
) -> None:
    """Begin a run's folder, or find the run to resume there; another recipe or other data are refused.

    The first of several processes begins it. All refuse, so that none waits for one that has.

    :param start: the fields of the journal's event ``start``.
    :param changed: what differs between an earlier start and this one, in words.
    :param begin: writes what else belongs to the beginning of a run, such as its recipe, into the folder.
    """
    out = Path(out)
    journal = Journal(out)
    before = journal.events("start")
    # The first process may have begun this very run a moment ago. But no run has a state before all its processes meet.
    held = bool(before) and (first or (out / "last" / "state.ckpt").exists())
    if held and not resume:
        raise UsageError(
            "the folder already holds a run; add --resume to go on with it, or name another", path=str(out)
        )
    if not before and (out / "last" / "state.ckpt").exists():
        raise UsageError(
            "the folder holds the state of a run, but no journal that says which; put its journal.jsonl back, or name "
            "another folder",
            path=str(out),
        )
    if before:
        old, new = before[-1], json.loads(json.dumps(dict(start)))
        planned = planned_epochs(journal.events())
        if (
            planned is not None and new["recipe"].get("epochs") == planned
        ):  # the recipe may say what was asked for since
            old = {**old, "recipe": {**old["recipe"], "epochs": planned}}
        differences = changed(old, new)
        if differences:
            more = any(difference.startswith("epochs ") for difference in differences)
            raise UsageError(
                f"cannot resume: the run was started otherwise: {'; '.join(differences)}. Use the same recipe and "
                f"data, or another folder{'; once it has ended, --more-epochs asks for more' if more else ''}",
                path=str(out),
            )
        return
    if not first:
        return
    begin(out)
    journal.record("start", **start)


def epochs_to_make(out: str | Path, epochs: int, more: int | None, *, resume: bool) -> int:
    """How many epochs a run is to have in all: those of its recipe, or what was asked for since, or is asked for now.

    :param epochs: the recipe's.
    :param more: epochs to make after the last one of a run that has ended; None goes on to the end of the run.
    :raises UsageError: more are asked for of a run that is not there, or has not come to its end.
    """
    events = Journal(out).events() if resume else []
    planned = planned_epochs(events) or epochs
    if more is None:
        return planned
    if more < 1:
        raise UsageError(f"--more-epochs is {more}; expected a whole number from 1")
    if not resume:
        raise UsageError("--more-epochs goes on with a run that has ended; add --resume")
    told = [event["event"] for event in events if event.get("event") in MOMENTS]
    if not (Path(out) / "last" / "state.ckpt").is_file() or not told:
        raise UsageError("there is no run to make more epochs of; name the --out of one that has ended", path=str(out))
    if told[-1] != "end":
        raise UsageError(
            f"the run has not come to its end, epoch {planned}; go on with --resume alone, then ask for more epochs",
            path=str(out),
        )
    done = [row["epoch"] for row in events if row.get("event") == "epoch" and type(row.get("epoch")) is int]
    return max(done, default=planned) + more


def changes(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    keys: Sequence[str],
    lists: Sequence[str],
    defaults: Mapping[str, Any],
) -> list[str]:
    """What differs between two starts, in words.

    :param keys: fields that have to be equal.
    :param lists: names of splits, with ``num_NAME`` and the hash ``NAME_list``.
    :param defaults: the recipe of a run that was started by a version that lacked a key, and so did as this says.
    """
    changed = [change(key, old.get(key), new[key]) for key in keys if old.get(key) != new[key]]
    for split in lists:
        if old.get(f"{split}_list") != new[f"{split}_list"] and old.get(f"num_{split}") == new[f"num_{split}"]:
            changed.append(f"{split} has as many videos, but other ones, other labels or another order")
    recipe = {**defaults, **old["recipe"]}
    changed += [change(key, recipe.get(key), value) for key, value in new["recipe"].items() if recipe.get(key) != value]
    return changed


def change(key: str, old: Any, new: Any) -> str:
    """What has become of a value; of long lists the first entry that differs."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        index = next(n for n, (a, b) in enumerate(zip(old, new, strict=True)) if a != b)
        return change(f"{key}[{index}]", old[index], new[index])
    if isinstance(old, list) and isinstance(new, list) and len(str(old)) > 80:
        return f"{key}: {len(old)} are now {len(new)}"
    if isinstance(old, dict) and isinstance(new, dict):
        inner = next((name for name in (*new, *old) if old.get(name) != new.get(name)), None)
        if inner is not None:  # else one has a key with nothing in it
            return change(f"{key}.{inner}", old.get(inner), new.get(inner))
    return f"{key} {old!r} is now {new!r}"
