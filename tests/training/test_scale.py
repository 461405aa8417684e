"""Training at scale: many processes, blocks computed twice, a compiled network, synchronised BatchNorm, TSM's rates."""

import copy
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.forked import ForkedCommand
from tests.training_runs import as_torchrun_says
from torch import Tensor, nn

from ssan.errors import TrainingError, UsageError
from ssan.models.catalogue import build
from ssan.models.classifier import Classifier
from ssan.processes import processes
from ssan.recipe import Recipe, make_recipe
from ssan.recognition.train import DataSource, _difference, _open_run, complete, train
from ssan.recognition.trainable import freeze_batch_norm, is_last, synchronise_batch_norm
from ssan.training import fit as fit_module
from ssan.training.activation_checkpointing import recompute
from ssan.training.fit import TrainingModule
from ssan.training.journal import read_journal
from ssan.training.optim import make_optimizer, tsm_multiples

KEYS = {
    "crop_px": 32, "size_px": 36, "epochs": 3, "batch": 4, "num_frames": 3, "lr": 0.01, "lr_rule": "none",
    "crop": "random", "dropout": 0.3, "schedule": "constant",
}  # fmt: skip

# What a run's first record has beside its recipe.
SAME = dict.fromkeys(("data", "num_train", "num_val", "classes", "processes", "train_list", "val_list"), 1)


def recipe(**changes: Any) -> Recipe:
    return make_recipe({"model": "ssan_tiny", **KEYS, "batch": 8, "epochs": 1, **changes})


