"""The page of small sets: equal to its results, blank where nothing was run, and of the recipes that are shipped."""

from pathlib import Path
from typing import Any

from benchmarks.pages import small_sets

from ssan.files import read_json
from ssan.recipe import read_recipe
from ssan.shipped import shipped


def row(seed: int, **changes: Any) -> dict[str, Any]:
    plain = {
        "set": "order", "recipe": "before", "seed": seed, "num_train": 60, "num_val": 32, "num_test": 64,
        "num_classes": 12, "epochs": 12, "best_epoch": 3, "top1": 0.25, "reversed_top1": 0.125, "changed": 0.0,
        "processor_seconds": 54.5,
    }  # fmt: skip
    return plain | changes


def test_the_page_is_that_of_its_results() -> None:
    assert small_sets.PAGE.read_text(encoding="utf-8") == small_sets.page(read_json(small_sets.OUT))


def test_a_line_has_the_mean_of_the_seeds_and_each_and_what_was_not_run_is_blank() -> None:
    rows = [row(0), row(1, top1=0.5, changed=0.25), row(2, num_train=61, top1=0.75)]
    lines = small_sets.page({"rows": rows, "probes": {}, "machine": {"cpu": "a processor"}}).splitlines()
    [was] = [text for text in lines if "as it was" in text and "`order`" in text]
    assert was.split(" | ")[2:] == [
        "by seed", "0.50 (0.25, 0.50, 0.75)", "0.12 (0.12, 0.12, 0.12)", "0.08 (0.00, 0.25, 0.00)", "54 |",
    ]  # fmt: skip
    [other] = [text for text in lines if "tsm_efficientnet_lite0" in text and "Weizmann" in text]
    assert other.split("|")[3:-1] == ["  "] * 5


def test_what_was_is_what_is_but_for_the_start_and_the_rates_of_the_block() -> None:
    now = read_recipe(shipped()["finetune/ssan_mobilenet_v2"])
    changed = {key for key, value in small_sets.BEFORE.items() if getattr(now, key) != value}
    assert changed == {"layer", "freeze_bn", "new_norm_lr_scale", "new_norm_weight_decay"}


def test_of_the_room_nobody_is_learnt_from_who_is_asked_about(tmp_path: Path) -> None:
    rows = [
        f"{layout}_{number}.mp4,{start}.0,{start + 1}.0,{direction},{layout}"
        for layout in ("01", "02")
        for number in range(6)
        for start, direction in ((0, "down"), (2, "up"), (4, ""))
    ]
    room = tmp_path / "dataset" / "ceiling_room"
    (room / "videos").mkdir(parents=True)
    (room / "segments.csv").write_text("\n".join(["video,start_seconds,end_seconds,direction,layout", *rows]))
    for deal in (small_sets.ceiling_video, small_sets.ceiling_layout):
        asked = set()
        for seed in small_sets.SEEDS:
            parts = deal(tmp_path, tmp_path, seed)
            videos = [{sample.video for sample in samples} for samples in (parts.train, parts.val, parts.test)]
            assert all(videos)
            assert sum(map(len, videos)) == len(set().union(*videos)) == 12
            assert sum(map(len, (parts.train, parts.val, parts.test))) == 24
            asked |= videos[2]
            if deal is small_sets.ceiling_layout:
                assert all((name or "").startswith("01") for name in videos[0] | videos[1])
        assert len(asked) == (12 if deal is small_sets.ceiling_video else 6)
