"""The page of runs: made of journals alone, self-contained, and with no number that no journal has."""

import base64
import json
import os
import re
import shutil
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from markupsafe import Markup
from torch import Tensor, nn

from ssan.cli.main import status
from ssan.datasets.samples import hash_list
from ssan.datasets.source import DataSource
from ssan.errors import UsageError
from ssan.models.classifier import Classifier
from ssan.models.cost import multiply_adds
from ssan.recipe import make_recipe
from ssan.recognition.train import cost
from ssan.report.formatting import duration, protocol
from ssan.report.html import as_text
from ssan.report.journal_runs import Spread, comparable, grouped, read_runs, spread
from ssan.report.one_run import order_text, status_text
from ssan.training.environment import environment, source_commit
from ssan.training.journal import Journal, read_journal
from ssan.training.metrics import confusion_counts

CLASSES = ["Moving left", "Moving right", "<b>Tilting</b> & 'more' \"so\""]
RECIPE = {
    "model": "ssan_tiny", "layer": {}, "num_frames": 8, "sampling": "segment", "resize": "square", "size_px": 52,
    "crop_px": 48, "epochs": 5, "lr": 0.0037, "seed": 0,
}  # fmt: skip
PROTOCOL = {
    "split": "test", "num_frames": 8, "sampling": "segment", "views": 2, "crops": 3, "resize": "square", "size_px": 52,
    "crop_px": 48, "average": "logits",
}  # fmt: skip


def start(**changes: Any) -> dict[str, Any]:
    recipe = {**RECIPE, **changes.pop("recipe", {})}
    return {
        "event": "start", "time": 1_795_000_000.0, "recipe": recipe,
        "data": {"root": "clips", "format": "sthv2", "options": {}}, "num_train": 1013, "num_val": 211,
        "num_skipped": 17, "num_damaged": 5, "train_list": "aaaa", "val_list": "bbbb", "classes": CLASSES,
        "effective_batch": 32, "environment": {"torch": "2.13.0", "processor": "A processor", "cores": 23},
        "cost": {"params": 141_927, "macs": 67_770_368, "num_frames": 8, "crop_px": 48}, **changes,
    }  # fmt: skip


def epoch(number: int, val_top1: float | None, **changes: Any) -> dict[str, Any]:
    return {
        "event": "epoch", "time": 1_795_000_000.0 + 61 * number, "epoch": number, "step": 31 * number,
        "train_loss": 1.7 / number, "val_loss": 1.9 / number, "val_top1": val_top1, "lr": 0.0037, "data_wait": 0.03,
        "seconds": 58.5, **changes,
    }  # fmt: skip


def evaluated(**changes: Any) -> dict[str, Any]:
    """7 + 11 + 5 videos; right are 4, 9 and 5."""
    return {
        "event": "evaluated", "time": 1_795_000_900.0, "num_scored": 23, "num_missing": 13, "num_failed": 19,
        "top1": 18 / 23, "top5": 22 / 23, "mean_class_accuracy": 0.7965, "interval95": [0.5809, 0.9034],
        "protocol": PROTOCOL, "split": "test", "list": "cccc", "seconds": 8.25, "model_hash": "d" * 64,
        "data": {"root": "clips", "format": "sthv2", "options": {}},
        "per_class": [
            {"label": label, "num": num, "top1": right / num}
            for label, num, right in zip(CLASSES, (7, 11, 5), (4, 9, 5), strict=True)
        ],
        "confusion": [[0, 0, 4], [0, 1, 3], [1, 0, 1], [1, 1, 9], [1, 2, 1], [2, 2, 5]],
        "probe": {"reversed_top1": 3 / 23, "shuffled_top1": 6 / 23, "reversed_same_prediction": 2 / 23}, **changes,
    }  # fmt: skip


END = {"event": "end", "time": 1_795_000_800.0, "steps": 155}
WHOLE = [start(), *(epoch(n, top1) for n, top1 in enumerate((0.31, 0.64, 0.91, 0.88, 0.9), start=1)), END, evaluated()]


def write(folder: Path, events: list[dict[str, Any]]) -> str:
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    return str(folder)


@pytest.fixture
def drawn() -> None:
    """Asked for by tests that look at pictures; in the others figures are made and not drawn, which takes most time."""


@pytest.fixture(autouse=True)
def _nothing_is_drawn_unasked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "drawn" not in request.fixturenames:
        empty = Markup('<img alt="{}" src="data:image/png;base64,">')
        monkeypatch.setattr("ssan.report.html._embedded", lambda figure, alt, *_, **__: empty.format(as_text(alt)))


class Page(HTMLParser):
    """The text of a page by table, what it opens and closes, and what it would ask for."""

    EMPTY = frozenset({"meta", "img", "line", "br"})

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.source = Path(path).read_text(encoding="utf-8")
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(self.source)
        assert self.open == []
        self.text = " ".join(unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", self.source, flags=re.DOTALL)).split())

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attributes: Any) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    @property
    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]

    def row(self, *begin: str) -> list[str]:
        """The cells that follow these, of the one row that begins so."""
        (found,) = [row for row in self.rows if row[: len(begin)] == list(begin)]
        return found[len(begin) :]

    def needs_nothing(self) -> bool:
        asked = [a.get(key) for _, a in self.tags for key in ("src", "href", "srcset", "data", "poster") if key in a]
        inside = [base64.b64decode((image["src"] or "").partition(",")[2]).decode("latin-1") for image in self.images]
        return (
            all((target or "").startswith("data:image/") for target in asked)
            and not {tag for tag, _ in self.tags} & {"link", "script", "iframe", "object", "embed", "base", "form"}
            and not re.search(r"https?:|url\(|@import", self.source)
            and not any("<image" in picture and 'href="http' in picture for picture in inside)
        )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    run = write(tmp_path_factory.mktemp("page") / "whole", WHOLE)
    assert status(["report", run]) == 0
    return Page(Path(run) / "report.html")


