"""Comparing two models: against resampling one by one, sums of binomial terms, and score files that do not fit."""

import csv
import json
import math
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssan.errors import UsageError
from ssan.recognition.compare import bootstrap_interval, compare, match, mcnemar, protocol_differences, write_table
from ssan.recognition.score_file import ScoreFile, read_scores, write_scores
from ssan.report.plots import gains_plot, save_figure

CLASSES = ["fall", "jump", "run"]
IDS = ["v1", "v2", "v3", "v4", "v5", "v6", "v7"]
LABELS = [0, 0, 1, 1, 1, 2, 2]
#            both right on v1; only A on v2; only B on v3, v4, v6; neither on v5, v7
ANSWERS_A = [0, 0, 2, 0, 2, 0, 0]
ANSWERS_B = [0, 1, 1, 1, 2, 2, 1]


def one_hot(answers: list[int], num_classes: int = 3) -> np.ndarray:
    return np.eye(num_classes)[answers] - 0.5


def file(answers: list[int], **changes: Any) -> ScoreFile:
    whole = {
        "path": "x.npz",
        "ids": IDS,
        "scores": one_hot(answers),
        "labels": np.array(LABELS),
        "classes": CLASSES,
        "protocol": {"views": 1, "crops": 3},
    }
    return ScoreFile(**{**whole, **changes})


def permuted(whole: ScoreFile, rows: list[int], classes: list[str]) -> ScoreFile:
    """The same scores, written down in another order of videos and classes."""
    columns = [whole.classes.index(name) for name in classes]
    return ScoreFile(
        whole.path,
        [whole.ids[row] for row in rows],
        whole.scores[rows][:, columns],
        np.array([columns.index(label) for label in whole.labels[rows]]),
        classes,
        whole.protocol,
    )


def test_seven_videos_are_compared_as_by_hand() -> None:
    got = compare(file(ANSWERS_A), file(ANSWERS_B))
    assert (got["num_videos"], got["a"]["top1"], got["b"]["top1"]) == (7, 2 / 7, 4 / 7)
    assert got["counts"] == {"both_right": 1, "only_a": 1, "only_b": 3, "neither": 2}
    assert got["difference"] == pytest.approx(2 / 7)
    # Of 4 coins at most 1 on one side: 5 of 16 ways; exactly 1: 4 of 16.
    assert got["mcnemar"] == {"exact_p": 10 / 16, "mid_p": 6 / 16}
    assert got["per_class"] == [
        {"label": "jump", "num": 3, "top1_a": 0.0, "top1_b": 2 / 3, "difference": 2 / 3, "only_a": 0, "only_b": 2},
        {"label": "run", "num": 2, "top1_a": 0.0, "top1_b": 0.5, "difference": 0.5, "only_a": 0, "only_b": 1},
        {"label": "fall", "num": 2, "top1_a": 1.0, "top1_b": 0.5, "difference": -0.5, "only_a": 1, "only_b": 0},
    ]
    assert got["protocol_differences"] == {}


def test_the_order_of_videos_and_classes_does_not_matter() -> None:
    a, b = file(ANSWERS_A), file(ANSWERS_B)
    assert compare(a, permuted(b, [4, 2, 6, 0, 1, 5, 3], ["run", "fall", "jump"])) == compare(a, b)


def test_exchanging_the_models_turns_every_sign() -> None:
    forth, back = compare(file(ANSWERS_A), file(ANSWERS_B)), compare(file(ANSWERS_B), file(ANSWERS_A))
    assert forth["difference"] == -back["difference"]
    assert forth["mcnemar"] == back["mcnemar"]
    assert [row["label"] for row in back["per_class"]] == ["fall", "run", "jump"]


def test_a_class_without_a_video_stands_last_without_a_value() -> None:
    four = [*CLASSES, "walk"]
    scores = [np.c_[one_hot(answers), [-9.0] * 7] for answers in (ANSWERS_A, ANSWERS_B)]
    got = compare(file([], scores=scores[0], classes=four), file([], scores=scores[1], classes=four))
    assert got["per_class"][-1] == {
        "label": "walk", "num": 0, "top1_a": None, "top1_b": None, "difference": None, "only_a": 0, "only_b": 0,
    }  # fmt: skip


