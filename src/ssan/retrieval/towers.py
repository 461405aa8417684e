"""Text towers: the words of a caption, as indices, to one vector a caption.

Words come as int64 (b, l), as ``text.Vocabulary.encode`` gives them: from the beginning of each row, then zeros. A row
of zeros alone, a caption without any known word, gives finite numbers that mean nothing; ``text.unusable`` finds such
captions beforehand.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssan.errors import ModelError, UsageError, on_one_line, unknown
from ssan.files import sha256


def word_embedding(
    *, num_rows: int | None = None, word_dim: int | None = None, matrix: np.ndarray | None = None, trained: bool = True
) -> nn.Embedding:
    """Vectors of words: those of a matrix, or random ones to be learned. Row 0, padding, is and stays zero.

    :param num_rows: of random ones: the number of words and one more, ``Vocabulary.num_rows``.
    :param word_dim: of random ones: their length.
    :param matrix: (num_rows, word_dim), as ``vocabulary_with_vectors`` makes it; instead of the two above.
    :param trained: whether training changes them; vectors that stay random would say nothing.
    :raises UsageError: neither a matrix nor both sizes, both at once, or random vectors that are not trained.
    """
    if matrix is None:
        if num_rows is None or word_dim is None or num_rows < 2 or word_dim < 1:
            raise UsageError(f"words without vectors need num_rows and word_dim; got {num_rows} and {word_dim}")
        if not trained:
            raise UsageError("words without vectors cannot be frozen, they are random; train them, or give vectors")
        return nn.Embedding(num_rows, word_dim, padding_idx=0)
    if num_rows is not None or word_dim is not None:
        raise UsageError("word vectors are given, and num_rows or word_dim beside them; give one or the other")
    if matrix.ndim != 2 or len(matrix) < 2 or matrix[0].any():
        raise UsageError(
            f"word vectors of shape {matrix.shape}; expected a row of zeros for padding, then one for each word"
        )
    weight = torch.from_numpy(matrix.astype(np.float32))
    return nn.Embedding.from_pretrained(weight, freeze=not trained, padding_idx=0)


class LastState(nn.Module):
    """A recurrent network over the words; its last hidden state, at the caption's own end, speaks for the caption.

    With two directions the state of the second, which reads backwards, is that at the first word, and both are joined.
    What comes after a caption's end is never read, so its vector does not depend on ``max_words``
    (test_the_last_state_is_that_of_the_captions_own_end).

    Source: the paper's section 4.2, which calls its network of retrieval "GRU based".

    Unsaid by the paper, our choice: one layer, the last hidden state as the caption's vector, without dropout
    (test_the_last_state_equals_the_loops).

    :param words: ``word_embedding``.
    :param num_features: length of the caption's vector; even with two directions.
    """

    def __init__(
        self,
        words: nn.Embedding,
        *,
        num_features: int = 1024,
        kind: type[nn.GRU] | type[nn.LSTM] = nn.GRU,
        directions: int = 1,
    ) -> None:
        super().__init__()
        if num_features < 1 or num_features % directions:
            raise UsageError(f"num_features is {num_features}; expected a multiple of {directions}")
        self.words = words
        self.num_features = num_features
        self.cell = kind(
            words.embedding_dim, num_features // directions, batch_first=True, bidirectional=directions == 2
        )

    def forward(self, words_bl: Tensor) -> Tensor:
        """Words (b, l) to vectors (b, num_features)."""
        if not len(words_bl):
            return self.words.weight.new_zeros(0, self.num_features)
        # Of a caption without words one step is read, that of padding.
        num_b = (words_bl != 0).sum(dim=1).clamp(min=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(
            self.words(words_bl[:, : int(num_b.max())]), num_b, batch_first=True, enforce_sorted=False
        )
        _, state = self.cell(packed)
        last_dbh: Tensor = state[0] if isinstance(state, tuple) else state  # an LSTM has its memory beside
        return last_dbh.transpose(0, 1).flatten(1)


def gru(words: nn.Embedding, *, num_features: int = 1024) -> LastState:
    """``LastState`` of gated recurrent units."""
    return LastState(words, num_features=num_features)


def bigru(words: nn.Embedding, *, num_features: int = 1024) -> LastState:
    """``LastState`` of gated recurrent units in both directions, each with half of the features."""
    return LastState(words, num_features=num_features, directions=2)


def lstm(words: nn.Embedding, *, num_features: int = 1024) -> LastState:
    """``LastState`` of long short-term memory."""
    return LastState(words, num_features=num_features, kind=nn.LSTM)


class MaxOverWords(nn.Module):
    """Reference 22's sentence encoder: each word alone through a linear layer, and the maximum over the words.

    With x_j the vectors of a caption's words, filled up with zero vectors to ``max_words``::

        v = max_j relu(W x_j + c)

    Reference 22 fills up before the layer and takes the maximum over what was filled up too, so relu(c) takes part
    wherever a caption is shorter than ``max_words``; its released weights want the same, so it is kept here
    (test_padding_takes_part_in_the_maximum). Whether a caption is filled up depends on ``max_words``, by how much does
    not matter.

    A word gives the same wherever it stands, so the layer is applied once to each distinct word of the batch. For 2,048
    captions of up to 20 words this takes a third of the time and a quarter of the memory of the plain form, and the
    same sums are taken (benchmarks/parity/howto100m_parity.py).

    Source: HowTo100M, Miech et al., ICCV 2019, section 4.1, and its released code.

    :param words: ``word_embedding``.
    :param num_features: length of the caption's vector; in reference 22 that of the joint space, 4,096 in its training.
    """

    def __init__(self, words: nn.Embedding, *, num_features: int = 4096) -> None:
        super().__init__()
        self.words = words
        self.num_features = num_features
        self.fc = nn.Linear(words.embedding_dim, num_features)

    def forward(self, words_bl: Tensor) -> Tensor:
        """Words (b, l) to vectors (b, num_features)."""
        distinct_u, places_bl = words_bl.unique(return_inverse=True)
        features_uf = self.fc(self.words(distinct_u))
        # relu of the maximum is the maximum of relu, and there is less of it.
        return F.relu(F.embedding_bag(places_bl, features_uf, mode="max"))


# name: made of (words, num_features=...), ``num_features`` the length of its vectors.
TOWERS: dict[str, Callable[..., nn.Module]] = {
    "gru": gru,
    "bigru": bigru,
    "lstm": lstm,
    "maxpool": MaxOverWords,
}


def build_tower(name: str, words: nn.Embedding, **options: Any) -> nn.Module:
    """A tower of ``TOWERS`` by name."""
    if name not in TOWERS:
        raise UsageError(unknown("text tower", name, TOWERS))
    return TOWERS[name](words, **options)


# ---------------------------------------------------------------------------------------------------- transformers

POOLINGS = ("auto", "mean", "cls", "last", "eos")
# What of a folder decides which tokens a caption becomes, and what the model is; its weights come with our own file.
_DECIDING = re.compile(r"config\.json|(?:tokenizer|vocab|merges|special_tokens|added_tokens|spiece|sentencepiece).*")
_PROJECTED = re.compile(r"[A-Za-z0-9]+TextModelWithProjection")


class TransformerTower(nn.Module):
    """A text model of the transformers library in a folder on this machine, with its own tokeniser.

    Nothing is looked up elsewhere: the folder has the model's config.json, its weights as safetensors, and its
    tokeniser's files, as ``save_pretrained`` writes them. Code that comes with a model is not run and pickled weights
    are not read. Of a model of images and texts (CLIP) the text model is taken, with its projection.

    A caption is (l,) tokens of the model's own tokeniser with the special tokens that it adds. As in a vocabulary 0 is
    padding and no token: index i + 1 stands for token i.

    :param folder: as above.
    :param pooling: how the last layer's vectors make one: their ``mean`` over the caption's tokens, or the one of its
        first token, ``cls`` (as in BERT), of its ``last`` (as in GPT), or of its end-of-text token, ``eos``, through
        the model's projection where it has one (as in CLIP). ``auto`` is ``eos`` with a projection, else ``mean``.
    :param trained: whether training changes the model; where it does not, it stays in evaluation mode, so that what
        it makes of a caption does not depend on what is dropped out.
    :raises UsageError: transformers is not installed, no such folder, or an unknown pooling.
    :raises ModelError: code ``wrong_model``, a folder without a text model that can be read so.
    """

    def __init__(self, folder: str | Path, *, pooling: str = "auto", trained: bool = True) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise UsageError(unknown("pooling", pooling, POOLINGS))
        self.trained = trained
        self.model, projection, self._tokenizer = _load(Path(folder))
        self.hash = hash_text_model(folder)
        self.pooling = ("mean" if projection is None else "eos") if pooling == "auto" else pooling
        self.projection = projection if self.pooling == "eos" else None
        self.num_features = int(self.model.config.hidden_size)
        if self.projection is not None:
            self.num_features = self.projection.out_features
        self.most_words = _longest(self.model.config, self._tokenizer)
        self._end = getattr(self._tokenizer, "eos_token_id", None)
        if not trained:
            self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        return super().train(mode and self.trained)

    def encode(self, captions: list[str], max_words: int) -> np.ndarray:
        """Captions as int64 (n, max_words): the model's tokens plus one, then zeros; longer captions are cut short.

        ``max_words`` counts the special tokens too, and is at most the model's own limit.
        """
        if not 1 <= max_words <= self.most_words:
            raise UsageError(f"max_words is {max_words}; this text model takes 1 to {self.most_words} tokens")
        out = np.zeros((len(captions), max_words), np.int64)
        if captions:
            found = self._tokenizer(captions, truncation=True, max_length=max_words)["input_ids"]
            for row, tokens in zip(out, found, strict=True):
                row[: len(tokens)] = np.array(tokens, np.int64) + 1
        return out

    def forward(self, words_bl: Tensor) -> Tensor:
        """Words (b, l), as ``encode`` gives them, to vectors (b, num_features)."""
        mask_bl = words_bl > 0
        tokens_bl = (words_bl - 1).clamp(min=0)
        # A caption without tokens attends to its first position, so that there is something to attend to.
        seen_bl = mask_bl.clone()
        seen_bl[:, 0] = True
        hidden_blf: Tensor = self.model(input_ids=tokens_bl, attention_mask=seen_bl.long()).last_hidden_state
        if self.pooling == "cls":
            return hidden_blf[:, 0]
        num_b = seen_bl.sum(dim=1)
        if self.pooling == "mean":
            return hidden_blf.masked_fill(~seen_bl[:, :, None], 0).sum(dim=1) / num_b[:, None]
        last_b = num_b - 1
        if self.pooling == "eos" and self._end is not None:
            end_bl = mask_bl & (tokens_bl == self._end)
            last_b = torch.where(end_bl.any(dim=1), end_bl.int().argmax(dim=1), last_b)
        found_bf = hidden_blf[torch.arange(len(num_b), device=num_b.device), last_b]
        return found_bf if self.projection is None else self.projection(found_bf)


def hash_text_model(folder: str | Path) -> str:
    """The SHA-256 over a text model's configuration and tokeniser, by the names and bytes of their files."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        if _DECIDING.fullmatch(path.name) and path.is_file():
            digest.update(f"{path.name}\0{sha256(path)}\0".encode())
    return digest.hexdigest()