# ------------------------------------------------------------------------------------------------------ one run


@pytest.mark.slow
def test_the_page_of_a_run_has_the_figures_of_its_journal_where_they_belong(page: Page) -> None:
    # Best is epoch 3: 0.91 of 211 videos are 192. Wilson's interval of 192 / 211 is 0.902623 -+ 0.038972, by hand.
    assert "Best validation top-1 0.9100 95 % interval 0.8637 to 0.9416; 211 videos, epoch 3" in page.text
    assert "8 frames (segment), 1 view x 1 crop, crop 48 px, resized to square 52 px, mean of logits" in page.text
    assert "Top-1 on test 0.7826 95 % interval 0.5809 to 0.9034; 23 videos scored, 13 missing, 19 failed" in page.text
    assert "8 frames (segment), 2 views x 3 crops, crop 48 px" in page.text
    assert "videos 1,013 for training, 211 for validation" in page.text
    assert "epochs 5 of 5 started 2026-11-18 11:06 UTC" in page.text
    assert "training took 4 min 52 s" in page.text  # five epochs of 58.5 s
    assert page.row("0.7826") == ["0.1304", "0.2609", "0.0870"]  # as sampled, reversed, shuffled, same answer
    assert page.row("parameters") == ["141,927"]
    assert page.row("multiply-adds of a clip") == ["67.8 M"]
    assert page.row("seconds of the median epoch, with validation") == ["58.5"]
    assert page.row("videos a second, those for validation too") == ["20.9"]  # (1,013 + 211) / 58.5
    assert ["evaluation on test", "8.2 s"] in page.rows
    assert page.row("training", "left out, listed in skipped.csv") == ["17"]
    assert page.row("training", "known to be damaged, used as far as they decode") == ["5"]
    assert page.row("evaluation on test", "missing") == ["13"]
    assert page.row("evaluation on test", "could not be read") == ["19"]
    assert page.row("processor") == ["A processor"]
    assert page.row("lr") == ["0.0037"]
    assert page.row("2026-11-18 11:20 UTC") == ["finished after 155 steps"]


def test_classes_stand_by_accuracy_with_their_number_of_videos(page: Page) -> None:
    rows = [row for row in page.rows if len(row) == 5 and row[0] in CLASSES]
    assert [row[:4] for row in rows] == [
        [CLASSES[2], "3", "5", "1.0000"], [CLASSES[1], "2", "11", "0.8182"], [CLASSES[0], "1", "7", "0.5714"],
    ]  # fmt: skip
    widths = [a["style"] for tag, a in page.tags if tag == "span" and a.get("class") == "bar"]
    assert widths == ["width:100.0%", "width:81.8%", "width:57.1%"]


def test_confusions_stand_by_how_often_they_happened(page: Page) -> None:
    head = page.rows.index(["true class", "answer", "videos", "share of the class"])
    assert page.rows[head + 1 : head + 4] == [
        [CLASSES[0], CLASSES[1], "3", "0.4286"],
        [CLASSES[1], CLASSES[0], "1", "0.0909"],
        [CLASSES[1], CLASSES[2], "1", "0.0909"],
    ]


def test_every_setting_of_the_recipe_is_there(page: Page) -> None:
    for key in RECIPE:
        assert [key] in [row[:1] for row in page.rows], key


def test_a_page_asks_for_nothing_and_every_picture_says_what_it_shows(page: Page) -> None:
    assert page.needs_nothing()
    # Loss, validation top-1, learning rate, waiting, seconds; the confusion matrix is a table.
    assert len(page.images) == 5
    for image in page.images:
        assert len(image["alt"] or "") > 20
    (top1,) = [image["alt"] for image in page.images if "top-1" in (image["alt"] or "")]
    assert top1 == "Validation top-1 by epoch: 0.31 in epoch 1, 0.9 in epoch 5"


