"""Ensembles: three videos worked by hand, files that cannot be added, and what is written about the members."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssan.cli.main import status
from ssan.errors import UsageError
from ssan.recognition.compare import compare
from ssan.recognition.ensemble import ensemble, write_ensemble
from ssan.recognition.score_file import read_scores, write_scores

CLASSES = ["fall", "jump", "run"]
IDS = ["v1", "v2", "v3"]
LABELS = [0, 1, 2]
SCORES_A = [[2.0, 0.0, 1.0], [3.0, 1.0, 0.0], [0.0, 2.0, 1.0]]  # falls, falls (wrong), jumps (wrong)
SCORES_B = [[0.0, 1.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 3.0]]  # jumps (wrong), jumps, runs
A = {
    "ids": IDS,
    "scores": SCORES_A,
    "labels": LABELS,
    "classes": CLASSES,
    "protocol": {"split": "val", "views": 1, "crops": 3},
}
# The second file has its videos in another order.
B = {
    "ids": ["v3", "v1", "v2"], "scores": [SCORES_B[2], SCORES_B[0], SCORES_B[1]], "labels": [2, 0, 1],
    "classes": CLASSES, "protocol": {"split": "val", "views": 2, "crops": 3},
}  # fmt: skip


def write(path: Path, whole: dict[str, Any], **changes: Any) -> str:
    content = {**whole, **changes}
    write_scores(
        path, content["ids"], np.array(content["scores"]), content["labels"], content["classes"], content["protocol"]
    )
    return str(path)


@pytest.fixture
def a(tmp_path: Path) -> str:
    return write(tmp_path / "a.npz", A)


@pytest.fixture
def b(tmp_path: Path) -> str:
    return write(tmp_path / "b.npz", B)


def test_two_members_are_added_as_by_hand(a: str, b: str) -> None:
    whole = ensemble([a, b])
    assert whole.ids == IDS
    assert whole.scores.tolist() == [[1.0, 0.5, 0.5], [1.5, 2.5, 0.0], [0.0, 1.0, 2.0]]
    assert whole.answer["num_videos"] == 3
    assert [member["top1"] for member in whole.answer["members"]] == [1 / 3, 2 / 3]
    assert (whole.answer["top1"], whole.answer["top5"], whole.answer["mean_class_accuracy"]) == (1.0, None, 1.0)
    # Wilson's interval of 3 out of 3: from 1 / (1 + z^2 / 3) to 1.
    assert whole.answer["interval95"] == pytest.approx([1 / (1 + 1.959964**2 / 3), 1.0])


def test_a_weight_counts_as_so_many_members(a: str, b: str) -> None:
    whole = ensemble([a, b], weights=[3, 1])
    assert whole.scores.tolist() == [[1.5, 0.25, 0.75], [2.25, 1.75, 0.0], [0.0, 1.5, 1.5]]
    # The second falls again, and in the third two classes are level, which is not right.
    assert whole.answer["top1"] == 1 / 3
    assert [member["weight"] for member in whole.answer["members"]] == [3.0, 1.0]


def test_probabilities_are_added_after_the_softmax_of_each_member(tmp_path: Path) -> None:
    one, other = np.array([[0.69, 0.30, 0.01]]), np.array([[0.05, 0.30, 0.65]])
    files = [
        write(tmp_path / f"{n}.npz", A, ids=["v1"], labels=[0], scores=np.log(shares) + n)
        for n, shares in enumerate((one, other))
    ]
    summed = ensemble(files, average="probabilities")
    np.testing.assert_allclose(np.exp(summed.scores), [[0.37, 0.30, 0.33]], rtol=1e-6)
    # What is in the middle for both wins the sum of logits: 0.3 x 0.3 is more than 0.69 x 0.05.
    assert (summed.scores.argmax(), ensemble(files).scores.argmax()) == (0, 1)
    weighted = ensemble(files, average="probabilities", weights=[1, 3])
    np.testing.assert_allclose(np.exp(weighted.scores), [[0.21, 0.30, 0.49]], rtol=1e-6)


def test_a_probability_too_small_for_a_number_still_has_a_logarithm(tmp_path: Path) -> None:
    files = [
        write(tmp_path / f"{n}.npz", A, ids=["v1"], labels=[0], scores=[[0.0, -5003.0, -7001.0 - n]]) for n in (0, 1)
    ]
    scores = ensemble(files, average="probabilities").scores
    np.testing.assert_allclose(scores, [[0.0, -5003.0, -7001.0 + math.log((1 + math.exp(-1)) / 2)]], rtol=1e-6)


def test_a_member_of_mean_probabilities_is_added_to_one_of_logits(tmp_path: Path) -> None:
    """Logarithms of probabilities are logits less one number a video: the order of classes is that of logits."""
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 101, 3)).astype(np.float32).astype(float)
    shares = one - np.log(np.exp(one).sum(axis=1, keepdims=True))
    ids, labels = [f"v{n}" for n in range(101)], [0] * 101
    files = [
        write(tmp_path / f"{n}.npz", A, ids=ids, labels=labels, scores=scores)
        for n, scores in enumerate((one, other, shares))
    ]
    for average in ("logits", "probabilities"):
        from_logits, from_shares = (ensemble([files[n], files[1]], average=average) for n in (0, 2))  # type: ignore[arg-type]
        assert np.array_equal(from_logits.scores.argsort(axis=1), from_shares.scores.argsort(axis=1))


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_five_members_are_added_as_one_by_one(average: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    num, k, weights = 11, 7, [1.0, 2.0, 0.5, 3.0, 0.25]
    members = [rng.normal(size=(num, k)).astype(np.float32).tolist() for _ in weights]
    common = {"ids": [f"v{n}" for n in range(num)], "labels": [0] * num, "classes": list("abcdefg")}
    files = [write(tmp_path / f"{n}.npz", A, scores=scores, **common) for n, scores in enumerate(members)]
    got = ensemble(files, weights=weights, average=average).scores  # type: ignore[arg-type]
    for row in range(num):
        for column in range(k):
            total = 0.0
            for weight, scores in zip(weights, members, strict=True):
                value = scores[row][column]
                if average == "probabilities":
                    value = math.exp(value) / sum(math.exp(score) for score in scores[row])
                total += weight / 6.75 * value
            expected = math.log(total) if average == "probabilities" else total
            assert got[row, column] == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"ids": ["v3", "w1", "w2"]},
            "{a} and {b} are not about the same videos: 2 in the first only ('v1', 'v2'), 2 in the second only "
            "('w1', 'w2'), 1 in both; score the same videos with each member",
        ),
        (
            {"ids": ["v3", "v1"], "scores": SCORES_B[:2], "labels": [2, 0]},
            "{a} and {b} are not about the same videos: 1 in the first only ('v2'), 0 in the second only (none), 2 in "
            "both; score the same videos with each member",
        ),
        (
            {"classes": ["fall", "run", "jump"]},
            "{a} and {b} have the same classes in another order, from class 1 on ('jump' and 'run'); score both with "
            "the same list of classes (--reader class_order=..., --classes of ssan import)",
        ),
        (
            {"classes": ["fall", "leap", "run"]},
            "{a} and {b} have other classes: 1 in the first only ('jump'), 1 in the second only ('leap'); expected "
            "models of the same classes",
        ),
        (
            {"labels": [2, 0, 2]},
            "1 of 3 videos have one label in {b} and another in the files before it; the first is 'v2': 'run' and "
            "'jump'. Score all with the same annotations: labels must not differ",
        ),
        (
            {"protocol": {"split": "test"}},
            "{a} and {b} are of other splits, 'val' and 'test'; score the same videos with each member",
        ),
        (
            {"ids": ["v3", "v1", "v3"]},
            "{b}: 1 of its ids are there more than once ('v3'); expected each once: leave out the copies",
        ),
        (A, "{b}: it holds the same as {a}, which would count twice; leave one out, or use --weights"),
    ],
    ids=["ids", "fewer ids", "order of classes", "classes", "labels", "split", "repeated ids", "the same"],
)
def test_members_that_cannot_be_added_are_refused(
    changes: dict[str, Any], message: str, a: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = write(tmp_path / "b.npz", B, **changes)
    out = tmp_path / "out.npz"
    assert status(["ensemble", a, other, "-o", str(out), "--json"]) == 2
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", f"ssan: {message.format(a=a, b=other)}\n")
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{a}"], "1 score file was given; an ensemble needs two or more"),
        (["{a}", "{b}", "--weights", "1"], "1 weights for 2 score files; give one for each, in their order"),
        (["{a}", "{b}", "--weights", "1,0"], "the weights are [1.0, 0.0]; they must be above 0: leave out a file that"),
        (["{a}", "{b}", "--weights", "1,nan"], "the weights are [1.0, nan]; they must be above 0"),
        (["{a}", "{b}", "--weights", "1,inf"], "the weights are [1.0, inf]; they must be above 0"),
        (["{a}", "{b}", "--weights", "one,2"], "--weights is 'one,2'; expected a number for each file, as 2,1"),
        (["{a}", "absent.npz"], "absent.npz: no such file; expected a score file, as `ssan eval --scores FILE.npz`"),
        (["{a}", "{b}", "-o", "out.csv"], "out.csv: a score file's name ends in .npz; name it so"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_command_that_cannot_be_carried_out_is_refused(
    arguments: list[str], message: str, a: str, b: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert status(["ensemble", *(argument.format(a=a, b=b) for argument in arguments)]) == 2
    said = capfd.readouterr()
    assert said.err.startswith(f"ssan: {message}")
    assert (said.out, said.err.count("\n")) == ("", 1)


def test_an_unknown_label_contradicts_none(a: str, tmp_path: Path) -> None:
    whole = ensemble([write(tmp_path / "b.npz", B, labels=[-1, -1, -1]), a])
    assert whole.labels.tolist() == [2, 0, 1]
    assert whole.answer["top1"] == 1.0
    assert [member["top1"] for member in whole.answer["members"]] == [2 / 3, 1 / 3]


def test_without_labels_there_are_scores_and_no_accuracies(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.npz", whole, labels=[-1, -1, -1]) for name, whole in (("a", A), ("b", B))]
    whole = ensemble(files)
    for row in (whole.answer, *whole.answer["members"]):
        assert [row[key] for key in ("top1", "top5", "mean_class_accuracy", "interval95")] == [None] * 4
    assert whole.scores[0].tolist() == [1.0, 0.5, 0.5]
    write_ensemble(tmp_path / "out.npz", whole)
    assert read_scores(tmp_path / "out.npz").labels.tolist() == [-1, -1, -1]


def test_labels_of_some_videos_only_are_refused(a: str, tmp_path: Path) -> None:
    files = [
        write(tmp_path / "p.npz", A, labels=[0, -1, 2]), write(tmp_path / "q.npz", B, labels=[-1, 0, -1])
    ]  # fmt: skip
    with pytest.raises(UsageError, match="1 of 3 videos have no label in any of the files; expected labels for all or"):
        ensemble(files)
    assert ensemble([*files, a]).labels.tolist() == LABELS


def test_the_file_names_its_members_and_is_a_score_file_like_any_other(a: str, b: str, tmp_path: Path) -> None:
    out = str(tmp_path / "en.npz")
    assert status(["ensemble", a, b, "--weights", "1,3", "-o", out]) == 0
    written = read_scores(out)
    assert (written.ids, written.classes, written.labels.tolist()) == (IDS, CLASSES, LABELS)
    assert written.protocol == {
        "split": "val",
        "crops": 3,
        "ensemble": "logits",
        "members": [
            {
                "path": path,
                "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
                "weight": weight,
                "protocol": whole["protocol"],
            }
            for path, weight, whole in ((a, 1.0, A), (b, 3.0, B))
        ],
    }
    assert compare(read_scores(a), written)["counts"] == {"both_right": 0, "only_a": 1, "only_b": 2, "neither": 0}
    again = ensemble([out, a])
    assert again.scores[1].tolist() == [1.875, 2.125, 0.0]
    protocol = again.answer["protocol"]
    assert [protocol[key] for key in ("split", "crops", "ensemble")] == ["val", 3, "logits"]
    assert [member["protocol"] for member in protocol["members"]] == [written.protocol, A["protocol"]]


def test_comparing_with_an_ensemble_warns_in_one_short_line(
    a: str, b: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "en.npz")
    write_ensemble(out, ensemble([a, b]))
    assert status(["compare", a, out]) == 0
    assert capfd.readouterr().err == (
        "ssan: the protocols differ, so the models are not all that differs: views 1 and None, ensemble None and "
        "'logits', members None and 2 of them\n"
    )


def test_ties_are_counted_as_whoever_reads_the_file_counts_them(tmp_path: Path) -> None:
    """A difference that the file's 32 bits do not keep makes no answer right."""
    hair = 1 + 2**-23
    one = write(tmp_path / "a.npz", A, ids=["v1"], labels=[0], scores=[[hair, 1.0, 0.0]])
    two = write(tmp_path / "b.npz", A, ids=["v1"], labels=[0], scores=[[8.0, 8.0, 0.0]])
    whole = ensemble([one, two])
    write_ensemble(tmp_path / "out.npz", whole)
    assert compare(read_scores(tmp_path / "out.npz"), read_scores(one))["a"]["top1"] == whole.answer["top1"] == 0.0