def test_a_video_whose_best_score_is_shared_is_not_right() -> None:
    level = file(ANSWERS_B, scores=np.zeros((7, 3)))
    assert compare(level, file(ANSWERS_B))["counts"] == {"both_right": 0, "only_a": 0, "only_b": 4, "neither": 3}


def binomial_terms(n: int) -> list[Fraction]:
    return [Fraction(math.comb(n, i), 2**n) for i in range(n + 1)]


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 1), (5, 0), (3, 3), (2, 8), (7, 6), (13, 29), (61, 41)])
def test_mcnemar_is_the_sum_of_binomial_terms_that_are_as_unlikely(only_a: int, only_b: int) -> None:
    terms = binomial_terms(only_a + only_b)
    own = terms[only_a]
    exact = sum((term for term in terms if term <= own), Fraction(0))
    # Those less likely, and half of the two as likely as this one (of the one, in the middle).
    less = sum((term for term in terms if term < own), Fraction(0))
    mid = less + sum((term for term in terms if term == own), Fraction(0)) / 2
    if only_a == only_b:
        mid = Fraction(1)  # twice a half: either side of the middle, and the middle divided between them
    assert mcnemar(only_a, only_b) == (float(exact), float(mid))


def test_mcnemar_has_the_values_worked_by_hand() -> None:
    # Of 10 coins at most 2 heads: 1 + 10 + 45 = 56 of 1024 ways.
    assert mcnemar(2, 8) == (112 / 1024, 67 / 1024)
    assert mcnemar(8, 2) == mcnemar(2, 8)
    assert mcnemar(0, 0) == (1.0, 1.0)


@pytest.mark.parametrize(("only_a", "only_b"), [(2399, 2711), (1009, 5003), (9973, 10007)])
def test_mcnemar_of_thousands_agrees_with_a_sum_of_logarithms(only_a: int, only_b: int) -> None:
    n, k = only_a + only_b, min(only_a, only_b)
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(k + 1)]
    most = max(logs)
    below = 2 * math.exp(most) * math.fsum(math.exp(each - most) for each in logs)
    assert mcnemar(only_a, only_b) == pytest.approx((below, below - math.exp(logs[-1])), rel=1e-8)


def test_mcnemar_of_what_no_float_can_hold_is_zero_and_no_error() -> None:
    assert mcnemar(0, 5003) == (0.0, 0.0)