@pytest.mark.parametrize(
    "asking",
    ['<script src="x.js"></script>', '<img src="a.png" alt="a">', "<style>@import 'a.css'</style>", "<p>http://a</p>"],
)
def test_the_check_of_pages_finds_what_would_be_asked_for(asking: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(f"<!doctype html><body>{asking}</body>")
    assert not Page(tmp_path / "page.html").needs_nothing()


def test_names_of_classes_are_text_and_never_markup(page: Page) -> None:
    assert "<b>Tilting" not in page.source
    assert "&lt;b&gt;Tilting&lt;/b&gt; &amp; " in page.source
    assert all("onerror" not in attributes for _, attributes in page.tags)


def test_what_no_page_can_show_stands_as_its_escape(tmp_path: Path, ssan: Any, drawn: None) -> None:
    names = ["a\nb", "nul\0", "half \ud800", '"><img src=x onerror=alert(1)>']
    figures = [{"label": name, "num": 2, "top1": 0.5} for name in names]
    confusion = [[n, (n + 1) % 4, 1] for n in range(4)] + [[n, n, 1] for n in range(4)]
    odd = evaluated(per_class=figures, confusion=sorted(confusion))
    folder = os.fsencode(tmp_path) + b"/r\xff<i>"
    os.mkdir(folder)
    text = "".join(json.dumps(event) + "\n" for event in [start(classes=names), epoch(1, 0.5), odd])
    Path(os.fsdecode(folder), "journal.jsonl").write_text(text, encoding="utf-8")
    answer = ssan("report", os.fsdecode(folder), "--json")
    assert answer.code == 0
    assert os.fsencode(json.loads(answer.out)["page"]) == folder + b"/report.html"
    page = Page(os.fsdecode(folder + b"/report.html"))
    assert page.needs_nothing()
    assert "r\\udcff<i>" in page.text
    for shown in ("a\\nb", "nul\\x00", "half \\ud800", names[3]):
        assert [shown] in [row[:1] for row in page.rows], shown
    assert not [a for _, a in page.tags if "onerror" in a]


# --------------------------------------------------------------------------------------------- what is not known


@pytest.mark.slow
def test_a_run_without_an_epoch_has_a_page_that_says_so(tmp_path: Path, ssan: Any) -> None:
    run = write(tmp_path / "begun", [start()])
    answer = ssan("report", run, "--json")
    assert answer.code == 0
    page = Page(Path(run) / "report.html")
    assert "The journal has no epoch yet." in page.text
    assert "No epoch has been finished yet" in page.text
    assert "None in the journal" in page.text
    assert "not ended: running when this page was made, or killed after 2026-11-18 11:06 UTC" in page.text
    (row,) = json.loads(answer.out)["runs"]
    assert (row["epochs"], row["val_top1"], row["val_interval95"], row["evaluations"]) == (0, None, None, [])


def test_a_start_that_says_nothing_leaves_everything_blank(tmp_path: Path, ssan: Any) -> None:
    run = write(tmp_path / "bare", [{"event": "start"}, {"event": "epoch", "epoch": 1}, {"event": "evaluated"}])
    assert ssan("report", run).code == 0
    page = Page(Path(run) / "report.html")
    # What stands in the cells of tables: no figure but the epoch's own number.
    cells = " ".join(cell for row in page.rows for cell in row)
    assert re.findall(r"\d+\.\d+", cells) == []
    assert page.row("parameters") == [""]
    assert page.row("evaluation on ", "missing") == [""]
    assert "Not probed" in page.text
    assert "has no confusion matrix" in page.text
    assert page.images == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "value", [None, "0.5", True, [0.5], pytest.param(10**400, id="huge"), float("nan"), float("inf")]
)
def test_a_value_that_is_no_number_is_blank_and_breaks_the_curve(value: Any, tmp_path: Path, ssan: Any) -> None:
    """NaN stands as null in our journals; json.loads reads other writers' NaN and Infinity too."""
    events = [start(num_val=value), epoch(1, 0.25, train_loss=value), epoch(2, value), epoch(3, 0.125),
              evaluated(top1=value, interval95=[value, value])]  # fmt: skip
    run = write(tmp_path / "nan", events)
    answer = ssan("report", run, "--json")
    (row,) = json.loads(answer.out)["runs"]
    assert (row["best_epoch"], row["val_top1"], row["val_interval95"]) == (1, 0.25, None)
    assert (row["evaluations"][0]["top1"], row["evaluations"][0]["interval95"]) == (None, None)
    page = Page(Path(run) / "report.html")
    assert "Top-1 on test No accuracy: the journal has none. 23 videos scored" in page.text
    (run_read,) = read_runs([run])
    epochs, values = run_read.curve("val_top1")
    assert epochs == [1, 2, 3]
    assert (values[0], np.isnan(values[1]), values[2]) == (0.25, True, 0.125)


def test_scores_of_videos_without_labels_have_no_accuracy_and_no_matrix(tmp_path: Path, ssan: Any) -> None:
    blank = {"top1": None, "top5": None, "mean_class_accuracy": None, "interval95": None, "confusion": []}
    figures = [{"label": label, "num": 0, "top1": None} for label in CLASSES]
    probe = {"reversed_top1": None, "shuffled_top1": None, "reversed_same_prediction": 2 / 23}
    run = write(tmp_path / "run", [start(), evaluated(**blank, per_class=figures, probe=probe)])
    assert ssan("report", run).code == 0
    page = Page(Path(run) / "report.html")
    assert "Top-1 on test No accuracy: the journal has none. 23 videos scored" in page.text
    assert "test : no accuracy 8 frames" in page.text
    assert page.row("", "", "") == ["0.0870"]
    assert "has no confusion matrix" in page.text
    assert page.images == []


def test_a_probe_that_was_not_made_is_blank_beside_one_that_was(tmp_path: Path, ssan: Any) -> None:
    other = evaluated()
    del other["probe"]
    runs = [write(tmp_path / "probed", [start(), evaluated()]), write(tmp_path / "not", [start(seed=1), other])]
    assert ssan("report", *runs, "-o", tmp_path / "two.html").code == 0
    every = Page(tmp_path / "two.html").rows
    head = next(n for n, row in enumerate(every) if row[-1:] == ["same reversed"])
    assert [row[-3:] for row in every[head + 1 : head + 3]] == [["0.1304", "0.2609", "0.0870"], ["", "", ""]]


@pytest.mark.parametrize(("num_classes", "shown"), [(5, False), (6, True)])
def test_top5_is_shown_where_there_are_more_than_five_classes(
    num_classes: int, shown: bool, tmp_path: Path, ssan: Any
) -> None:
    """Also of journals of earlier versions, which wrote it down of fewer too."""
    classes = [{"label": f"class {n}", "num": 4, "top1": 0.5} for n in range(num_classes)]
    event = evaluated(per_class=classes, confusion=[], top5=0.9375)
    runs = [write(tmp_path / f"{n}", [start(seed=n), event]) for n in range(2)]
    assert ssan("report", runs[0], "-o", tmp_path / "one.html").code == 0
    assert ssan("report", *runs, "-o", tmp_path / "two.html").code == 0
    for name in ("one", "two"):
        page = Page(tmp_path / f"{name}.html")
        assert ("top-5" in page.text, "0.9375" in page.text) == (shown, shown)


# ------------------------------------------------------------------------------------------------ how a run went


