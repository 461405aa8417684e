"""What all tests share: random state that a test cannot leak, sockets that reach no further than this machine."""

import gc
import json
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.forked import ForkedCommand

from ssan.cli.main import status

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


LONGEST = (
    "reproduce/test_reproduce.py", "training/test_resume.py", "contracts/test_every_entry.py", "video/test_oracle.py",
    "attachment/test_attach.py", "weights/test_imported.py", "training/test_scale.py", "layers/test_ssa.py",
    "recognition/test_train.py", "reproduce/test_joint_tables.py", "datasets/test_fuzz.py", "cli/test_command_line.py",
    "video/test_hostile.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest come first: begun last, one of them would keep one core waiting for the other."""
    rank = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_collection_finish() -> None:
    """What has been imported stays for good: without it, whoever looks for garbage does not look there each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _random_state_and_threads_are_restored() -> Iterator[None]:
    """A command shares the cores out between threads and loader processes; sums are rounded differently after it."""
    states, threads = (random.getstate(), np.random.get_state(), torch.get_rng_state()), torch.get_num_threads()
    torch.manual_seed(0)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def _only_loopback() -> Iterator[None]:
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "127.0.0.1"
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {host}")
        connect(self, address)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


@pytest.fixture(autouse=True, scope="session")
def _nothing_is_remembered_in_the_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Checks of videos remember what they find; here, and in processes that tests start, in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))
        yield


@pytest.fixture
def shared() -> Path:
    """Real videos and weights kept outside the project; the test is skipped where they are not."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def order_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small rendered set in Something-Something V2's layout: four classes in two pairs, 32 px."""
    from ssan.synthetic.dataset import render

    root = tmp_path_factory.mktemp("order_set")
    render(str(root), "order", 40, 0, num_classes=4, size_px=32)
    return root


@pytest.fixture(scope="session")
def trained_once(order_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the small set, two epochs of a tiny SSAN, evaluated on its test split."""
    out = tmp_path_factory.mktemp("trained") / "run"
    settings = ["crop_px=32", "size_px=32", "num_frames=4", "batch=8", "epochs=2", "crop=center", "flip=off"]
    common = ["--data", str(order_set), "--workers", "0", "--quiet"]
    assert status(["train", "--model", "ssan_tiny", "--out", str(out), *common, *settings]) == 0
    assert status(["eval", str(out), "--split", "test", "--probe", *common]) == 0
    return out


@pytest.fixture(scope="module")
def trained(trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of that run for a file of tests: what one file does to it, no other sees."""
    return Path(shutil.copytree(trained_once, tmp_path_factory.mktemp("trained") / "run"))


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips of three classes by four persons, ``CLASS/PERSON_TAKE/``; nothing says a split."""
    from coloured_clips import write_people

    return write_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that is not trained, with classes of its own."""
    from ssan.models.catalogue import build
    from ssan.recipe import make_recipe
    from ssan.weights.classifier_file import save_labeller

    torch.manual_seed(5)
    recipe = make_recipe({"model": "tsn_tiny", "num_frames": 3, "size_px": 32, "crop_px": 32})
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_labeller(path, build("tsn_tiny", 2), ["one", "other"], recipe, {})
    return path


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights and a tokeniser of a few words, as transformers saves them."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "man", "walks", "left", "right"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=10, num_hidden_layers=1, num_attention_heads=2, intermediate_size=7,
        max_position_embeddings=13,
    )  # fmt: skip
    torch.manual_seed(5)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def forked_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``CommandRunner`` starts in a test has imported everything already (see ``forked``); not so torchrun's."""

    def start(command: list[str], **options: Any) -> Any:
        kind: Any = ForkedCommand if command[1:3] == ["-m", "ssan"] else subprocess.Popen
        return kind(command, **options)

    monkeypatch.setattr("ssan.commands.subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": start}))


class Answer:
    """What a command gave: its exit status, and what it printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def ssan(capfd: pytest.CaptureFixture[str]) -> Any:
    """Run a command in this process, as the entry point does."""

    def run(*arguments: object) -> Answer:
        capfd.readouterr()
        code = status([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Answer(code, out, err)

    return run
