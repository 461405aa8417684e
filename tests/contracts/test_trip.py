"""What a clip meets from its file to the loss: at most eight files of ours, counted while a real training step runs.

Frames are decoded in a process apart, which is not counted here: decoder_server.py answers there, out of decode.py,
with what the files beside it find in the file. Pixels and what is said about them come from there through
decoder_connection.py.
"""

import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import ssan
from ssan.datasets.clips import TrainingClips
from ssan.recipe import make_recipe
from ssan.recognition.train import DataSource, train
from ssan.training.fit import TrainingModule

SRC = Path(ssan.__file__).parent
MOST_FILES = 8


class Trip:
    """Notes every file of the package in which a function is called, from asking for a clip to the first loss."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.under_way = self.over = False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if self.over or not code.co_filename.startswith(str(SRC)):
            return
        if event == "call" and code is TrainingClips.__getitems__.__code__:
            self.under_way = True
        if event == "call" and self.under_way:
            self.files.add(Path(code.co_filename).relative_to(SRC).as_posix())
        if event == "return" and code is TrainingModule.training_step.__code__:
            self.over = True
            sys.setprofile(None)  # what comes after need not be slow


def test_a_clip_meets_at_most_eight_files_on_its_way_to_the_loss(order_set: Path, tmp_path: Path) -> None:
    recipe = make_recipe({"model": "ssan_tiny", "crop_px": 32, "epochs": 1, "batch": 8, "num_frames": 3})
    trip, before = Trip(), sys.getprofile()
    threading.setprofile(trip)  # videos are read ahead in another thread
    sys.setprofile(trip)
    try:
        train(recipe, DataSource(str(order_set)), tmp_path / "run", quiet=True)
    finally:
        sys.setprofile(before)
        threading.setprofile(None)  # type: ignore[arg-type]
    assert trip.over
    # The way itself, so that a shorter count cannot come from looking elsewhere.
    assert {
        "datasets/clips.py",
        "video/reader.py",
        "models/classifier.py",
        "layers/ssa.py",
        "training/fit.py",
    } <= trip.files
    assert len(trip.files) <= MOST_FILES, sorted(trip.files)