@pytest.mark.slow
@pytest.mark.parametrize(
    ("events", "expected", "said"),
    [
        ([END], "finished", "finished"),
        ([{"event": "interrupted"}], "interrupted", "interrupted; its state is saved"),
        ([{"event": "failed", "message": "the loss is nan"}], "failed", "failed: the loss is nan"),
        ([{"event": "interrupted"}, {"event": "resumed", "step": 41, "epoch": 2}], "not ended", "running when"),
        ([{"event": "interrupted"}, {"event": "resumed"}, END], "finished", "finished"),
    ],
)
def test_the_journal_says_how_a_run_stands(
    events: list[dict[str, Any]], expected: str, said: str, tmp_path: Path, ssan: Any
) -> None:
    run = write(tmp_path / "run", [start(), epoch(1, 0.5), *events, evaluated()])
    answer = ssan("report", run, "--json")
    assert json.loads(answer.out)["runs"][0]["status"] == expected
    page = Page(Path(run) / "report.html")
    assert said in page.text
    if {"event": "resumed", "step": 41, "epoch": 2} in events:
        assert page.row("", "gone on with in epoch 2, from step 41") == []


def page_of(folder: Path, events: list[dict[str, Any]]) -> Page:
    assert status(["report", write(folder, events)]) == 0
    return Page(folder / "report.html")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reversed_num": 200, "reversed_same_prediction": 0.25, "reversed_top1": 0.31},
         # 150 of 200: Wilson's interval is 0.745289 -+ 0.059630.
         "With their frames reversed, 150 of 200 validation videos, drawn of 211, got another answer from the best "
         "model (0.7500, 95 % interval 0.6857 to 0.8049); top-1 is 0.3100 then. Epoch by epoch"),
        ({"reversed_num": 211, "reversed_same_prediction": 210 / 211},
         "With their frames reversed, 1 of 211 validation videos got another answer from the best model (0.0047, 95 % "
         "interval 0.0008 to 0.0264). As from a network of single frames: the layer between frames took no part."),
        ({"reversed_num": 211, "reversed_same_prediction": 1.0, "reversed_num_answers": 1},
         "With their frames reversed, 0 of 211 validation videos got another answer from the best model"),
    ],
)  # fmt: skip
def test_the_page_says_how_much_the_order_of_frames_changed_the_answers(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    page = page_of(tmp_path / "run", [start(), epoch(1, 0.5), {**END, **changes}])
    assert said in page.text
    idle = [a for tag, a in page.tags if tag == "p" and a.get("class") == "warning"]
    assert len(idle) == ("took no part" in said)


@pytest.mark.parametrize(
    "events",
    [
        [END],
        [{**END, "reversed_num": 0, "reversed_same_prediction": 0.5}],
        [{**END, "reversed_num": 9, "reversed_same_prediction": 1.5}],
        [{**END, "reversed_num": 9, "reversed_same_prediction": 0.5}, {"event": "resumed"}],
    ],
)
def test_of_a_run_whose_end_does_not_say_so_or_that_went_on_nothing_is_said_of_the_order_of_frames(
    events: list[dict[str, Any]], tmp_path: Path
) -> None:
    (run,) = read_runs([write(tmp_path / "run", [start(), epoch(1, 0.5), *events])])
    assert order_text(run) == ""


@pytest.mark.parametrize(
    ("patience", "said"),
    [
        (None, "finished early: no epoch was better any more"),
        (1, "finished early after epoch 3, which was no better than epoch 1"),
        (2, "finished early after epoch 3, 2 in a row were no better than epoch 1"),
    ],
)
def test_a_run_that_stopped_early_says_after_which_epoch(patience: int | None, said: str, tmp_path: Path) -> None:
    made = [epoch(1, 0.5), epoch(2, 0.4), epoch(3, 0.3)]
    begun = start(recipe={"early_stop": patience})
    (run,) = read_runs([write(tmp_path / "run", [begun, *made, {**END, "stopped_early": True}])])
    assert status_text(run) == said


CHOSEN = {
    "threshold": 0.61234, "false_alarms_wanted": 0.05, "of": "none", "num": 120, "num_false_alarms": 5,
    "false_alarms": 5 / 120, "interval95": [0.0179, 0.0938], "right_answered": 0.9375,
}  # fmt: skip
KEPT = {**CHOSEN, "written": "run/model.safetensors"}


def test_a_chosen_threshold_is_there_with_what_it_does_to_the_videos(tmp_path: Path) -> None:
    page = page_of(tmp_path / "kept", [start(), evaluated(threshold=KEPT)])
    # 5 of 120: Wilson's interval is 0.055884 -+ 0.037957.
    assert (
        "An answer is given from a score of 0.6123 on. Of 120 videos of none of the classes 5 get one all the same "
        "(0.0417, 95 % interval 0.0179 to 0.0938; at most 0.05 was asked for). Of the right answers 0.9375 are given. "
        "The model's file keeps it for ssan predict ."
    ) in page.text
    assert "answers from a score of 0.6123 on, kept in the model's file" in page.text
    page = page_of(tmp_path / "wrong", [start(), evaluated(threshold={**CHOSEN, "of": "wrong"})])
    assert "Of 120 videos whose answer is wrong 5 get one all the same" in page.text
    assert "The model's file does not keep it: --write does." in page.text
    assert "None of these" not in page_of(tmp_path / "none", [start(), evaluated()]).text


@pytest.mark.parametrize(
    ("later", "threshold", "kept"),
    [
        ([evaluated()], 0.61234, True),
        ([evaluated(threshold={**CHOSEN, "threshold": 0.5})], 0.61234, True),
        ([evaluated(threshold={**KEPT, "threshold": 0.5})], 0.5, True),
        ([epoch(1, 0.5), evaluated()], None, None),
        ([epoch(1, 0.5), evaluated(threshold=CHOSEN)], 0.61234, False),
    ],
)
def test_a_threshold_that_was_kept_stays_when_the_same_model_is_evaluated_again(
    later: list[dict[str, Any]], threshold: float | None, kept: bool | None, tmp_path: Path
) -> None:
    (run,) = read_runs([write(tmp_path / "run", [start(), evaluated(threshold=KEPT), *later])])
    (evaluation,) = run.evaluations
    found = evaluation.threshold
    assert (threshold, kept) == (None, None) if found is None else (found.threshold, found.kept) == (threshold, kept)


def test_of_two_records_of_an_epoch_the_later_counts(tmp_path: Path) -> None:
    (run,) = read_runs([write(tmp_path / "run", [start(), epoch(2, 0.9), epoch(1, 0.2), epoch(2, 0.4)])])
    assert [(row["epoch"], row["val_top1"]) for row in run.epochs] == [(1, 0.2), (2, 0.4)]
    assert run.train_seconds == 117


def test_of_two_best_epochs_the_one_with_the_lower_loss_is_kept(tmp_path: Path) -> None:
    rows = [epoch(1, 0.5, val_loss=1.25), epoch(2, 0.5, val_loss=0.75), epoch(3, 0.5, val_loss=1.0)]
    (run,) = read_runs([write(tmp_path / "run", [start(), *rows])])
    assert run.best is not None
    assert run.best["epoch"] == 2


def test_an_evaluation_made_again_takes_the_place_of_the_first_and_another_protocol_stands_beside(
    tmp_path: Path,
) -> None:
    single = evaluated(protocol={**PROTOCOL, "views": 1, "crops": 1}, top1=0.25)
    events = [start(), epoch(1, 0.5), evaluated(top1=0.125), single, epoch(2, 0.6), evaluated(top1=0.75)]
    (run,) = read_runs([write(tmp_path / "run", events)])
    found = [(e.figures["top1"], e.outdated, e.repeats) for e in run.evaluations]
    # The first was made before epoch 2, which may have found a better model.
    assert found == [(0.25, True, 0), (0.75, False, 1)]


# ------------------------------------------------------------------------------------------------- several runs


@pytest.mark.slow
def test_two_runs_stand_side_by_side_with_gains_and_losses_by_class(tmp_path: Path, ssan: Any, drawn: None) -> None:
    figures = [{"label": label, "num": num, "top1": right / num}
               for label, num, right in zip(CLASSES, (7, 11, 5), (6, 9, 2), strict=True)]  # fmt: skip
    tsm = write(tmp_path / "tsm", [start(recipe={"model": "tsm_tiny"}), epoch(1, 0.25), END, evaluated()])
    ssa = write(tmp_path / "ssa", [start(), epoch(1, 0.5), END, evaluated(per_class=figures, top1=17 / 23)])
    assert ssan("report", tsm, ssa, "--out", tmp_path / "two.html").err == ""
    page = Page(tmp_path / "two.html")
    assert page.needs_nothing()
    assert "2 runs side by side" in page.text
    rows = [row for row in page.rows if len(row) == 5 and row[0] in CLASSES and row[4][:1] in "+-"]
    gains = [row for row in rows if row[4]]
    assert gains == [
        [CLASSES[0], "7", "0.5714", "0.8571", "+0.2857"],
        [CLASSES[1], "11", "0.8182", "0.8182", "+0.0000"],
        [CLASSES[2], "5", "1.0000", "0.4000", "-0.6000"],
    ]
    assert "Top-1 by class on test: ssa less tsm: 1 classes gain, 1 lose" in page.source
    # Of the recipes only what differs stands on top; each whole one is in its run's fold.
    assert ["model", "tsm_tiny", "ssan_tiny"] in page.rows
    assert not [row for row in page.rows if row[:1] == ["lr"] and len(row) == 3]
    assert [row for row in page.rows if row[:1] == ["lr"]] == [["lr", "0.0037"]] * 2
    (curve,) = [
        image["alt"] for image in page.images if (image["alt"] or "").startswith("Validation top-1 by epoch: t")
    ]
    assert curve == "Validation top-1 by epoch: tsm 0.25 in epoch 1; ssa 0.5 in epoch 1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"val_list": "eeee"}, "These runs were validated on other videos"),
        ({"train_list": "eeee"}, "These runs were trained on other videos"),
        ({"classes": CLASSES[::-1]}, "These runs have other classes, or the same in another order"),
    ],
)
def test_runs_on_different_data_are_said_to_be_so(change: dict[str, Any], said: str, tmp_path: Path, ssan: Any) -> None:
    one, two = (write(tmp_path / name, [start(**its), epoch(1, 0.5), END]) for name, its in (("a", {}), ("b", change)))
    answer = ssan("report", one, two, "-o", tmp_path / "two.html", "--json")
    (warning,) = json.loads(answer.out)["warnings"]
    assert warning == f"{said}, so their figures do not measure the same: a; b."
    assert warning in Page(tmp_path / "two.html").text
    assert json.loads(answer.out)["groups"] == []


