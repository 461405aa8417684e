"""MIL-NCE's text tower: its equation in loops, its words, and its released files, which need not fit together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ssan.errors import ModelError
from ssan.retrieval.milnce import TextTower, read_text_tower, read_words

WORDS = ["pour", "the", "milk", "man's", "'"]
SHAPES = {
    "word_embd.weight": (6, 4), "fc1.weight": (7, 4), "fc1.bias": (7,), "fc2.weight": (3, 7), "fc2.bias": (3,),
}  # fmt: skip


def released(**changes: tuple[int, ...]) -> dict[str, Tensor]:
    """A file as small as one likes, with a tensor of the video tower."""
    generator = torch.Generator().manual_seed(0)
    shapes = SHAPES | {name.replace("_of_", "."): shape for name, shape in changes.items()}
    state = {f"text_module.{name}": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**state, "fc.bias": torch.zeros(3)}


def in_loops(state: dict[str, Tensor], indices: list[int]) -> np.ndarray:
    part = {name: state[f"text_module.{name}"].numpy().astype(np.float64) for name in SHAPES}
    most = np.zeros(7)
    for index in indices:
        hidden = part["fc1.weight"] @ part["word_embd.weight"][index] + part["fc1.bias"]
        most = np.maximum(most, hidden)
    return part["fc2.weight"] @ most + part["fc2.bias"]


def test_a_caption_is_the_maximum_over_its_words_and_the_padding_that_fills_it_up() -> None:
    state = released()
    tower = TextTower.of(state, WORDS).double()
    captions = ["Pour the MILK, 'the' milk!", "unknown", " ".join(["pour"] * 16), "pour " * 16 + "milk"]
    words_bl = tower.encode(captions)
    assert words_bl.shape == (4, 16)
    # 'the' with its apostrophes is another word, which is not known.
    assert words_bl[0].tolist() == [1, 2, 3, 3] + [0] * 12
    with torch.no_grad():
        out = tower(torch.from_numpy(words_bl)).numpy()
    for row, indices in zip(out, [[1, 2, 3, 3, 0], [0], [1], [1]], strict=True):
        np.testing.assert_allclose(row, in_loops(state, indices), atol=1e-9)
    assert not np.allclose(in_loops(state, [1]), in_loops(state, [1, 0])), "padding decides something here"


def test_words_are_lower_case_with_every_apostrophe() -> None:
    tower = TextTower.of(released(), WORDS)
    assert tower.encode(["The MAN'S '"]).tolist()[0][:3] == [2, 4, 5]


def test_both_released_files_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "dict.npy", np.array(WORDS))
    torch.save(released(), tmp_path / "s3d.pth")
    tower = read_text_tower(tmp_path / "s3d.pth", tmp_path / "dict.npy")
    assert tower.vocabulary.words == tuple(WORDS)
    assert not tower.training
    assert torch.equal(tower.fc.weight, released()["text_module.fc2.weight"])
    assert all(parameter.device.type == "cpu" for parameter in tower.parameters())


@pytest.mark.parametrize(
    ("state", "words", "message"),
    [
        ({"fc.bias": torch.zeros(3)}, WORDS, "it has no text_module.word_embd.weight"),
        (released(), WORDS[1:], "and 4 words are given"),
        (released(word_embd_of_weight=(6,)), WORDS, r"vectors of shape \(6,\)"),
        (released(fc2_of_weight=(3, 8)), WORDS, r"text_module.fc2.weight is \(3, 8\).* expected \(3, 7\)"),
        (released(fc1_of_bias=(8,)), WORDS, r"text_module.fc1.bias is \(8,\)"),
        (released(), [*WORDS[:4], "the"], r"'the' stands twice"),
        (released(), [*WORDS[:4], ""], "the empty word"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_do_not_belong_together_are_refused(
    tmp_path: Path, state: dict[str, Tensor], words: list[str], message: str
) -> None:
    np.save(tmp_path / "dict.npy", np.array(words))
    torch.save(state, tmp_path / "s3d.pth")
    with pytest.raises(ModelError, match=message) as caught:
        read_text_tower(tmp_path / "s3d.pth", tmp_path / "dict.npy")
    assert caught.value.code == "wrong_model"


def test_a_list_of_words_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "dict.npy"
    with pytest.raises(ModelError, match="no such list of words") as caught:
        read_words(file)
    assert caught.value.code == "missing"
    whole = tmp_path / "whole.npy"
    np.save(whole, np.array(WORDS))
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array(WORDS, object), allow_pickle=True)
    archive = tmp_path / "archive.npz"
    np.savez(archive, words=np.array(WORDS))
    numbers = tmp_path / "numbers.npy"
    np.save(numbers, np.zeros(5))
    contents = [b"", b"\x93NUMPY\x01\x00", whole.read_bytes()[:-4], whole.read_bytes().replace(b"(5,)", b"(5\x00,"),
                *(path.read_bytes() for path in (objects, archive, numbers))]  # fmt: skip
    for content in contents:
        file.write_bytes(content)
        with pytest.raises(ModelError) as caught:
            read_words(file)
        assert caught.value.code == "wrong_model"
