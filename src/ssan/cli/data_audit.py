"""``ssan data audit``."""

import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssan.cli import options
from ssan.cli.screen import tell
from ssan.errors import UsageError

if TYPE_CHECKING:
    from ssan.datasets.source import DataSource
    from ssan.probe.label_audit import LabelAudit

PAGE, TABLE = "audit.html", "labels.csv"
SHOWN = 20  # in words


@options.reads_data_as_argument
def audit(
    context: typer.Context,
    source: "DataSource",
    model: Annotated[str, typer.Option(help=f"{options.A_MODEL}; with --init a network's name.")],
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help=f"Folder for {PAGE}, {TABLE} to mend, and the features."),
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="Weights for a name from `ssan models`: a file, or `imagenet`.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Store of the features, to share.  [default: OUT/features]", show_default=False
        ),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, max=1000, help="How many, where there are no --groups.")] = 5,
    views: Annotated[int, typer.Option(min=1, max=1000, help="Clips of each video, spread over it.")] = 1,
    strips: Annotated[int, typer.Option(min=0, max=2000, help="Clips to show with their frames.")] = 60,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Clips at a time.")] = 16,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    workers: options.Workers = None,
) -> int:
    """Say whose label is probably wrong, which clips are near duplicates, and which classes are confused.

    Heads on a frozen model's features are fitted on the other clips, with --groups on those of other groups, and asked
    how probable each clip's label is.
    """
    from ssan.files import one_writer
    from ssan.probe.features import own_store
    from ssan.probe.label_audit import audit_labels
    from ssan.probe.probe import frozen_network
    from ssan.training.callbacks import InterruptedRun

    if out is not None and os.path.exists(out) and not os.path.isdir(out):
        raise UsageError("it is a file; name a folder with --out", path=out)
    if out is not None and os.path.exists(table := os.path.join(out, TABLE)):
        raise UsageError(
            "it is there already, and may have been mended; move it away, or name another folder with --out (and the "
            "features of this one with --features)",
            path=table,
        )
    labeller = options.open_network(model, init, options.choose_device(device), yes=yes, quiet=quiet)
    with tempfile.TemporaryDirectory(prefix="ssan-audit-") as scratch:
        if out is not None:
            context.with_resource(one_writer(out, folder=True))
        store = features or own_store(Path(out or scratch) / "features", frozen_network(labeller), views)
        try:
            found = audit_labels(
                labeller,
                source,
                store,
                num_folds=folds,
                views=views,
                batch=batch,
                workers=options.choose_workers(workers),
                seed=seed,
                quiet=quiet,
            )
        except (KeyboardInterrupt, InterruptedRun):
            kept = "nothing is kept without --out or --features"
            if out or features:
                kept = "the features that were computed are kept, the same command goes on from there"
            return options.interrupted(kept)
    answer = found.as_dict()
    if out is not None:
        answer |= {"page": os.path.join(out, PAGE), "table": os.path.join(out, TABLE)}
        _write(found, answer, source, strips, quiet=quiet)
    options.show(answer, _lines, as_json=json)
    return options.SOME_FAILED if answer["num_skipped"] else options.DONE


def _write(found: "LabelAudit", answer: dict[str, Any], source: "DataSource", strips: int, *, quiet: bool) -> None:
    """The page and the table, and on standard error which command reads the table."""
    from ssan.datasets.audit import write_list
    from ssan.report.audit_page import write_audit_page
    from ssan.report.film_strip import FilmStrips

    doubted = [suspect.item for suspect in found.suspects]
    order = [*doubted, *sorted(set(range(len(found.samples))) - set(doubted))]
    suggested = {suspect.item: found.classes[suspect.suggested] for suspect in found.suspects}
    samples = [found.samples[item] for item in order]
    unread = [sample for sample, _ in found.failed]
    probabilities = [
        float(found.probabilities[item, found.samples[item].label_index]) if found.asked[item] else "" for item in order
    ]
    beside: dict[str, list[object]] = {
        "suggested": [*(suggested.get(item, "") for item in order), *("" for _ in unread)],
        "probability": [*probabilities, *("" for _ in unread)],
    }
    left_out = write_list(answer["table"], [*samples, *unread], source.folder, beside)
    words = ["--data", source.folder, "--annotations", answer["table"], "--format", "csv"]
    reads = shlex.join(words)
    write_audit_page(
        answer["page"],
        answer,
        [(found.samples[i], found.samples[j], similarity) for i, j, similarity in found.duplicates],
        [found.samples[item] for item in doubted],
        source=source.root,
        network=answer["protocol"]["frozen"],
        reads=reads,
        strips=FilmStrips(strips),
    )
    if not quiet:
        tell(f"{answer['page']}: open it in a browser. Mend column label of {TABLE}; a command reads it with {reads}")
        if left_out:
            tell(f"{len(left_out)} clips cannot stand in {TABLE}, by their names: first {left_out[0].path}")


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    from ssan.errors import printable

    suspects, duplicates = answer["suspects"], answer["duplicates"]
    agreed = "" if answer["agreement"] is None else f"; heads agree with {answer['agreement']:.4f} of the labels"
    yield (
        f"{answer['num_checked']} clips: {len(suspects)} labels in doubt, {answer['num_confident']} of them "
        f"confidently{agreed}"
    )
    for row in suspects[:SHOWN]:
        yield (
            f"  {printable(row['path'])}: {row['label']} ({row['probability']:.3f}), rather {row['suggested']} "
            f"({row['suggested_probability']:.3f})"
        )
    if len(suspects) > SHOWN:
        yield f"  and {len(suspects) - SHOWN} more"
    for row in answer["confused"][:5]:
        yield f"{row['num']} labelled {row['label']} are confidently {row['suggested']}"
    yield f"{len(duplicates)} pairs of near duplicates, {answer['num_duplicates_across_splits']} across splits"
    for one, other, similarity in duplicates[:5]:
        yield f"  {printable(one)} and {printable(other)} ({similarity:.4f})"
    for warning in answer["warnings"]:
        tell(f"warning: {warning}")