def test_evaluations_of_other_videos_stand_in_tables_of_their_own_and_are_not_subtracted(
    tmp_path: Path, ssan: Any
) -> None:
    one = write(tmp_path / "a", [start(), epoch(1, 0.5), END, evaluated()])
    two = write(tmp_path / "b", [start(recipe={"lr": 0.5}), epoch(1, 0.5), END, evaluated(list="ffff")])
    answer = ssan("report", one, two, "-o", tmp_path / "two.html", "--json")
    (warning,) = json.loads(answer.out)["warnings"]
    assert warning.startswith("The evaluations on test are of other videos")
    page = Page(tmp_path / "two.html")
    assert "Gains and losses" not in page.text
    heads = [row for row in page.rows if row[:2] == ["run", "top-1"]]
    assert len(heads) == 2


def test_runs_that_differ_by_the_seed_alone_have_a_mean_and_a_spread(tmp_path: Path, ssan: Any) -> None:
    tops = (0.5, 0.75, 0.625)
    runs = [write(tmp_path / f"s{n}", [start(recipe={"seed": n}), epoch(1, top1), END, evaluated(top1=top1 - 0.25)])
            for n, top1 in enumerate(tops)]  # fmt: skip
    other = write(tmp_path / "other", [start(recipe={"seed": 9, "lr": 0.1}), epoch(1, 0.125), END, evaluated()])
    answer = json.loads(ssan("report", *runs, other, "-o", tmp_path / "seeds.html", "--json").out)
    (group,) = answer["groups"]
    assert (group["runs"], group["seeds"]) == (runs, [0, 1, 2])
    # Deviations of -1/8, 1/8 and 0 from 5/8: the sample's standard deviation is the root of (2/64) / 2.
    assert group["val_top1"] == {"num": 3, "mean": 0.625, "sd": 0.125, "low": 0.5, "high": 0.75}
    page = Page(tmp_path / "seeds.html")
    assert page.row("ssan_tiny, lr=0.0037", "0, 1, 2") == ["3", "0.6250", "0.1250", "0.5000", "0.7500"]
    assert page.row("ssan_tiny, lr=0.0037", "3") == ["0.3750", "0.1250", "0.2500", "0.5000"]
    assert "ssan_tiny, lr=0.0037, seeds 0, 1, 2" in page.text
    # Two recipes: by class, the mean of the three runs of one stands beside the other.
    assert "Of each recipe the mean over its runs." in page.text


