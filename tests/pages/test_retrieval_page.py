"""docs/retrieval.md is made of its head and of the results, and blank where there are none."""

from typing import Any

import pytest
from benchmarks.pages import retrieval


def test_the_page_is_what_the_results_say() -> None:
    assert retrieval.PAGE.read_text(encoding="utf-8") == retrieval.page()


def test_what_was_not_run_is_blank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "results", lambda name: None)
    shown = retrieval.page()
    assert "| SSA |  |  |" in shown
    assert "SSA less TSN" not in shown


def test_figures_are_shown_with_their_spread_and_difference() -> None:
    def row(name: str, r1: float) -> dict[str, Any]:
        seeds = [{"seed": 0, "num_queries": 50}]
        return {"row": name, "num_seeds": 3, "seeds": seeds, "r1": r1, "r1_std": 0.01, "median_rank": 7.25}

    apart = {"r1": {"mean": 0.25, "low": 0.125, "high": 0.375}}
    shown = "\n".join(retrieval.small_table({"rows": [row("ssa", 0.5), row("tsn", 0.25)], "differences": apart}))
    assert "| SSA | 3 | 0.500 ± 0.010 |" in shown
    assert "| 7.2 |" in shown
    assert "SSA less TSN, paired by seed, with the 95 % interval (Student's t): R@1 +0.250 [+0.125, +0.375]." in shown
    assert "50 captions" in shown
