"""Several processes that evaluate or label videos share the work, and give the answer of one, once."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.forked import ForkedCommand

from ssan.datasets.source import DataSource
from ssan.errors import UsageError
from ssan.processes import Processes, processes
from ssan.recipe import make_recipe
from ssan.recognition.evaluate import Protocol, score
from ssan.recognition.train import complete
from ssan.training.together import Together
from ssan.weights.classifier_file import build_from, load_labeller, save_labeller

# What srun tells the tasks of a job of two on one machine.
TASKS = {
    "SLURM_JOB_NAME": "eval", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_NNODES": "1",
    "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODELIST": "this-machine", "SLURM_NODEID": "0",
    "OMP_NUM_THREADS": "1",
}  # fmt: skip


@pytest.fixture(scope="module")
def videos(order_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Among them one that is cut short."""
    root = Path(shutil.copytree(order_set, tmp_path_factory.mktemp("together") / "videos"))
    cut = Path(DataSource(str(root)).read("val")[2].path)
    cut.write_bytes(cut.read_bytes()[:300])
    return root


@pytest.fixture(scope="module")
def model(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = complete(make_recipe({"model": "ssan_tiny", "crop_px": 32, "size_px": 36, "num_frames": 3}))
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_labeller(path, build_from(recipe, 4), DataSource(str(videos)).read("val").classes, recipe, {})
    return path


class Remembering(Together):
    """A process of several whose others are not there: what each gave is remembered, or was."""

    def each(self, work: Callable[[], Any]) -> list[Any]:
        given: list[list[Any]] = self.group["given"]
        call = self.group["calls"][self.processes.rank] = self.group["calls"].get(self.processes.rank, -1) + 1
        if self.group["replay"]:
            return given[call]
        given += [[None] * self.processes.world] * (call + 1 - len(given))
        given[call] = [*given[call]]
        given[call][self.processes.rank] = work()
        return [given[call][self.processes.rank]] * self.processes.world


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3, 11])
def test_shares_of_whole_batches_make_the_scores_of_one_process(world: int, videos: Path, model: Path) -> None:
    labeller, samples = load_labeller(model), DataSource(str(videos)).read("all")
    protocol = Protocol(views=2)
    alone = score(labeller, samples, protocol, probe=True, batch=6)
    shared: dict[str, Any] = {"given": [], "calls": {}, "replay": False}

    def run(rank: int) -> Any:
        return score(
            labeller, samples, protocol, probe=True, batch=6,
            group=Remembering(Processes(rank=rank, world=world), shared),
        )  # fmt: skip

    for rank in range(world):
        run(rank)
    shared |= {"calls": {}, "replay": True}
    scored = [sum(len(part.good) + len(part.errors) for part in share) for share in shared["given"][1]]
    assert sum(scored) == len(samples) == 40
    assert max(scored) - min(scored) <= 4  # a batch more or less
    for rank in range(world):
        together = run(rank)
        assert together.samples == alone.samples
        assert [str(error) for error in together.errors] == [str(error) for error in alone.errors]
        assert len(together.errors) == 1
        assert all(np.array_equal(together.scores[order], rows) for order, rows in alone.scores.items())


def test_processes_that_find_other_videos_are_refused(videos: Path, model: Path) -> None:
    labeller, samples = load_labeller(model), DataSource(str(videos)).read("val")

    class Other(Together):
        def each(self, work: Callable[[], Any]) -> list[Any]:
            return [work(), "another list"]

    with pytest.raises(UsageError, match="the processes do not find the same videos"):
        score(labeller, samples, Protocol(), group=Other(Processes(world=2)))


def test_items_come_back_in_their_order_by_rounds() -> None:
    items = list(range(41))
    shared: dict[str, Any] = {"given": [], "calls": {}, "replay": False}
    groups = [Remembering(Processes(rank=rank, world=3), shared) for rank in range(3)]
    for group in groups:
        list(group.over(items, lambda item: item * 10))
    shared |= {"calls": {}, "replay": True}
    assert [list(group.over(items, lambda item: item * 10)) for group in groups] == [[n * 10 for n in items]] * 3
    assert list(Together().over(items, lambda item: item * 10)) == [n * 10 for n in items]


def test_in_the_script_of_a_job_what_is_started_without_srun_is_alone_unless_it_trains() -> None:
    script = {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "ENVIRONMENT": "BATCH"}
    assert processes(script, alone_without_srun=True) == Processes()
    with pytest.raises(UsageError, match="not started by srun"):
        processes(script)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ForkedCommand]]:
    """Start a command as one of two tasks; none outlives the test."""
    running = []
    job = str(os.getpid())

    def run(rank: int, *command: object) -> ForkedCommand:
        tasks = {**os.environ, **TASKS, "SLURM_JOB_ID": job, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        running.append(
            ForkedCommand(
                [sys.executable, "-m", "ssan", *map(str, command)],
                env=tasks, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["eval", "predict"])
def test_two_processes_give_the_answer_of_one_once(
    verb: str, videos: Path, model: Path, ssan: Any, start: Callable[..., ForkedCommand], tmp_path: Path
) -> None:
    def command(name: str) -> list[object]:
        common = ["--device", "cpu", "--workers", 0, "--json"]
        if verb == "predict":
            return [verb, model, videos, *common]
        return [verb, model, "--data", videos, "--scores", tmp_path / f"{name}.npz", *common]

    tasks = [start(rank, *command("two")) for rank in range(2)]
    said = [task.communicate(timeout=300) for task in tasks]
    assert [task.returncode for task in tasks] == [1, 1], said  # one video is cut short
    torch.set_num_threads(1)
    alone = ssan(*command("one"))
    assert said[0][0] == alone.out
    assert said[1][0] == ""
    if verb == "eval":
        assert (tmp_path / "two.npz").read_bytes() == (tmp_path / "one.npz").read_bytes()
        assert json.loads(said[0][0])["num_failed"] == 1


@pytest.mark.slow
def test_a_process_that_fails_ends_the_others_too(
    videos: Path, model: Path, start: Callable[..., ForkedCommand], tmp_path: Path
) -> None:
    common = ["--data", videos, "--device", "cpu", "--workers", 0]
    tasks = [start(0, "eval", model, *common), start(1, "eval", tmp_path / "none.safetensors", *common)]
    said = [task.communicate(timeout=300) for task in tasks]
    assert [task.returncode for task in tasks] == [2, 2], said
    assert "no such model file" in said[1][1]
    assert said[0][1].count("\n") == 1
    assert "a process that this one works with has ended" in said[0][1]
