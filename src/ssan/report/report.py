"""The page of a run, or of several side by side, from their journals alone.

Film strips of the videos that the journal of a single run says were answered wrongly are the only thing that is looked
up elsewhere: where the files are still there.

No figure is made here that a journal does not give: what was not run is blank. Derived are intervals of shares, means
and spreads over seeds, differences, and times per epoch and per video.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ssan._version import __version__
from ssan.errors import UsageError
from ssan.files import writing
from ssan.report import retrieval_run
from ssan.report.film_strip import FilmStrips
from ssan.report.formatting import when
from ssan.report.html import render_page
from ssan.report.journal_runs import JournalRun, RunGroup, grouped, number, read_runs, spread, warnings, whole
from ssan.report.one_run import MOST_CONFUSED, MOST_NAMED_CLASSES, view
from ssan.report.side_by_side import comparison

MOST_ENDS = 15  # classes at either end of a long list that stand outside the fold


def report(folders: Sequence[str], out: str, *, num_strips: int = 0) -> dict[str, Any]:
    """Write the page of these runs to ``out``; the answer has the fields of ``ssan report --json``.

    :param num_strips: of the page of one run at most so many film strips of videos that were answered wrongly.

    :raises UsageError: a folder is no run, or its journal is damaged.
    """
    runs = read_runs(folders)
    joint = [run for run in runs if run.is_retrieval]
    if joint and len(runs) > 1:
        raise UsageError(
            "a run of `ssan retrieval train`, which has a page of its own; name it alone", path=joint[0].folder
        )
    if joint:
        return _report_of_retrieval(joint[0], out)
    groups = grouped(runs)
    strips = FilmStrips(num_strips) if num_strips and len(runs) == 1 else None
    said = warnings(runs, groups) if len(runs) > 1 else []
    page = render_page(
        "report.html.j2",
        title=f"{runs[0].name}: a run of ssan" if len(runs) == 1 else f"{len(runs)} runs of ssan",
        runs=[view(run, alone=len(runs) == 1, strips=strips) for run in runs],
        strips=strips,
        comparison=comparison(runs, groups) if len(runs) > 1 else None,
        warnings=said,
        made=when(datetime.now(UTC).timestamp()),
        version=__version__,
        most_named=MOST_NAMED_CLASSES,
        most_confused=MOST_CONFUSED,
        most_ends=MOST_ENDS,
    )
    with writing(out) as handle:
        handle.write(page)
    return {
        "page": out,
        "runs": [_headline(run) for run in runs],
        "groups": [_group_headline(group) for group in groups if len(group.runs) > 1],
        "num_strips": strips.num_made if strips else 0,
        "warnings": said,
    }


def _report_of_retrieval(run: JournalRun, out: str) -> dict[str, Any]:
    page = render_page(
        "retrieval.html.j2",
        title=f"{run.name}: a run of ssan retrieval",
        run=retrieval_run.view(run),
        made=when(datetime.now(UTC).timestamp()),
        version=__version__,
    )
    with writing(out) as handle:
        handle.write(page)
    return {"page": out, "runs": [retrieval_run.headline(run)], "groups": [], "warnings": []}


def _headline(run: JournalRun) -> dict[str, Any]:
    best = run.best
    return {
        "run": run.folder,
        "name": run.name,
        **({"task": "probe", "top1": number(run.probed.get("top1"))} if run.is_probe else {}),
        "model": run.model,
        "seed": run.seed,
        "status": run.status,
        "epochs": len(run.epochs),
        "epochs_planned": whole(run.recipe.get("epochs")),
        "best_epoch": best["epoch"] if best else None,
        "val_top1": run.val_top1,
        "val_interval95": list(run.val_interval95) if run.val_interval95 else None,
        "num_train": whole(run.start.get("num_train")),
        "num_val": whole(run.start.get("num_val")),
        "train_seconds": run.train_seconds,
        "epoch_seconds": run.epoch_seconds,
        "params": whole(run.cost.get("params")),
        "macs": whole(run.cost.get("macs")),
        "evaluations": [
            {
                "split": evaluation.split,
                "list": evaluation.videos,
                **evaluation.figures,
                "interval95": list(evaluation.interval95) if evaluation.interval95 else None,
                "protocol": evaluation.protocol,
                "probe": evaluation.probe,
                "outdated": evaluation.outdated,
            }
            for evaluation in run.evaluations
        ],
    }


def _group_headline(group: RunGroup) -> dict[str, Any]:
    whole_group = spread(run.val_top1 for run in group.runs)
    return {
        "name": group.name,
        "runs": [run.folder for run in group.runs],
        "seeds": group.seeds,
        "val_top1": vars(whole_group) if whole_group else None,
    }