def state_of(out: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(out / "last" / "state.ckpt", weights_only=True)
    return state


def weights(out: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = state_of(out)["state_dict"]
    return found


# ------------------------------------------------------------------------------------------------------- processes


def _job_with_a_free_port() -> str:
    for job in range(os.getpid(), os.getpid() + 100):
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", processes({**_task(str(job), 0)}).port))
            except OSError:
                continue
            return str(job)
    raise AssertionError("no free port")


def _task(job: str, rank: int) -> dict[str, str]:
    """What srun tells the tasks of a job of two on one machine."""
    return {
        "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": job, "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_NNODES": "1",
        "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODELIST": "this-machine",
        "SLURM_NODEID": "0", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
    }  # fmt: skip


def _start(command: list[str], variables: dict[str, str], log: Path) -> ForkedCommand:
    with open(f"{log}.out", "wb") as answer, open(f"{log}.err", "wb") as said:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        return ForkedCommand(command, stdout=answer, stderr=said, env=environment, start_new_session=True)


@pytest.fixture
def started() -> Iterator[list[ForkedCommand]]:
    """Processes of a test; none of them outlives it."""
    running: list[ForkedCommand] = []
    yield running
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
def test_slurms_processes_stopped_and_resumed_end_with_the_weights_of_torchruns(
    order_set: Path, tmp_path: Path, started: list[ForkedCommand]
) -> None:
    overrides = [f"{key}={value}" for key, value in KEYS.items()]
    overrides += ["ema=0.9", "checkpoint_gradients=true", "sync_bn=false", "checkpoint_every_steps=1"]

    def ssan(out: Path, *options: str) -> list[str]:
        common = ["--data", str(order_set), "--workers", "0", "--device", "cpu", "--json", *options]
        return ["-m", "ssan", "train", "--model", "ssan_tiny", "--out", str(out), *common, *overrides]

    def slurm(name: str, *options: str) -> list[ForkedCommand]:
        job, out = _job_with_a_free_port(), tmp_path / "slurm"
        tasks = [
            _start([sys.executable, *ssan(out, *options)], _task(job, rank), tmp_path / f"{name}{rank}")
            for rank in range(2)
        ]
        started.extend(tasks)
        return tasks

    def said(name: str, stream: str = "err") -> str:
        return (tmp_path / f"{name}.{stream}").read_text()

    tasks, state = slurm("stopped"), tmp_path / "slurm" / "last" / "state.ckpt"
    deadline = time.monotonic() + 120
    while not state.exists():
        assert all(task.poll() is None for task in tasks), said("stopped0") + said("stopped1")
        assert time.monotonic() < deadline, "no step in two minutes"
        time.sleep(0.01)
    tasks[1].send_signal(signal.SIGTERM)  # as one of them hears of it, all stop
    assert [task.wait(60) for task in tasks] == [130, 130], said("stopped0") + said("stopped1")
    assert said("stopped0").count("go on with --resume") == 1
    assert said("stopped0").count("2 processes on 1 machine, by slurm; 4 clips of a batch on each") == 1
    assert said("stopped1") == said("stopped0", "out") == said("stopped1", "out") == ""
    stopped_at = state_of(tmp_path / "slurm")["global_step"]
    assert 1 <= stopped_at < 12

    tasks = slurm("resumed", "--resume", "--quiet")
    assert [task.wait(120) for task in tasks] == [0, 0], said("resumed0") + said("resumed1")
    assert json.loads(said("resumed0", "out"))["resumed_from_step"] == stopped_at
    assert said("resumed1", "out") == ""

    command = [sys.executable, *ssan(tmp_path / "torchrun", "--quiet")]
    whole = [
        _start(command, variables, tmp_path / f"torchrun{rank}") for rank, variables in enumerate(as_torchrun_says())
    ]
    started.extend(whole)
    assert [task.wait(120) for task in whole] == [0, 0], said("torchrun0") + said("torchrun1")
    one, other = state_of(tmp_path / "torchrun"), state_of(tmp_path / "slurm")
    for part in (lambda state: state["state_dict"], lambda state: state["average"]["values"]):
        assert all(torch.equal(part(one)[name], part(other)[name]) for name in part(one))
    rows = [read_journal(tmp_path / name / "journal.jsonl", "epoch") for name in ("torchrun", "slurm")]
    assert [row["epoch"] for row in rows[1]] == [1, 2, 3]
    assert [row["val_loss"] for row in rows[0]] == [row["val_loss"] for row in rows[1]]
    (start,) = read_journal(tmp_path / "slurm" / "journal.jsonl", "start")
    assert (start["processes"], start["machines"], start["effective_batch"]) == (2, 1, 8)


@pytest.mark.slow
def test_a_run_in_a_shell_within_slurm_is_one_process(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**_task("7", 0), "SLURM_JOB_NAME": "bash", "SLURM_NTASKS_PER_NODE": "5"}.items():
        monkeypatch.setenv(name, value)
    train(recipe(), DataSource(str(order_set)), tmp_path / "run", quiet=True)
    (start,) = read_journal(tmp_path / "run" / "journal.jsonl", "start")
    assert start["processes"] == 1


def test_more_processes_than_gpus_are_refused(order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in _task("7", 1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match=r"2 processes on this machine, but GPUs seen by this one: 1\..*per-task"):
        train(recipe(), DataSource(str(order_set)), tmp_path / "run", device="cuda", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_process_that_is_not_the_first_refuses_what_the_first_refuses(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    train(recipe(), DataSource(str(order_set)), out, quiet=True)
    for name, value in _task("7", 1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="the folder already holds a run"):
        train(recipe(), DataSource(str(order_set)), out, quiet=True)
    with pytest.raises(UsageError, match="cannot resume: the run was started otherwise: processes 1 is now 2"):
        train(recipe(), DataSource(str(order_set)), out, resume=True, quiet=True)


def test_the_first_process_may_have_begun_the_run_a_moment_ago(order_set: Path, tmp_path: Path) -> None:
    _open_run(tmp_path, recipe(), {"recipe": {}, **SAME}, [], resume=False, first=True)
    _open_run(tmp_path, recipe(), {"recipe": {}, **SAME}, [], resume=False, first=False)
    assert len(read_journal(tmp_path / "journal.jsonl", "start")) == 1
    with pytest.raises(UsageError, match="the folder already holds a run"):
        _open_run(tmp_path, recipe(), {"recipe": {}, **SAME}, [], resume=False, first=True)


# ------------------------------------------------------------------------------------------- blocks computed twice


def _pair(name: str = "ssan_tiny") -> tuple[Classifier, Classifier, Tensor]:
    """The same network as it is and with blocks computed twice, and clips (3, 5, 3, 41, 37)."""
    plain, twice = build(name, 7), build(name, 7)
    twice.load_state_dict(plain.state_dict())
    recompute(block for blocks in twice.backbone.stages.values() for block in blocks)  # type: ignore[operator]
    return plain.train(), twice.train(), torch.randint(0, 256, (3, 5, 3, 41, 37), dtype=torch.uint8)


def _step(model: nn.Module, clips: Tensor) -> None:
    torch.manual_seed(3)
    nn.functional.cross_entropy(model(clips), torch.tensor([2, 0, 5])).backward()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssan_tiny", "tsm_tiny", "nl2d1d_tiny", "ssan_mobilenet_v2"])
def test_blocks_computed_twice_have_the_gradients_of_blocks_computed_once(name: str) -> None:
    plain, twice, clips = _pair(name)
    _step(plain, clips)
    _step(twice, clips)
    for (key, one), other in zip(plain.named_parameters(), twice.parameters(), strict=True):
        assert one.grad is not None
        torch.testing.assert_close(other.grad, one.grad, msg=lambda text, key=key: f"{key}: {text}")
    assert list(twice.state_dict()) == list(plain.state_dict())


def test_blocks_computed_twice_update_batch_norm_once() -> None:
    plain, twice, clips = _pair()
    _step(plain, clips)
    _step(twice, clips)
    statistics = [name for name, _ in plain.named_buffers()]
    assert any("running_var" in name for name in statistics)
    for name in statistics:
        assert torch.equal(twice.get_buffer(name), plain.get_buffer(name)), name
    assert twice.get_buffer("backbone.layer1.0.bn1.num_batches_tracked") == 1


def test_blocks_computed_twice_leave_frozen_batch_norm_frozen() -> None:
    plain, twice, clips = _pair()
    for model in (plain, twice):
        for norm in freeze_batch_norm(model):
            norm.eval()
        _step(model, clips)
    assert twice.get_buffer("backbone.layer1.0.bn1.num_batches_tracked") == 0
    for one, other in zip(plain.parameters(), twice.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad)


class _Dropping(nn.Module):
    """A block that computes often enough to be worth forgetting, and counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(11, 11), nn.Dropout(0.5), nn.Tanh())
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y: Tensor = self.layers(x)
        return y


def test_dropout_drops_the_same_the_second_time() -> None:
    block, x = _Dropping(), torch.randn(13, 11)
    gradients = []
    for twice in (False, True):
        if twice:
            recompute([block])
        block.zero_grad()
        torch.manual_seed(5)
        block(x).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in block.parameters() if parameter.grad is not None])
    assert block.calls == 1 + 2
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        block(x)
    assert block.calls == 4


def _peak_bytes(model: nn.Module, clips: Tensor) -> int:
    """The most memory allocated at a time in a step, over what there was before it."""
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        _step(model, clips)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.mark.slow
def test_blocks_computed_twice_need_less_memory() -> None:
    plain, twice, _ = _pair("tsn_mobilenet_v2")
    clips = torch.randint(0, 256, (3, 3, 3, 67, 67), dtype=torch.uint8)
    before, after = _peak_bytes(plain, clips), _peak_bytes(twice, clips)
    assert before > 50e6
    assert after < 0.6 * before, (before, after)


@pytest.mark.slow
def test_a_run_with_blocks_computed_twice_ends_with_the_same_weights(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    block_type = type(build("ssan_tiny", 3).backbone.layer1[0])  # type: ignore[index]
    forward = block_type.forward
    monkeypatch.setattr(
        block_type, "forward", lambda self, x: (calls.append(torch.is_grad_enabled()), forward(self, x))[1]
    )
    counts = []
    for name, twice in (("once", False), ("twice", True)):
        train(recipe(checkpoint_gradients=twice), DataSource(str(order_set)), tmp_path / name, quiet=True)
        counts.append(sum(calls))
        calls.clear()
    assert counts == [4 * 3, 4 * 3 * 2]
    one, other = weights(tmp_path / "once"), weights(tmp_path / "twice")
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(other[name], one[name])


class _Opaque(nn.Module):
    num_features = 3

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(-2, -1))


def test_a_network_that_does_not_say_its_blocks_is_refused(order_set: Path, tmp_path: Path) -> None:
    own = recipe(model="own", checkpoint_gradients=True)
    with pytest.raises(UsageError, match="a _Opaque does not say which blocks it is made of"):
        train(own.model_copy(update={"dropout": 0.5}), DataSource(str(order_set)), tmp_path / "run", quiet=True,
              model=Classifier(_Opaque(), 4))  # fmt: skip


# ----------------------------------------------------------------------------------------------- a compiled network


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What the compiler is given, which here computes it as it is; its memory is emptied before and after."""
    found: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Callable[..., Any]:
        found.append(graph)
        return graph.forward  # type: ignore[no-any-return]

    monkeypatch.setattr(fit_module, "COMPILER", backend)
    torch._dynamo.reset()
    yield found
    torch._dynamo.reset()


@pytest.mark.slow
def test_a_compiled_run_trains_the_same_weights_under_the_same_names(
    order_set: Path, tmp_path: Path, graphs: list[Any]
) -> None:
    keys: dict[str, Any] = {"model": "tsn_tiny", "dropout": 0.0}
    plain = train(recipe(**keys), DataSource(str(order_set)), tmp_path / "plain", quiet=True)
    assert not graphs
    compiled = train(recipe(**keys, compile=True), DataSource(str(order_set)), tmp_path / "compiled", quiet=True)
    assert graphs
    convolutions = sum(str(node.target).endswith("conv2d>") or "conv2d" in str(node.target)
                       for node in graphs[0].graph.nodes)  # fmt: skip
    assert convolutions == 1 + 3 * 3 + 3, "the whole network in one graph"
    one, other = weights(tmp_path / "plain"), weights(tmp_path / "compiled")
    assert list(one) == list(other)
    for name in one:
        torch.testing.assert_close(other[name], one[name])
    assert compiled["val_top1"] == plain["val_top1"]
    assert state_of(tmp_path / "plain").keys() == state_of(tmp_path / "compiled").keys()


@pytest.mark.slow
def test_a_compiled_network_whose_blocks_are_computed_twice_updates_batch_norm_once(graphs: list[Any]) -> None:
    plain, twice, clips = _pair("tsn_tiny")
    for model in (plain, twice):
        model.dropout.p = 0.0
    _step(plain, clips)
    # What is computed twice is written once by the compiler itself, so it has to be at work here.
    compiled = torch.compile(twice.forward, backend="aot_eager", dynamic=False)
    torch.nn.functional.cross_entropy(compiled(clips), torch.tensor([2, 0, 5])).backward()
    for one, other in zip(plain.parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad)
    for name, statistics in plain.named_buffers():
        torch.testing.assert_close(twice.get_buffer(name), statistics)


def test_without_a_compiler_the_key_is_refused(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match=r"no C\+\+ compiler here \(no-such-compiler is not found\).*compile=true"):
        train(recipe(compile=True), DataSource(str(order_set)), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_network_that_cannot_be_compiled_is_said_in_a_line(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backend(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no rule for this")

    monkeypatch.setattr(fit_module, "COMPILER", backend)
    with pytest.raises(TrainingError, match=r"torch cannot compile this network here .*no rule for this") as caught:
        train(recipe(compile=True), DataSource(str(order_set)), tmp_path / "run", quiet=True)
    assert "\n" not in caught.value.message
    torch._dynamo.reset()


# ------------------------------------------------------------------------------------------- synchronised BatchNorm


def test_on_gpus_every_batch_norm_is_synchronised_and_keeps_its_name_and_weights() -> None:
    model, reference = build("ssan_tiny", 3), build("ssan_tiny", 3)
    reference.load_state_dict(model.state_dict())
    norms = [name for name, part in model.named_modules() if isinstance(part, nn.BatchNorm2d)]
    parameters = dict(model.named_parameters())
    synchronise_batch_norm(model, "cuda")
    assert "backbone.layer1.0.after_conv1.norm" in norms
    assert all(type(model.get_submodule(name)) is nn.SyncBatchNorm for name in norms)
    assert list(model.state_dict()) == list(reference.state_dict())
    assert all(parameters[name] is parameter for name, parameter in model.named_parameters())
    # The blocks that slots and checkpoints are found by are those of the network still.
    assert isinstance(model.backbone.stages["res2"][0].bn1, nn.SyncBatchNorm)  # type: ignore[index]
    assert len(freeze_batch_norm(model)) == len(norms)
    clips = torch.randint(0, 256, (2, 3, 3, 37, 41), dtype=torch.uint8)
    assert torch.equal(model.eval()(clips), reference.eval()(clips))


def test_on_the_cpu_synchronised_batch_norm_is_refused(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in _task("7", 1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=r"sync_bn is true, but torch synchronises BatchNorm on GPUs alone.*cpu"):
        train(recipe(sync_bn=True), DataSource(str(order_set)), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_one_process_has_nothing_to_synchronise_and_says_so(
    order_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(recipe(sync_bn=True), DataSource(str(order_set)), tmp_path / "run")
    assert "sync_bn: one process sees the whole batch, so there is nothing to synchronise" in capsys.readouterr().err
    train(recipe(), DataSource(str(order_set)), tmp_path / "plain", quiet=True)
    one, other = weights(tmp_path / "run"), weights(tmp_path / "plain")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_layer_attached_to_a_batch_norm_is_not_lost_but_refused() -> None:
    model = build("tsn_tiny", 3)
    model.backbone.bn1.register_forward_hook(lambda module, given, out: out)  # type: ignore[union-attr]
    with pytest.raises(UsageError, match=r"a layer is attached to the BatchNorm backbone\.bn1"):
        synchronise_batch_norm(model, "cuda")


# ------------------------------------------------------------------------------------------------------ TSM's rates


def test_tsms_groups_by_hand() -> None:
    model = build("ssan_tiny", 3)
    multiples = tsm_multiples(model, is_last)
    assert multiples.keys() == {name for name, _ in model.named_parameters()}
    assert multiples["fc.weight"] == (5, 1)
    assert multiples["fc.bias"] == (10, 0)
    assert multiples["backbone.conv1.weight"] == multiples["backbone.layer1.0.conv2.weight"] == (1, 1)
    assert multiples["backbone.bn1.weight"] == multiples["backbone.bn1.bias"] == (1, 0)
    assert multiples["backbone.layer1.0.downsample.1.bias"] == (1, 0)
    # A layer in a slot is none of the last, though it has linear layers; its norm is a norm.
    assert multiples["backbone.layer1.0.after_conv1.theta.weight"] == (1, 1)
    assert multiples["backbone.layer1.0.after_conv1.theta.bias"] == (2, 0)
    assert multiples["backbone.layer1.0.after_conv1.norm.weight"] == (1, 0)


def test_all_layers_of_temporal_relations_are_last_ones() -> None:
    multiples = tsm_multiples(build("trn_tiny", 3), is_last)
    assert multiples["consensus.fuse.0.weight"] == multiples["fc.weight"] == (5, 1)
    assert multiples["consensus.score.1.bias"] == multiples["fc.bias"] == (10, 0)


def test_layer_norm_counts_as_a_norm_and_other_weights_as_weights() -> None:
    module = nn.Sequential(nn.LayerNorm(3), nn.GroupNorm(1, 3), nn.Conv1d(3, 5, 1))
    module.register_parameter("scale", nn.Parameter(torch.ones(1)))
    expected = {"0": (1, 0), "1": (1, 0), "2.weight": (1, 1), "2.bias": (2, 0), "scale": (1, 1)}
    for name, found in tsm_multiples(module, lambda name: False).items():
        assert found == expected.get(name, expected.get(name[0])), name


def test_a_step_moves_each_kind_of_weight_by_its_own_rate_and_decay() -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv1d(1, 1, 1), nn.BatchNorm1d(1), nn.Linear(1, 1)

    module = Small()
    for parameter in module.parameters():
        nn.init.constant_(parameter, 2.0)
        parameter.grad = torch.ones_like(parameter)
    optimizer = make_optimizer(
        module, "sgd", lr=0.01, momentum=0.0, weight_decay=0.5, lr_scale=lambda name: 0.5 if name[:2] != "fc" else 1.0,
        multiples=tsm_multiples(module, is_last),
    )  # fmt: skip
    optimizer.step()
    # The gradient is 1, the decay where there is one 0.5 * 2; the backbone's share of the rate is a half.
    expected = {
        "conv.weight": 2 - 0.005 * 2, "conv.bias": 2 - 2 * 0.005, "norm.weight": 2 - 0.005, "norm.bias": 2 - 0.005,
        "fc.weight": 2 - 5 * 0.01 * 2, "fc.bias": 2 - 10 * 0.01,
    }  # fmt: skip
    assert {name: parameter.item() for name, parameter in module.named_parameters()} == pytest.approx(expected)
    shares = {group["lr_scale"]: group["lr"] for group in optimizer.param_groups}
    assert shares == pytest.approx({0.5: 0.005, 1.0: 0.01, 5.0: 0.05, 10.0: 0.1})


@pytest.mark.slow
def test_a_run_by_tsms_recipe_uses_its_groups_and_its_schedule(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[dict[float, float]] = []
    step = TrainingModule.optimizer_step

    def notes(self: TrainingModule, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer, *rest: Any) -> None:
        step(self, epoch, batch_idx, optimizer, *rest)
        rates.append({group["lr_scale"]: group["lr"] for group in optimizer.param_groups})

    monkeypatch.setattr(TrainingModule, "optimizer_step", notes)
    tsm = recipe(parameter_groups="tsm", clip_norm=20, schedule="step", milestones=[1, 2], epochs=3, warmup_epochs=0)
    train(tsm, DataSource(str(order_set)), tmp_path / "run", quiet=True)
    for epoch, base in enumerate([0.01, 0.001, 0.0001]):
        for group in rates[4 * epoch : 4 * epoch + 4]:
            assert group == pytest.approx({1.0: base, 2.0: 2 * base, 5.0: 5 * base, 10.0: 10 * base})
    # Four kinds, of which those at the rate itself fall in two, with decay and without.
    groups = state_of(tmp_path / "run")["optimizer_states"][0]["param_groups"]
    assert [(group["lr_scale"], group["weight_decay"]) for group in groups] == [
        (1.0, 0.0), (1.0, 5e-4), (2.0, 0.0), (5.0, 5e-4), (10.0, 0.0),
    ]  # fmt: skip


def test_the_new_last_layer_starts_as_tsms_does() -> None:
    fc = build("ssan_r18", 101).fc
    assert fc.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert abs(fc.weight.mean().item()) < 2e-5
    assert not fc.bias.any()


# ---------------------------------------------------------------------------------------------------- going on with it


@pytest.mark.parametrize(
    ("key", "value"),
    [("checkpoint_gradients", True), ("compile", True), ("sync_bn", True), ("ema", 0.5), ("parameter_groups", "tsm")],
)
def test_a_run_does_not_go_on_with_another_way_of_training(key: str, value: Any) -> None:
    old, new = ({"recipe": complete(made).model_dump(), **SAME} for made in (recipe(), recipe(**{key: value})))
    before = make_recipe({}).model_dump()[key]
    assert _difference(old, new) == [f"{key} {before!r} is now {value!r}"]


@pytest.mark.slow
def test_a_run_of_a_version_without_a_key_did_as_its_default_says(order_set: Path, tmp_path: Path) -> None:
    out, keys = tmp_path / "run", ("checkpoint_gradients", "compile", "sync_bn", "ema", "parameter_groups")
    train(recipe(), DataSource(str(order_set)), out, quiet=True)
    lines = (out / "journal.jsonl").read_text().splitlines()
    start = json.loads(lines[0])
    for key in keys:
        del start["recipe"][key]
    (out / "journal.jsonl").write_text("\n".join([json.dumps(start), *lines[1:]]) + "\n")
    assert train(recipe(), DataSource(str(order_set)), out, resume=True, quiet=True)["steps"] == 4
    with pytest.raises(UsageError, match=r"cannot resume: .*ema None is now 0\.5"):
        train(recipe(ema=0.5), DataSource(str(order_set)), out, resume=True, quiet=True)


def test_a_copy_of_a_network_with_blocks_computed_twice_computes_its_own() -> None:
    network = build("ssan_tiny", 3)
    recompute(block for blocks in network.backbone.stages.values() for block in blocks)  # type: ignore[union-attr]
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in twin.backbone.parameters():
            parameter.zero_()
    twin.train()(torch.randn(2, 3, 3, 17, 19)).sum().backward()
    assert all(parameter.grad is None for parameter in network.parameters())
    for name, buffer in network.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert buffer == 0, name
    assert any(parameter.grad is not None for parameter in twin.backbone.parameters())
