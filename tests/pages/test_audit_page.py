"""The table of docs/audit.md is made of the results, and blank where there are none."""

from pathlib import Path
from typing import Any

from benchmarks.pages import audit


def test_the_page_has_the_figures_of_its_results() -> None:
    written = audit.PAGE.read_text(encoding="utf-8")
    assert written == audit.page(written), "run `python -m benchmarks.pages.audit` and commit docs/audit.md"


def test_what_was_not_run_is_blank(tmp_path: Path) -> None:
    shown = audit.page("a<!-- audit:begin -->old<!-- audit:end -->z", tmp_path / "none.json")
    assert "| all |  |  |  |  |  |\n| those for training |  |  |  |  |  |" in shown
    assert (shown[0], shown[-1], "old" in shown) == ("a", "z", False)


def test_shares_are_means_over_draws_with_their_range() -> None:
    def row(precision: float, recall: float, agreement: float) -> dict[str, Any]:
        return {
            "clips": "all", "num_clips": 70, "num_exchanged": 7, "precision": precision,
            "recall_of_all_suspects": recall, "agreement": agreement,
        }  # fmt: skip

    shown = audit.table({"model": "tsn_mobilenet_v2", "rows": [row(0.25, 1.0, 0.5), row(0.75, 0.5, 0.75)]})
    assert "| all, 70 | 2 | 7 | 50% (25% to 75%) | 75% (50% to 100%) | 62% (50% to 75%) |" in shown
    assert "| those for training |  |  |  |  |  |" in shown
    assert "Features of `tsn_mobilenet_v2`" in shown