def test_the_command_answers_as_its_page_says(a: str, b: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert status(["ensemble", a, b, "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert list(answer) == [
        "schema", "num_videos", "members", "top1", "top5", "mean_class_accuracy", "interval95", "protocol",
    ]  # fmt: skip
    assert answer["schema"] == 1
    assert answer["members"][1] == {
        "path": b, "sha256": hashlib.sha256(Path(b).read_bytes()).hexdigest(), "weight": 1.0, "top1": 2 / 3,
        "top5": None, "mean_class_accuracy": 2 / 3, "interval95": pytest.approx([0.2077, 0.9385], abs=1e-4),
        "protocol": B["protocol"],
    }  # fmt: skip
    assert status(["ensemble", a, b]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "3 videos of val, logits of 2 models added"
    assert lines[1] == " top-1      95 % interval  weight"
    assert lines[2] == f"0.3333 [ 0.0615,  0.7923]       1  {a}"
    assert lines[4] == "1.0000 [ 0.4385,  1.0000]          ensemble"


def test_top5_is_told_of_more_than_five_classes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    classes = [*CLASSES, "sits", "stands", "turns"]
    own = {"scores": [[*row, -1.0, -1.0, -1.0] for row in SCORES_A], "classes": classes}
    other = {"scores": [[*row, -1.0, -1.0, -2.0] for row in SCORES_A], "classes": classes}
    assert status(["ensemble", write(tmp_path / "a.npz", A, **own), write(tmp_path / "b.npz", A, **other)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[1] == " top-1      95 % interval   top-5  weight"
    assert lines[4] == "0.3333 [ 0.0615,  0.7923]  1.0000          ensemble"