def test_a_seed_used_twice_is_no_second_seed(tmp_path: Path, ssan: Any) -> None:
    runs = [write(tmp_path / name, [start(), epoch(1, 0.5), END]) for name in ("a", "b")]
    answer = ssan("report", *runs, "-o", tmp_path / "two.html")
    assert "2 runs have 1 different seeds" in answer.err


def test_another_batch_or_other_videos_make_another_group(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [{}, {"effective_batch": 64}, {"train_list": "x"}, {"recipe": {"seed": 3}}]
    runs = read_runs([write(tmp_path / f"{n}", [start(**change)]) for n, change in enumerate(changes)])
    assert [[run.name for run in group.runs] for group in grouped(runs)] == [["0", "3"], ["1"], ["2"]]


def test_a_spread_needs_two() -> None:
    assert spread([0.5, None]) is None
    assert spread([0.25, None, 0.75]) == Spread(2, 0.5, pytest.approx(0.125**0.5), 0.25, 0.75)


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [write(tmp_path / folder / "ssan", [start()]) for folder in ("x/one", "x/two", "y/one")]
    assert [run.name for run in read_runs(paths)] == ["x/one/ssan", "x/two/ssan", "y/one/ssan"]
    assert [run.name for run in read_runs([paths[0] + "/", paths[1]])] == ["one/ssan", "two/ssan"]


def test_models_of_other_sizes_are_compared_and_several_sizes_of_a_test_are_kept_apart(tmp_path: Path) -> None:
    small, large = evaluated(), evaluated(protocol={**PROTOCOL, "crop_px": 52}, top1=0.875)
    apart = read_runs([write(tmp_path / "a", [start(), small]), write(tmp_path / "b", [start(), large])])
    assert [[run.name for run, _ in rows] for rows in comparable(apart)] == [["a", "b"]]
    both = read_runs([write(tmp_path / "c", [start(), small, large]), write(tmp_path / "d", [start(), large])])
    found = [[(run.name, e.protocol["crop_px"]) for run, e in rows] for rows in comparable(both)]
    assert found == [[("c", 48)], [("c", 52), ("d", 52)]]


@pytest.mark.slow
@pytest.mark.parametrize("num", [174, 400])
def test_many_classes_are_a_picture_without_names_and_lists_with_their_ends(
    num: int, tmp_path: Path, ssan: Any, drawn: None
) -> None:
    names = [f"class {n:03}" for n in range(num)]
    figures = [{"label": name, "num": 10, "top1": n / num} for n, name in enumerate(names)]
    confusion = sorted([[n, n, 5] for n in range(num)] + [[n, (n + 1) % num, 5 + n % 7] for n in range(num)])
    run = write(tmp_path / "many", [start(classes=names), evaluated(per_class=figures, confusion=confusion)])
    assert ssan("report", run).code == 0
    page = Page(Path(run) / "report.html")
    (picture,) = page.images
    assert f"Confusion matrix of {num} classes" in (picture["alt"] or "")
    assert f"{5 * num:,} of " in (picture["alt"] or "")
    frequent = [row for row in page.rows if len(row) == 4 and row[0].startswith("class ")]
    assert len(frequent) == 20
    assert frequent[0] == ["class 006", "class 007", "11", "0.6875"]
    listed = [row[0] for row in page.rows if len(row) == 5 and row[0].startswith("class ")]
    assert listed[:15] == names[:-16:-1]
    assert listed[15:30] == names[14::-1]
    assert listed[30:] == names[::-1]  # all of them, in a fold
    assert len(page.source) < 1_500_000


# ---------------------------------------------------------------------------------------------------- bad input


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, ssan: Any) -> None:
    (tmp_path / "empty").mkdir()
    for folder, said in (("empty", "there is no journal.jsonl in it"), ("nowhere", "there is no such folder")):
        answer = ssan("report", tmp_path / folder)
        assert answer.code == 2
        assert said in answer.err
        assert answer.err.count("\n") == 1
    write(tmp_path / "unknown", [evaluated()])
    assert "the journal has no start" in ssan("report", tmp_path / "unknown").err