def _load(folder: Path) -> tuple[Any, nn.Linear | None, Any]:
    """A text model, its projection into a space of images and texts where it has one, and its tokeniser."""
    if not (folder / "config.json").is_file():
        raise UsageError(
            "no text model there; expected a folder with config.json, model.safetensors and a tokeniser, as "
            "save_pretrained of transformers writes it",
            code="missing",
            path=str(folder),
        )
    try:
        import transformers
    except ImportError:
        raise UsageError(
            "a text model of a folder needs transformers, which is not installed; run: pip install 'ssan[text]'"
        ) from None
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        # A text model that was saved by itself with its projection would lose it as a plain one.
        named = getattr(transformers.AutoConfig.from_pretrained(str(folder), **options), "architectures", None) or [""]
        kind = transformers.AutoModel
        if _PROJECTED.fullmatch(str(named[0])):
            kind = getattr(transformers, str(named[0]), kind)
        model = kind.from_pretrained(str(folder), use_safetensors=True, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **options)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, AttributeError) as problem:
        raise ModelError(
            f"transformers cannot read it as a text model ({on_one_line(problem, 300)}); expected "
            "config.json, model.safetensors and a tokeniser, without code of its own",
            code="wrong_model",
            path=str(folder),
        ) from None
    projection = getattr(model, "text_projection", None)
    model = getattr(model, "text_model", model)
    takes = getattr(type(model), "main_input_name", None)
    if takes != "input_ids" or getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(
            f"{type(model).__name__} is no encoder of text (it takes {takes}); give a text model such as BERT's",
            code="wrong_model",
            path=str(folder),
        )
    return model, projection if isinstance(projection, nn.Linear) else None, tokenizer


def _longest(config: Any, tokenizer: Any) -> int:
    """How many tokens a model takes at most; its tokeniser may say less than its configuration, or nothing."""
    known = [getattr(config, "max_position_embeddings", None), getattr(tokenizer, "model_max_length", None)]
    return min([int(most) for most in known if isinstance(most, int) and most > 0], default=512)
