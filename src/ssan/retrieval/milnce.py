"""The text tower of MIL-NCE (Miech et al., CVPR 2020), to one space with the video tower ``s3d_milnce``.

Of the file that antoine77340/S3D_HowTo100M names, ``ssan import FILE --as s3d_milnce`` reads the video tower, whose
512 "classes" are the coordinates of the joint space, and ``read_text_tower`` the other. A clip and a caption are
compared by the dot product of the two, neither of which has length 1; of a video its mean over 4 windows of 32 frames
at 10 a second (issue 3 there).
"""

import os
import tokenize
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ssan.errors import ModelError, UsageError
from ssan.retrieval.text import Vocabulary
from ssan.retrieval.towers import MaxOverWords, word_embedding
from ssan.weights.model_file import wrong_model
from ssan.weights.state_dict import read_state_dict

MAX_WORDS = 16
_UNREADABLE = (OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError)
# Ours: theirs.
_NAMES = {
    "words.words.weight": "text_module.word_embd.weight",
    "words.fc.weight": "text_module.fc1.weight",
    "words.fc.bias": "text_module.fc1.bias",
    "fc.weight": "text_module.fc2.weight",
    "fc.bias": "text_module.fc2.bias",
}


class TextTower(nn.Module):
    """Captions to vectors of the joint space::

        y = V max_j relu(W x_j + b) + c

    with x_j the vectors of a caption's first 16 known words, in lower case and filled up to 16 with the vector of
    padding, which training has changed like any other and which takes part in the maximum. Source: the code's
    ``s3dg.py``.

    :param vocabulary: the words, in the order of their vectors.
    :param word_dim, num_hidden, dim: lengths of x, of the maximum, and of y.
    """

    def __init__(self, vocabulary: Vocabulary, *, word_dim: int = 300, num_hidden: int = 2048, dim: int = 512) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        words = word_embedding(num_rows=vocabulary.num_rows, word_dim=word_dim)
        self.words = MaxOverWords(words, num_features=num_hidden)
        self.fc = nn.Linear(num_hidden, dim)

    @classmethod
    def of(cls, state: Mapping[str, Tensor], words: Sequence[str], source: str = "its tensors") -> "TextTower":
        """The tower of a released file.

        :param state: all its tensors by their names there.
        :param words: of the released list, ``s3d_dict.npy``.
        :raises ModelError: code ``wrong_model``, tensors are missing or do not fit together or the words.
        """
        missing = [theirs for theirs in _NAMES.values() if theirs not in state]
        if missing:
            raise wrong_model(
                f"it has no {missing[0]}: expected MIL-NCE's file, with its text tower as text_module", source
            )
        tensors = {own: state[theirs] for own, theirs in _NAMES.items()}
        vectors, first, last = tensors["words.words.weight"], tensors["words.fc.weight"], tensors["fc.weight"]
        if not vectors.dim() == first.dim() == last.dim() == 2 or len(vectors) != len(words) + 1:
            raise wrong_model(
                f"its words have vectors of shape {tuple(vectors.shape)}, and {len(words):,} words are given; expected "
                "one row for padding and one for each word. Give the list that was released with the file",
                source,
            )
        vocabulary = Vocabulary(words, "howto100m_lower", marks=False)
        with torch.device("meta"):  # sizes from elsewhere are compared before any of their memory is taken
            tower = cls(vocabulary, word_dim=vectors.shape[1], num_hidden=len(first), dim=len(last))
        other = next((key for key, own in tower.state_dict().items() if own.shape != tensors[key].shape), None)
        if other is not None:
            raise wrong_model(
                f"{_NAMES[other]} is {tuple(tensors[other].shape)}, which does not fit the others; expected "
                f"{tuple(tower.state_dict()[other].shape)}",
                source,
            )
        tower.load_state_dict({key: tensor.detach().clone() for key, tensor in tensors.items()}, assign=True)
        return tower.eval()

    def encode(self, captions: Sequence[str], max_words: int = MAX_WORDS) -> np.ndarray:
        """Captions as indices (n, max_words), int64, as ``Vocabulary.encode`` gives them."""
        return self.vocabulary.encode(captions, max_words)

    def forward(self, words_bl: Tensor) -> Tensor:
        """Words (b, l) to vectors (b, dim)."""
        return self.fc(self.words(words_bl))


def read_words(path: str | Path) -> list[str]:
    """The words of ``s3d_dict.npy``, one a row of the vectors, from the second.

    :raises ModelError: it is not there (code ``missing``), or no array of text (``wrong_model``).
    """
    if not os.path.isfile(path):
        raise ModelError("no such list of words; name s3d_dict.npy", code="missing", path=str(path))
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # its header is data, and objects are never unpickled
    except (*_UNREADABLE, tokenize.TokenError) as error:
        raise wrong_model("cannot be read as an array of numpy; give s3d_dict.npy as it was released", path) from error
    if array.ndim != 1 or array.dtype.kind != "U":
        raise wrong_model("no list of words; give s3d_dict.npy as it was released", path)
    return [str(word) for word in array]


def read_text_tower(weights: str | Path, words: str | Path) -> TextTower:
    """The text tower of ``s3d_howto100m.pth`` and its words, ``s3d_dict.npy``.

    :raises ModelError: a file is missing, cannot be read, or they do not belong together.
    """
    try:
        return TextTower.of(read_state_dict(weights), read_words(words), str(weights))
    except UsageError as error:
        raise wrong_model(f"{error}; give the list as it was released", words) from error