def test_a_line_cut_off_at_the_end_is_left_out_and_a_foreign_one_is_refused(tmp_path: Path, ssan: Any) -> None:
    run = write(tmp_path / "run", [start(), epoch(1, 0.5)])
    journal = Path(run) / "journal.jsonl"
    with open(journal, "a", encoding="utf-8") as handle:
        handle.write('{"event": "epoch", "epoch": 2, "val_top1": 0.9')
    answer = ssan("report", run, "--json")
    assert json.loads(answer.out)["runs"][0]["epochs"] == 1
    for foreign in ("}\n", "[1]\n", "[" * 100_000 + "\n"):
        journal.write_text(json.dumps(start()) + "\n" + foreign)
        answer = ssan("report", run)
        assert answer.code == 2
        assert f"{journal} line 2: not a line of a journal" in answer.err


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"event": "epoch", "epoch": "two"}, "an epoch without its number: epoch is 'two'"),
        (evaluated(confusion=[[0, 3, 1]]), r"a confusion has [0, 3, 1]"),
        (evaluated(confusion=[[0, 1]]), r"a confusion has [0, 1]"),
        (evaluated(confusion=[[0, 1, 10**30]]), r"a confusion has [0, 1, 1000000000"),
        ({"event": "epoch", "epoch": 10**30}, "an epoch without its number: epoch is '1000000000"),
    ],
)
def test_an_event_that_cannot_be_meant_is_refused(event: dict[str, Any], said: str, tmp_path: Path, ssan: Any) -> None:
    answer = ssan("report", write(tmp_path / "run", [start(), event]))
    assert answer.code == 2
    assert said in answer.err


def test_several_runs_need_a_name_for_their_page_and_none_may_be_named_twice(tmp_path: Path, ssan: Any) -> None:
    run, other = (write(tmp_path / name, WHOLE) for name in ("run", "other"))
    answer = ssan("report", run, other)
    assert answer.code == 2
    assert "-o FILE.html" in answer.err
    answer = ssan("report", run, run + "/.", "-o", tmp_path / "page.html")
    assert answer.code == 2
    assert "it is the same run" in answer.err
    assert "it is a folder" in ssan("report", run, "-o", tmp_path).err
    assert not (tmp_path / "page.html").exists()


# ------------------------------------------------------------------------------- what training and eval write down


