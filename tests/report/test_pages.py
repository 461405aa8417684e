"""Pages on any screen, by day and night, of names in any script and of journals with anything in them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup
from test_report import CLASSES, WHOLE, Page, _nothing_is_drawn_unasked, epoch, evaluated, start, write  # noqa: F401

from ssan.cli.main import status
from ssan.report import plots
from ssan.report.fonts import drawable, fonts_for
from ssan.report.matrix import confusion_table


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    run = write(tmp_path_factory.mktemp("page") / "whole", WHOLE)
    assert status(["report", run]) == 0
    return Page(Path(run) / "report.html")


# ------------------------------------------------------------------------------------------- small screens, the dark


def test_a_page_is_readable_in_the_dark_and_a_wide_table_moves_within_its_own_box(page: Page) -> None:
    assert "@media (prefers-color-scheme: dark)" in page.source
    boxes = [a for tag, a in page.tags if tag == "div" and a.get("class") == "scroll"]
    assert len(boxes) == sum(tag == "table" for tag, _ in page.tags) > 5
    for box in boxes:
        assert (box["role"], box["tabindex"]) == ("region", "0")
        assert box["aria-label"]


def test_confusions_of_few_classes_are_a_table_whose_names_are_text(page: Page) -> None:
    head = next(n for n, row in enumerate(page.rows) if row[0] == "true class, by the answer")
    assert page.rows[head : head + 4] == [
        ["true class, by the answer", *CLASSES],
        [CLASSES[0], "4", "3", ""], [CLASSES[1], "1", "9", "1"], [CLASSES[2], "", "", "5"],
    ]  # fmt: skip
    shades = [a["style"] for tag, a in page.tags if tag == "td" and "background" in (a.get("style") or "")]
    assert shades[0] == "background:rgb(31 111 139/0.57)"  # 4 of 7


def test_a_number_is_white_where_that_has_more_contrast_than_the_ink_of_the_page() -> None:
    def luminance(colour: Any) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.asarray(colour) / 255]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for right in range(1, 100):
        cell = right / 100 * np.array([31, 111, 139]) + (1 - right / 100) * np.array([255, 255, 255])
        white, ink = 1.05 / (luminance(cell) + 0.05), (luminance(cell) + 0.05) / (luminance((29, 35, 39)) + 0.05)
        table = str(confusion_table(np.array([[right, 100 - right], [0, 1]]), ["a", "b"]))
        is_white = f'class="strong" style="background:rgb(31 111 139/{right / 100:.2f})"' in table
        assert is_white == (white > ink) or abs(white - ink) < 0.2, right


def test_pairs_have_lines_between_them() -> None:
    counts = np.eye(6, dtype=int)
    lined = str(confusion_table(counts, list("abcdef"), paired=True))
    assert lined.count('<tr class="below">') == 2
    assert lined.count('<th scope="col" dir="auto" class="edge"') == 2
    assert "edge" not in str(confusion_table(counts, list("abcdef")))


@pytest.mark.parametrize(("epochs", "low", "high", "ticks"), [([7], 6, 8, [7]), ([1], 0, 2, [1])])
def test_an_axis_of_one_epoch_shows_that_epoch(
    epochs: list[int], low: float, high: float, ticks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []

    def keep(figure: Any, alt: str, **_: Any) -> Markup:
        figures.append(figure)
        return Markup("")

    monkeypatch.setattr(plots, "as_drawing", keep)
    monkeypatch.setattr(plots, "as_image", keep)
    plots.lines_plot([plots.Line(epochs, [0.5], "k")], "loss", "alt")
    plots.curves_plot({"a": [{"epoch": epoch, "val_top1": 0.5, "train_loss": 1.0} for epoch in epochs]})
    plots.seeds_plot({"a": [dict.fromkeys(epochs, 0.5)]}, "title")
    for axes in [axes for figure in figures for axes in figure.axes]:
        assert axes.get_xlim() == (low, high)
        assert axes.get_xticks().tolist() == ticks


def test_a_small_learning_rate_leaves_the_title_of_its_curve_in_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(plots, "as_drawing", lambda figure, _: figures.append(figure))
    plots.lines_plot([plots.Line([1, 2], [1e-6, 2e-6], "k")], "learning rate", "alt")
    figures[0].draw_without_rendering()
    (axes,) = figures[0].axes
    assert axes.yaxis.get_offset_text().get_text() == ""
    assert {"1e-06", "2e-06"} <= {label.get_text() for label in axes.get_yticklabels()}


def test_names_that_no_font_has_are_numbers_in_a_picture_and_never_boxes() -> None:
    names = [
        "plain",
        "\u5411\u5de6",
        "\u0645\u0634\u064a",
        "\u091a\u0932\u0928\u093e",
        "na\u00efve \u0441\u043b\u043e\u0432\u043e",
    ]
    shown, fonts, num = drawable(names, lambda place: f"class {place + 1}")
    assert (shown[0], shown[4]) == ("plain", names[4]), "what the usual font has is drawn with it"
    assert shown[2] == "class 3", "letters that join from right to left would come out wrong"
    assert shown[3] == "class 4"
    known = fonts_for(set("\u5411\u5de6"))[1] == set()
    assert shown[1] == (names[1] if known else "class 2")
    assert num == 2 + (not known)
    assert not any("Last Resort" in font for font in fonts)
    rows = [{"label": name, "num": 3, "difference": 0.1} for name in names]
    ticks = [label.get_text() for label in plots.gains_plot(rows, "\u0645").axes[0].get_yticklabels()]
    assert ticks[2] == "class in row 3  (3)"
    assert plots.num_numbered(names) == num


def test_a_letter_that_the_usual_font_lacks_is_drawn_with_another(tmp_path: Path) -> None:
    """matplotlib brings the fonts along. A letter that is drawn as a box is warned of, which is an error here."""
    (shown,), fonts, num = drawable(["arc \u2312"], str)
    assert (shown, num, len(fonts)) == ("arc \u2312", 0, 2)
    rows = [{"label": "arc \u2312", "num": 3, "difference": 0.1}]
    plots.gains_plot(rows, "title").savefig(tmp_path / "a.png")
    plots.gains_plot(rows, "title").savefig(tmp_path / "a.svg")
    plots.balance_plot(["arc \u2312"], [3]).savefig(tmp_path / "b.png")


def test_what_turns_text_about_stands_as_its_escape_and_what_joins_letters_stays(tmp_path: Path, ssan: Any) -> None:
    names = ["left\u202eright", "\u0646\u0645\u06cc\u200c\u0631\u0648\u0645", "\x1b[31m"]
    figures = [{"label": name, "num": 2, "top1": 0.5} for name in names]
    run = write(tmp_path / "odd", [start(classes=names), epoch(1, 0.5), evaluated(per_class=figures, confusion=[])])
    assert ssan("report", run).code == 0
    source = (tmp_path / "odd" / "report.html").read_text(encoding="utf-8")
    assert "\u202e" not in source
    assert "\x1b" not in source
    assert "left\\u202eright" in source
    assert names[1] in source
    assert "<h1><bdi>odd</bdi></h1>" in source


ODD = ["1", 1e30, 1e308, float("nan"), float("inf"), 10**400, -(2**70), None, True, [], {}, [[1e30]], "\ud800"]
PLACES = [
    (place, key) for place, event in enumerate(WHOLE) for key in event if place in (0, 1, 6, 7)
]  # the start, an epoch, the end, the evaluation


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(ODD)))
def test_a_journal_with_anything_in_it_gives_a_page_or_one_line(tmp_path: Path, ssan: Any, number: int) -> None:
    run = write(tmp_path / "run", WHOLE)
    for place, key in PLACES[number :: len(ODD)]:
        events = [dict(event) for event in WHOLE]
        events[place][key] = ODD[number]
        text = "".join(json.dumps(event) + "\n" for event in events)
        (tmp_path / "run" / "journal.jsonl").write_text(text, encoding="utf-8")
        answer = ssan("report", run)
        assert answer.code in (0, 2), (place, key)
        assert answer.code == 0 or len(answer.err.splitlines()) == 1, (place, key)


@pytest.mark.parametrize("cell", [[0, 0, 10**30], [0, 0, -1], [0, 0, 1e30], [0, 0, None], [0.0, 0, 1], "x"])
def test_a_count_that_is_none_is_told_in_one_line(tmp_path: Path, ssan: Any, cell: Any) -> None:
    run = write(tmp_path / "run", [start(), epoch(1, 0.5), evaluated(confusion=[cell])])
    answer = ssan("report", run)
    assert answer.code == 2
    assert "a confusion has" in answer.err


def test_a_page_is_named_as_one(tmp_path: Path, ssan: Any) -> None:
    run = write(tmp_path / "run", WHOLE)
    answer = ssan("report", run, "-o", tmp_path / "page.pdf")
    assert answer.code == 2
    assert "a page's name ends in .html" in answer.err


# ------------------------------------------------------------------------------------------------- joint spaces

WAY = {
    "r1": 0.25, "r5": 0.5, "r10": 0.75, "median_rank": 4.0, "mean_rank": 6.5,
    "interval95": {"r1": [0.125, 0.375], "r5": [0.375, 0.625], "r10": [0.625, 0.875]},
}  # fmt: skip
BACK = {**WAY, "r1": 0.375, "mean_rank": 5.5}
JOINT = [
    {
        "event": "start", "time": 1_795_000_000.0, "task": "retrieval",
        "recipe": {"text": "gru", "epochs": 2, "seed": 3},
        "data": {"root": "captions.csv", "val_split": None}, "num_train": 70, "num_skipped": 3, "num_unused": 5,
        "streams": [{"name": "ssa", "dim": 256}], "words": {"num_words": 321}, "cost": {"params": 12345},
    },
    {"event": "epoch", "time": 1.0, "epoch": 1, "train_loss": 1.0, "val_r1": 0.1, "seconds": 3.0},
    {"event": "epoch", "time": 2.0, "epoch": 2, "train_loss": 0.5, "val_r1": 0.2, "seconds": 3.0},
    {"event": "end", "time": 1_795_000_100.0, "best_epoch": 2, "steps": 9},
    {
        "event": "evaluated", "time": 1_795_000_200.0, "split": "test", "text_to_video": WAY, "video_to_text": BACK,
        "num_queries": 50, "num_candidates": 40, "num_missing": 7, "num_ties": 1,
        "protocol": {"split": "test", "positives": "own", "tie_rule": "pessimistic"},
        "twins": {"direction": {"num": 20, "accuracy": 0.6125}},
    },
]  # fmt: skip


def test_a_joint_space_has_a_page_with_its_recalls_both_ways(tmp_path: Path, ssan: Any) -> None:
    run = write(tmp_path / "joint", JOINT)
    answer = ssan("report", run)
    assert answer.code == 0
    assert "finished, text to video R@1 0.2500, video to text R@1 0.3750 on test" in answer.out
    page = Page(tmp_path / "joint" / "report.html")
    assert page.needs_nothing()
    tail = ["0.5000 [0.375, 0.625]", "0.7500 [0.625, 0.875]", "4.0"]
    assert page.row("videos for a text") == ["0.2500 [0.125, 0.375]", *tail, "6.5"]
    assert page.row("texts for a video") == ["0.3750 [0.125, 0.375]", *tail, "5.5"]
    assert page.row("direction") == ["0.6125", "20"]
    assert "captions 50 candidates 40 captions left out 7 ties 1 positives own tie rule pessimistic" in page.text
    assert "best epoch 2, the last one: no captions were kept apart to choose by" in page.text
    assert any("training captions" in (image["alt"] or "") for image in page.images), "not called validation"
    found = json.loads(ssan("report", run, "--json").out)["runs"][0]
    assert (found["task"], found["seed"], found["evaluations"][0]["text_to_video"]["r10"]) == ("retrieval", 3, 0.75)


def test_joint_spaces_are_named_alone(tmp_path: Path, ssan: Any) -> None:
    joint, other = write(tmp_path / "joint", JOINT), write(tmp_path / "run", WHOLE)
    answer = ssan("report", joint, other, "-o", tmp_path / "page.html")
    assert answer.code == 2
    assert "which has a page of its own; name it alone" in answer.err


@pytest.mark.slow
def test_a_joint_space_with_anything_in_its_journal_gives_a_page_or_one_line(tmp_path: Path, ssan: Any) -> None:
    run = write(tmp_path / "joint", JOINT)
    places = [(place, key) for place, event in enumerate(JOINT) for key in event if place != 1]
    for number, (place, key) in enumerate(places[::2]):
        events = [dict(event) for event in JOINT]
        events[place][key] = ODD[number % len(ODD)]
        text = "".join(json.dumps(event) + "\n" for event in events)
        (tmp_path / "joint" / "journal.jsonl").write_text(text, encoding="utf-8")
        assert ssan("report", run).code in (0, 2), (place, key)