def naive_interval(signs: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """Draw videos one by one, with replacement, and take the mean of their signs."""
    rng = np.random.default_rng(seed)
    means = [signs[rng.integers(len(signs), size=len(signs))].mean() for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return low, high


@pytest.mark.slow
@pytest.mark.parametrize(("only_a", "only_b", "num"), [(17, 43, 211), (101, 97, 503), (0, 11, 53), (5, 0, 7)])
def test_the_bootstrap_interval_is_that_of_drawing_videos_one_by_one(only_a: int, only_b: int, num: int) -> None:
    signs = np.array([-1] * only_a + [1] * only_b + [0] * (num - only_a - only_b))
    got = bootstrap_interval(only_a, only_b, num, resamples=200_000)
    spread = signs.std() / math.sqrt(num)
    # The ends of 5,000 draws lie within some hundredths of the spread, or on the next multiple of 1 / num.
    assert got == pytest.approx(naive_interval(signs, 5_000, 1), abs=0.12 * spread + 1 / num)


def test_the_bootstrap_interval_of_many_videos_is_the_normal_one() -> None:
    only_a, only_b, num = 1801, 2503, 24_777
    center = (only_b - only_a) / num
    half = 1.959964 * math.sqrt((only_a + only_b) / num - center**2) / math.sqrt(num)
    got = bootstrap_interval(only_a, only_b, num, resamples=100_000)
    assert got == pytest.approx((center - half, center + half), abs=0.02 * half)


def test_the_bootstrap_keeps_pairs_together() -> None:
    """Two models that are right on the same videos differ by nothing in every draw, however uncertain each is."""
    assert bootstrap_interval(0, 0, 101) == (0.0, 0.0)


def test_the_bootstrap_depends_on_its_seed_and_on_nothing_else() -> None:
    assert bootstrap_interval(17, 43, 211, seed=5) == bootstrap_interval(17, 43, 211, seed=5)
    ends = {bootstrap_interval(1801, 2503, 24_777, resamples=301, seed=seed) for seed in range(5)}
    assert len(ends) > 1


def test_videos_of_one_file_only_are_counted_and_named() -> None:
    a, b = file(ANSWERS_A), permuted(file(ANSWERS_B), [1, 2, 3, 4], CLASSES)
    with pytest.raises(UsageError, match=r"3 in the first only \('v1', 'v6', 'v7'\), 0 in the second only \(none\), 4"):
        match(a, b)
    got = compare(a, b, common=True)
    assert (got["num_videos"], got["num_only_in_a"], got["num_only_in_b"]) == (4, 3, 0)
    assert got["counts"] == {"both_right": 0, "only_a": 1, "only_b": 2, "neither": 1}


def test_files_without_a_video_in_common_are_refused_with_common_too() -> None:
    other = file(ANSWERS_B, ids=[f"w{n}" for n in range(7)])
    with pytest.raises(UsageError, match="0 in both"):
        compare(file(ANSWERS_A), other, common=True)


def test_a_video_with_two_labels_is_refused_and_named() -> None:
    with pytest.raises(UsageError, match=r"1 of 7 videos .* 'v4': 'jump' and 'run'"):
        match(file(ANSWERS_A), file(ANSWERS_B, labels=np.array([0, 0, 1, 2, 1, 2, 2])))


def test_other_classes_are_refused_and_named() -> None:
    with pytest.raises(UsageError, match=r"1 in the first only \('jump'\), 1 in the second only \('leap'\)"):
        match(file(ANSWERS_A), file(ANSWERS_B, classes=["fall", "leap", "run"]))


def test_settings_in_which_protocols_differ_are_listed_with_both_values() -> None:
    assert protocol_differences({"views": 1, "crops": 3}, {"views": 2, "crops": 3, "resize": None, "px": 8}) == {
        "views": [1, 2], "px": [None, 8],
    }  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "scores.npz"
    write_scores(path, IDS, one_hot(ANSWERS_A), LABELS, CLASSES, {"views": 1})
    return path


def rewrite(path: Path, **changes: Any) -> None:
    with np.load(path) as whole:
        arrays = {**whole, **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def test_what_was_written_is_read(path: Path) -> None:
    got = read_scores(path)
    assert (got.ids, got.classes, got.labels.tolist(), got.protocol) == (IDS, CLASSES, LABELS, {"views": 1})
    assert np.array_equal(got.scores, one_hot(ANSWERS_A))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "expected", "code"),
    [
        ({"scores": None}, "lacks scores", "bad_annotation"),
        ({"scores": one_hot(ANSWERS_A)[:5]}, r"scores \(5, 3\)", "bad_annotation"),
        ({"scores": one_hot(ANSWERS_A).astype(int)}, "not floating-point", "bad_annotation"),
        ({"scores": np.full((7, 3), np.nan)}, "7 of its 7 videos", "nan"),
        ({"scores": np.where(np.arange(7)[:, None] == 2, -np.inf, 0.0) + np.zeros(3)}, r"1 of .*\('v3'\)", "nan"),
        ({"ids": np.array(["v1", "v2", "v2", "v4", "v1", "v6", "v7"])}, r"2 of its ids .*'v1', 'v2'", "duplicate"),
        ({"ids": np.arange(7)}, "not text", "bad_annotation"),
        ({"ids": np.array(IDS, dtype=object)}, "pickled", "bad_annotation"),
        ({"labels": np.array([0, 0, 1, 1, 1, 2, 3])}, "between 0 and 3", "unknown_label"),
        ({"labels": np.array([0, 0, 1, 1, 1, 2, -2])}, "between -2 and 2", "unknown_label"),
        ({"labels": np.array(LABELS, dtype=float)}, "not whole numbers", "bad_annotation"),
        ({"class_names": np.array(["run", "run", "fall"])}, "'run'", "duplicate"),
        ({"protocol": np.array("views")}, "not JSON", "bad_annotation"),
        ({"protocol": np.array('{"views": 1e999}')}, "finite", "bad_annotation"),
        ({"protocol": np.array("[1]")}, "list", "bad_annotation"),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else None,
)
def test_a_score_file_that_does_not_hold_what_it_should_is_refused(
    changes: dict[str, Any], expected: str, code: str, path: Path
) -> None:
    rewrite(path, **changes)
    with pytest.raises(UsageError, match=expected) as caught:
        read_scores(path)
    assert (caught.value.code, caught.value.path) == (code, str(path))


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    absent = tmp_path / "absent.npz"
    for content, code in [(None, "missing"), (b"", "bad_annotation"), (b"PK\x03\x04 no archive", "bad_annotation")]:
        if content is not None:
            absent.write_bytes(content)
        with pytest.raises(UsageError) as caught:
            read_scores(absent)
        assert caught.value.code == code
    with pytest.raises(UsageError, match="not a file"):
        read_scores(tmp_path)


def test_a_score_file_damaged_anywhere_is_refused_or_read_as_it_was(path: Path) -> None:
    whole = path.read_bytes()
    expected = read_scores(path)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] ^= int(rng.integers(1, 256))
        cut = int(rng.integers(len(whole))) if rng.random() < 0.3 else len(whole)
        path.write_bytes(damaged[:cut])
        try:
            got = read_scores(path)
        except UsageError:
            refused += 1
        else:
            assert got.ids == expected.ids
            assert np.array_equal(got.scores, expected.scores)
    assert refused > 200


@pytest.mark.parametrize(
    "text", ["(((", "{'descr': '(1,,2)f4', 'fortran_order': False, 'shape': (1,)}", "{'descr': []}"]
)
def test_a_header_that_is_no_text_of_numpys_is_one_line(path: Path, text: str) -> None:
    _with_header(path, text)
    with pytest.raises(UsageError, match="damaged or of another kind"):
        read_scores(path)


def test_a_header_that_promises_terabytes_is_refused_before_they_are_asked_for(path: Path) -> None:
    _with_header(path, str({"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**6)}))
    with pytest.raises(UsageError, match="promises"):
        read_scores(path)


def _with_header(path: Path, text: str) -> None:
    """Give the scores of a file another header."""
    header = text.encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["scores.npy"] = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("name", ["ids", "class_names", "protocol"])
def test_text_that_has_no_letters_is_refused(path: Path, name: str) -> None:
    with np.load(path) as whole:
        arrays = {key: whole[key].copy() for key in whole.files}
    arrays[name].reshape(-1).view(np.uint32)[0] = 2**31 - 1
    np.savez(path, **arrays)
    with pytest.raises(UsageError, match=f"{name} has numbers in it that stand for no letter"):
        read_scores(path)


def test_the_table_has_a_line_for_each_class(tmp_path: Path) -> None:
    rows = compare(file(ANSWERS_A), file(ANSWERS_B))["per_class"]
    write_table(tmp_path / "t.csv", [*rows, {**rows[0], "label": "a, b", "num": 0, "difference": None}])
    with open(tmp_path / "t.csv", newline="") as handle:
        read = list(csv.DictReader(handle))
    assert [row["label"] for row in read] == ["jump", "run", "fall", "a, b"]
    assert [float(row["difference"] or "nan") for row in read[:3]] == [row["difference"] for row in rows]
    assert read[3]["difference"] == ""


def gains(*values: float, label: str = "class {}") -> list[dict[str, Any]]:
    ordered = sorted(values, reverse=True)
    return [{"label": label.format(n), "num": 7, "difference": value} for n, value in enumerate(ordered)]


def shown(rows: list[dict[str, Any]], top: int) -> tuple[list[str], list[float]]:
    axes = gains_plot(rows, "title", top=top).axes[0]
    return [text.get_text() for text in axes.get_yticklabels()], [patch.get_width() for patch in axes.patches]


def test_the_figure_shows_the_largest_gains_on_top_and_the_largest_losses_below() -> None:
    names, widths = shown(gains(0.5, 0.25, 0.125, 0.0, -0.125, -0.25, -0.5), top=2)
    assert names == ["class 0  (7)", "class 1  (7)", "", "class 5  (7)", "class 6  (7)"]
    assert widths == [50.0, 25.0, -25.0, -50.0]


def test_the_figure_shows_all_classes_where_there_are_few() -> None:
    assert len(shown(gains(0.5, 0.0, -0.25), top=5)[1]) == 3
    assert shown(gains(0.0, 0.0), top=5)[1] == [0.0, 0.0]


def test_the_figure_has_a_lower_panel_only_where_classes_are_left_unnamed() -> None:
    (alone,) = gains_plot(gains(0.5, 0.0, -0.25, -0.5), "title", top=2).axes
    assert "all 4 classes: 1 gain, 2 lose, 1 stay" in alone.get_xlabel()
    _, below = gains_plot(gains(0.5, 0.0, -0.25, -0.5), "title", top=1).axes
    assert below.get_xlabel() == "all 4 classes: 1 gain, 2 lose, 1 stay"


def test_the_lower_panel_of_the_figure_shows_every_class() -> None:
    rows = gains(*np.linspace(-0.5, 0.5, 173))
    panel = gains_plot([*rows, {"label": "empty", "num": 0, "difference": None}], "title", top=3).axes[1]
    assert [patch.get_height() for patch in panel.patches] == [100 * row["difference"] for row in rows]


@pytest.mark.slow
def test_a_figure_is_drawn_whatever_classes_are_called(tmp_path: Path) -> None:
    rows = gains(0.5, 0.25, -0.5, label="\u8d70 $x_{}$ <&>\n\udcff" + "long " * 40)
    figure = gains_plot(rows, "a $title\udcff\n\u8d70")
    for name in ("a.png", "a.svg", "b.svg"):
        save_figure(figure, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_command_answers_as_its_page_says(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from ssan.cli.main import status

    a, b = str(tmp_path / "a.npz"), str(tmp_path / "b.npz")
    write_scores(a, IDS, one_hot(ANSWERS_A), LABELS, CLASSES, {"views": 1})
    write_scores(b, IDS, one_hot(ANSWERS_B), LABELS, CLASSES, {"views": 2})
    assert status(["compare", a, b, "--json", "--out", str(tmp_path / "out")]) == 0
    out, err = capfd.readouterr()
    answer = json.loads(out)
    assert answer["schema"] == 1
    assert answer["a"]["path"] == a
    assert answer == json.loads((tmp_path / "out" / "compare.json").read_text())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "gains.png", "gains.svg", "classes.csv", "compare.json",
    }  # fmt: skip
    assert "protocols differ" in err
    assert "views 1 and 2" in err

    assert status(["compare", a, b, "--top", "1", "--quiet"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert [line.split()[-1] for line in out.splitlines()[-2:]] == ["jump", "fall"]
    assert "both 1, only A 1, only B 3, neither 2; McNemar p 0.625 exact, 0.375 mid-p" in out


def test_the_command_counts_what_common_leaves_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from ssan.cli.main import status

    a, b = str(tmp_path / "a.npz"), str(tmp_path / "b.npz")
    write_scores(a, IDS, one_hot(ANSWERS_A), LABELS, CLASSES, {})
    write_scores(b, IDS[:5], one_hot(ANSWERS_B[:5]), LABELS[:5], CLASSES, {})
    assert status(["compare", a, b]) == 2
    refusal = capfd.readouterr()
    assert (refusal.out, refusal.err.count("\n")) == ("", 1)
    assert "--common" in refusal.err
    assert status(["compare", a, b, "--common", "--json"]) == 0
    answer = capfd.readouterr()
    assert json.loads(answer.out)["num_only_in_a"] == 2
    assert "2 that only A has" in answer.err


@pytest.mark.slow
def test_comparing_imports_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys; import ssan.recognition.compare, ssan.recognition.score_file, ssan.report.plots; "
        "print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