@pytest.mark.slow
def test_a_real_run_is_reported_as_it_was_trained_and_evaluated(
    trained: Path, order_set: Path, tmp_path: Path, ssan: Any, drawn: None
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    row = json.loads(ssan("report", tmp_path / "run", "--json").out)["runs"][0]
    (begun,) = read_journal(trained / "journal.jsonl", "start")
    (end,) = read_journal(trained / "journal.jsonl", "end")
    assert (row["best_epoch"], row["val_top1"]) == (end["best_epoch"], end["val_top1"])
    assert begun["environment"]["torch"] == torch.__version__
    assert begun["environment"]["python"] == ".".join(map(str, sys.version_info[:3]))
    (found,) = read_journal(trained / "journal.jsonl", "evaluated")
    test = DataSource(str(order_set)).read("test")
    assert (found["split"], found["list"], found["num_scored"]) == ("test", hash_list(test), len(test))
    assert found["data"] == begun["data"]
    assert found["seconds"] > 0
    assert "failed" not in found
    assert found["num_failed"] == found["num_missing"] == 0
    assert sum(cell[2] for cell in found["confusion"]) == len(test)
    right = sum(times for true, predicted, times in found["confusion"] if true == predicted)
    assert right / len(test) == found["top1"] == row["evaluations"][0]["top1"]
    # Of each class as many as the list has.
    for index, figures in enumerate(found["per_class"]):
        assert sum(t for true, _, t in found["confusion"] if true == index) == figures["num"]
        assert figures["num"] == sum(sample.label_index == index for sample in test)
    page = Page(tmp_path / "run" / "report.html")
    assert page.needs_nothing()
    assert page.row("parameters") == [f"{begun['cost']['params']:,}"]
    assert f"Top-1 on test {found['top1']:.4f}" in page.text


@pytest.mark.slow
def test_the_page_needs_nothing_of_a_run_but_its_journal(trained: Path, tmp_path: Path, ssan: Any) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(trained / "journal.jsonl", tmp_path / "run")
    assert ssan("report", tmp_path / "run").code == 0


@pytest.mark.slow
def test_a_model_file_that_is_evaluated_outside_a_run_writes_no_journal(
    trained: Path, order_set: Path, tmp_path: Path, ssan: Any
) -> None:
    before = (trained / "journal.jsonl").read_bytes()
    (tmp_path / "imported").mkdir()
    shutil.copy(trained / "model.safetensors", tmp_path / "imported")
    for model in (trained / "model.safetensors", tmp_path / "imported", tmp_path / "imported" / "model.safetensors"):
        assert ssan("eval", model, "--data", order_set, "--workers", 0, "--quiet").code == 0
    assert (trained / "journal.jsonl").read_bytes() == before
    assert os.listdir(tmp_path / "imported") == ["model.safetensors"]


def test_an_evaluation_of_a_run_that_cannot_be_written_to_is_printed_with_a_note(
    trained: Path, order_set: Path, tmp_path: Path, ssan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, tmp_path / "run")

    def refuse(journal: Journal, event: str, **fields: Any) -> None:
        raise PermissionError(13, "Permission denied", str(journal.path))

    monkeypatch.setattr(Journal, "record", refuse)
    answer = ssan("eval", tmp_path / "run", "--data", order_set, "--workers", 0, "--quiet", "--json")
    assert answer.code == 0
    assert 0 <= json.loads(answer.out)["top1"] <= 1
    (note,) = answer.err.splitlines()
    assert "the figures could not be added (Permission denied)" in note


def test_a_run_of_an_older_version_is_gone_on_with_and_the_start_stays_as_it_was(
    trained: Path, order_set: Path, tmp_path: Path, ssan: Any
) -> None:
    """Its journal has neither environment nor cost, or others than here."""
    shutil.copytree(trained, tmp_path / "run")
    journal = tmp_path / "run" / "journal.jsonl"
    first, *rest = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    old = json.loads(first)
    del old["cost"]
    old["environment"] = {"torch": "1.0"}
    journal.write_text(json.dumps(old) + "\n" + "".join(rest), encoding="utf-8")
    common = ["--data", order_set, "--workers", 0, "--quiet", "--resume", "--out", tmp_path / "run"]
    settings = ["crop_px=32", "size_px=32", "num_frames=4", "batch=8", "epochs=2", "crop=center", "flip=off"]
    assert ssan("train", "--model", "ssan_tiny", *common, *settings).code == 0
    (begun,) = read_journal(journal, "start")
    assert begun == old


@pytest.mark.slow
def test_a_run_that_fails_says_so_in_its_journal(order_set: Path, tmp_path: Path, ssan: Any) -> None:
    arguments = ["--data", order_set, "--workers", 0, "--quiet", "--out", tmp_path / "run"]
    settings = ["crop_px=32", "size_px=32", "num_frames=4", "batch=8", "epochs=2", "lr=1e30", "warmup_epochs=0"]
    assert ssan("train", "--model", "ssan_tiny", *arguments, *settings).code == 2
    (failed,) = read_journal(tmp_path / "run" / "journal.jsonl", "failed")
    assert failed["code"] == "nan"
    assert read_runs([str(tmp_path / "run")])[0].status == "failed"
    assert ssan("train", "--model", "ssan_tiny", *arguments, *settings).code == 2  # refused: it adds nothing
    assert len(read_journal(tmp_path / "run" / "journal.jsonl", "failed")) == 1


class Plain(nn.Module):
    """3 to 2 channels, 3x3, 54 weights; features are means over positions."""

    num_features = 2

    def __init__(self, asks_for_values: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1, bias=False)
        self.asks_for_values = asks_for_values

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(dim=(-2, -1))
        return y * 2 if self.asks_for_values and y.max() > 3 else y


def test_cost_is_that_of_a_clip_of_the_recipe_counted_by_hand() -> None:
    recipe = make_recipe({"num_frames": 5, "crop_px": 7})
    # 5 frames of 7x7 positions of 54 weights, and 2 features to 3 classes in each frame.
    expected = {"params": 54 + 3 * 2 + 3, "macs": 5 * 49 * 54 + 5 * 2 * 3, "num_frames": 5, "crop_px": 7}
    assert cost(Classifier(Plain(), 3), recipe) == expected


def test_a_network_that_cannot_be_counted_is_trained_all_the_same() -> None:
    model = Classifier(Plain(asks_for_values=True), 3)
    with pytest.raises(RuntimeError):
        multiply_adds(model, 5, 7)
    assert cost(model, make_recipe({"num_frames": 5, "crop_px": 7}))["macs"] is None


def test_looking_at_environment_and_cost_draws_no_random_number_and_leaves_the_model_alone() -> None:
    model = Classifier(Plain(), 3).train()
    before = torch.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    surroundings = environment("cpu", 3)
    found = {"environment": surroundings, "cost": cost(model, make_recipe({"num_frames": 5, "crop_px": 7}))}
    assert (surroundings["processes"], surroundings["cuda"]) == (3, None)
    assert json.dumps(found, allow_nan=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_the_commit_is_that_of_the_checkout_the_package_runs_from(tmp_path: Path) -> None:
    import subprocess

    package = tmp_path / "checkout" / "src" / "ssan"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    assert source_commit(package / "__init__.py") is None  # no history
    git = [
        "git",
        "-C",
        str(tmp_path / "checkout"),
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-c",
        "commit.gpgsign=0",
    ]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    said = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert source_commit(package / "__init__.py") == said
    (package / "__init__.py").write_text("changed")
    assert source_commit(package / "__init__.py") == f"{said}-dirty"
    # Installed into a folder of somebody else's repository, it is not that repository's.
    elsewhere = tmp_path / "checkout" / "a" / "lib" / "ssan"
    elsewhere.mkdir(parents=True)
    (elsewhere / "__init__.py").write_text("")
    assert source_commit(elsewhere / "__init__.py") is None


def test_confusions_are_counted_sparsely_true_class_first() -> None:
    scores = np.array([[3.0, 1, 2], [1, 3, 2], [1, 3, 2], [1, 2, 2], [0, 1, 5]])
    labels = np.array([0, 0, 0, 2, 2])
    assert confusion_counts(scores, labels) == [[0, 0, 1], [0, 1, 2], [2, 1, 1], [2, 2, 1]]
    assert confusion_counts(scores, np.array([0, -1, -1, -1, 2])) == [[0, 0, 1], [2, 2, 1]]


def test_protocols_and_durations_are_said_in_words() -> None:
    assert protocol(PROTOCOL) == (
        "8 frames (segment), 2 views x 3 crops, crop 48 px, resized to square 52 px, mean of logits"
    )
    assert protocol({"views": 1, "crops": 10, "twice": True}) == "1 view x 10 crops, twice=true"
    assert protocol({"num_frames": 8, "sampling": "dense", "stride": 2}) == "8 frames (dense), stride=2"
    assert protocol({"num_frames": 8, "sampling": "segment", "stride": 2, "kind": "split"}) == "8 frames (segment)"
    assert protocol({"kind": "folds", "crop_px": 48}) == "each fold left out in turn, crop 48 px"
    assert [duration(s) for s in (None, 8.25, 59.99, 60, 151.7, 3599, 11103)] == [
        "", "8.2 s", "60.0 s", "1 min 00 s", "2 min 31 s", "59 min 59 s", "3 h 05 min",
    ]  # fmt: skip


def test_a_report_refuses_what_is_no_run_from_python_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run"):
        read_runs([str(tmp_path)])
