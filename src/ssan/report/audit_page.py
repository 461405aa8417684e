"""The page of an audit of labels: film strips of the clips whose labels are in doubt, the worst first."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ssan._version import __version__
from ssan.datasets.clips import part_of
from ssan.datasets.samples import Sample
from ssan.files import writing
from ssan.report.film_strip import FilmStrips
from ssan.report.formatting import Table, share, when
from ssan.report.html import render_page

MOST_ROWS = 300
MOST_PAIRS = 12
"""Of near duplicates that are shown with their frames."""


def write_audit_page(
    out: str,
    audit: Mapping[str, Any],
    duplicates: Sequence[tuple[Sample, Sample, float]],
    suspects: Sequence[Sample],
    *,
    source: str,
    network: str,
    reads: str,
    strips: FilmStrips,
) -> None:
    """Write the page.

    :param audit: the answer of ``ssan data audit --json``.
    :param duplicates: the pairs of it, and ``suspects`` its suspects, as samples.
    :param reads: the options by which a command reads the mended table.
    """
    rows = audit["suspects"][:MOST_ROWS]
    tiles = []
    for row, sample in zip(rows, suspects, strict=False):
        strip = strips.of(sample.path, part_of(sample))
        if strip:
            tiles.append({
                "strip": strip, "path": row["path"], "label": row["label"], "probability": share(row["probability"]),
                "other": row["suggested"], "score": share(row["suggested_probability"]), "part": "",
            })  # fmt: skip
    pair_strips = FilmStrips(2 * MOST_PAIRS if strips.most else 0)
    pairs = []
    for one, other, similarity in duplicates[: MOST_PAIRS if strips.most else 0]:
        first, second = (pair_strips.of(sample.path, part_of(sample)) for sample in (one, other))
        if first or second:
            pairs.append({
                "first": first, "second": second, "similarity": f"{similarity:.4f}", "paths": (one.path, other.path),
                "note": _note(one, other),
            })  # fmt: skip
    page = render_page(
        "audit.html.j2",
        title=f"Labels of {source}",
        source=source,
        network=network,
        num_suspects=len(audit["suspects"]),
        num_checked=audit["num_checked"],
        num_confident=audit["num_confident"],
        agreement=share(audit["agreement"]),
        num_duplicates=len(duplicates),
        num_across=audit["num_duplicates_across_splits"],
        warnings=audit["warnings"],
        groups="groups" in audit["protocol"],
        reads=reads,
        suspect_tiles=tiles,
        suspects=Table(
            ("clip", "label", "its probability", "rather", "its probability", "confidently", "split"),
            [
                (row["path"], row["label"], share(row["probability"]), row["suggested"],
                 share(row["suggested_probability"]), "yes" if row["confident"] else "", row["split"] or "")
                for row in rows
            ],
            numeric=(2, 4),
        ),
        confused=Table(
            ("label", "class that is likelier", "clips"),
            [(row["label"], row["suggested"], f"{row['num']:,}") for row in audit["confused"][:MOST_ROWS]],
            numeric=(2,),
        ),
        duplicate_tiles=pairs,
        duplicates=Table(
            ("one", "other", "cosine", ""),
            [(one.path, other.path, f"{like:.4f}", _note(one, other)) for one, other, like in duplicates[:MOST_ROWS]],
            numeric=(2,),
        ),
        num_gone=len(strips.gone) + len(pair_strips.gone),
        made=when(datetime.now(UTC).timestamp()),
        version=__version__,
    )  # fmt: skip
    with writing(out) as handle:
        handle.write(page)


def _note(one: Sample, other: Sample) -> str:
    """What makes a pair worse than one of the same label in the same split."""
    said = []
    if one.label != other.label:
        said.append(f"two labels: {one.label} and {other.label}")
    if one.split != other.split:
        said.append(f"two splits: {one.split or 'none'} and {other.split or 'none'}")
    return ", ".join(said)
