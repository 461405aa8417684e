"""A trained joint space on disk: weights, recipe, vocabulary, and what features it was made for, in one file."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssan.errors import ModelError, UsageError, printable, quoted, shortened
from ssan.features.streams import FeatureStream
from ssan.recipe import RetrievalRecipe, make_retrieval_recipe
from ssan.retrieval.embedding import JointSpace
from ssan.retrieval.pairs import ClipFeatures, Encode
from ssan.retrieval.text import Vocabulary
from ssan.retrieval.towers import TransformerTower, build_tower, hash_text_model, word_embedding
from ssan.weights.model_file import read_model_file, write_model_file, wrong_model
from ssan.weights.state_dict import LoadReport

KIND = "retrieval"
# Numbers of a feature; the largest of published networks have some thousands.
MOST_DIM = 65_536


@dataclass(frozen=True)
class Retriever:
    """A joint space with everything needed to put texts and features into it.

    :param vocabulary: of the text tower; None where a transformers model brings its own.
    :param streams: of each stream of features its ``name`` and ``dim``, and its ``provenance`` as it was in training.
    :param hash: SHA-256 of its tensors.
    """

    model: JointSpace
    recipe: RetrievalRecipe
    vocabulary: Vocabulary | None
    streams: list[dict[str, Any]]
    protocol: dict[str, Any]
    hash: str

    @property
    def encode(self) -> Encode:
        """Captions to what the text tower takes."""
        return encoder(self.model, self.recipe, self.vocabulary)

    def check(self, streams: Sequence[FeatureStream], *, rates: bool = True) -> list[str]:
        """Refuse features that are not those of training; what else differs, in words.

        Of both are compared the number of streams, the length of their vectors, and what is known of where they come
        from: the network by the hash of its weights, what it saw of a video, and how many vectors there are a second.

        :param rates: off, another rate is told of alone: for a joint space that training goes on from.
        :raises ModelError: they differ; it is said where they look exchanged.
        """
        wanted = ", ".join(f"{stream['name']} ({stream['dim']})" for stream in self.streams)
        given = ", ".join(f"{stream.name} ({stream.dim})" for stream in streams)
        advice = "give those of training, each by its name, as " + " ".join(
            f"--features {stream['name']}=PATH" for stream in self.streams
        )
        if [stream.dim for stream in streams] != [stream["dim"] for stream in self.streams]:
            raise ModelError(f"it was trained on features {wanted}, and is given {given}; {advice}", code="wrong_model")
        refused: list[str] = []
        notes: list[str] = []
        for stream, known in zip(streams, self.streams, strict=True):
            for key in (*OF_THE_NETWORK, *OF_THE_RATE):
                was, now = known["provenance"].get(key), stream.provenance.get(key)
                if was is None or now is None or json.dumps(was, sort_keys=True) == json.dumps(now, sort_keys=True):
                    continue
                said = f"features {known['name']}: {_other(key, was, now)}"
                (refused if rates or key in OF_THE_NETWORK else notes).append(said)
        before, after = [str(known.get("given")) for known in self.streams], [stream.name for stream in streams]
        exchanged = before != after and sorted(before) == sorted(after)
        if refused or exchanged:
            problem = "; ".join(refused[:3]) or f"they are given as {', '.join(after)}, and were {', '.join(before)}"
            if exchanged or any(_same_network(streams[0], known) for known in self.streams[1:]):
                problem += ". They look exchanged"
            raise ModelError(
                f"these are not the features that it was trained on: {problem}; {advice}", code="wrong_model"
            )
        unknown = [stream.name for stream in streams if stream.provenance.get("hash") is None]
        if unknown and len({stream.dim for stream in streams}) < len(streams):
            notes.append(
                f"nothing tells which network the features {', '.join(unknown)} are of: that they are not exchanged "
                "cannot be checked"
            )
        return notes


OF_THE_NETWORK = ("hash", "kind", "preprocess", "stream")
OF_THE_RATE = ("window_seconds", "stride_seconds", "vectors_per_second")
"""What is compared of where features come from, as ``extract.provenance`` and files of other forms say it."""


def _same_network(stream: FeatureStream, known: Mapping[str, Any]) -> bool:
    was = [known["provenance"].get(key) for key in ("hash", "stream")]
    return any(was) and was == [stream.provenance.get(key) for key in ("hash", "stream")]


def _other(key: str, was: Any, now: Any) -> str:
    """What a value is and was, in words; of a mapping the first key that differs."""
    if isinstance(was, dict) and isinstance(now, dict):
        inner = next(name for name in (*was, *now) if was.get(name) != now.get(name))
        return _other(f"{key}.{inner}", was.get(inner), now.get(inner))
    was, now = (value[:16] if key == "hash" and isinstance(value, str) else value for value in (was, now))
    return f"{key} is {shortened(str(now), 80)}, and was {shortened(str(was), 80)} in training"


def encoder(model: JointSpace, recipe: RetrievalRecipe, vocabulary: Vocabulary | None) -> Encode:
    """What makes of captions the whole numbers that a text tower takes, (n, l) int64, 0 where nothing stands."""
    if vocabulary is not None:
        return lambda captions: vocabulary.encode(captions, recipe.max_words)
    tower: Any = model.tower
    return lambda captions: np.asarray(tower.encode(captions, recipe.max_words))


def build_space(
    recipe: RetrievalRecipe, vocabulary: Vocabulary | None, matrix: np.ndarray | None, dims: Sequence[int]
) -> JointSpace:
    """The recipe's network with random weights.

    :param matrix: the given word vectors, (words + 1, f); None where they are learned.
    :param dims: the length of each stream's features.
    """
    if vocabulary is None:
        tower: nn.Module = TransformerTower(
            recipe.transformer or "", pooling=recipe.pooling, trained=recipe.train_words
        )
    else:
        if matrix is None:
            words = word_embedding(num_rows=vocabulary.num_rows, word_dim=recipe.word_dim)
        else:
            words = word_embedding(matrix=matrix, trained=recipe.train_words)
        tower = build_tower(recipe.text, words, num_features=text_dim(recipe))
    return JointSpace(tower, list(dims), recipe.dim, aggregate=recipe.aggregate)


def text_dim(recipe: RetrievalRecipe) -> int:
    """The length of what the text tower gives.

    Unsaid by the paper, our choice: 1024 for a recurrent tower. Reference 22's has as many as the joint space.
    """
    return recipe.text_dim or (recipe.dim if recipe.text == "maxpool" else 1024)


def start_from(model: JointSpace, vocabulary: Vocabulary | None, before: Retriever, source: str) -> LoadReport:
    """Take over the weights of a trained joint space; of the word vectors those of the words that both know.

    :raises ModelError: it is a network of another form (code ``wrong_model``).
    """
    WORDS = "tower.words.weight"
    own, theirs = model.state_dict(), before.model.state_dict()
    names = {name for name in (*own, *theirs) if name != WORDS}
    other = next((name for name in sorted(names) if _size(own, name) != _size(theirs, name)), None)
    if other is not None:
        raise ModelError(
            f"the joint space to start from is of another form: {other} is {_size(theirs, other)} in it, expected "
            f"{_size(own, other)}. Use the text tower, dim, text_dim and features that it was trained with",
            code="wrong_model",
            path=source,
        )
    with torch.no_grad():
        for name in names:
            own[name].copy_(theirs[name])
        missing: list[str] = []
        if vocabulary is not None and before.vocabulary is not None:
            if own[WORDS].shape[1] != theirs[WORDS].shape[1]:
                raise ModelError(
                    f"the joint space to start from has word vectors of length {theirs[WORDS].shape[1]}, and "
                    f"{own[WORDS].shape[1]} are asked for; give the vectors that it was trained with",
                    code="wrong_model",
                    path=source,
                )
            rows = {word: row for row, word in enumerate(before.vocabulary.words, start=1)}
            for row, word in enumerate(vocabulary.words, start=1):
                if word in rows:
                    own[WORDS][row] = theirs[WORDS][rows[word]]
            new = sum(word not in rows for word in vocabulary.words)
            missing = [f"{WORDS}: {new} of {len(vocabulary.words)} words"] if new else []
    model.load_state_dict(own)
    return LoadReport(matched=len(theirs), missing=missing)


def _size(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None


def save_retriever(
    path: str | Path,
    model: JointSpace,
    recipe: RetrievalRecipe,
    vocabulary: Vocabulary | None,
    streams: Sequence[Mapping[str, Any]],
    protocol: Mapping[str, Any],
) -> str:
    """Write a joint space with what is needed to use it; returns the hash of its tensors."""
    metadata = {
        "kind": KIND,
        "recipe": recipe.model_dump(),
        "vocabulary": None if vocabulary is None else vocabulary.as_dict(),
        "streams": [dict(stream) for stream in streams],
        "protocol": dict(protocol),
    }
    if isinstance(model.tower, TransformerTower):
        metadata["text_model"] = {"sha256": model.tower.hash}
    return write_model_file(path, model.state_dict(), metadata)


def load_retriever(path: str | Path, device: str = "cpu", *, transformer: str | None = None) -> Retriever:
    """Read a joint space that ``save_retriever`` wrote, in evaluation mode; a run's folder stands for its best model.

    :param transformer: where the folder of its text model lies now, of the transformers library, if that was moved.
    :raises UsageError: that folder is not there; or one is named, and the model has none.
    :raises ModelError: the file is not one of ours, or its parts do not fit together (code ``wrong_model``).
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    tensors, metadata = read_model_file(path)
    recipe, vocabulary, streams, protocol = _described(metadata, path)
    if recipe.text == "transformer":
        recipe = _where_its_text_model_is(recipe, metadata.get("text_model"), transformer, str(path))
    elif transformer is not None:
        raise UsageError("it reads captions by its own vocabulary; leave out --transformer", path=str(path))
    if vocabulary is not None:
        words = tensors.get("tower.words.weight")
        if words is None or words.ndim != 2 or len(words) != vocabulary.num_rows:
            raise wrong_model("its word vectors are not those of its vocabulary; copy the file again", path)
        recipe = recipe.model_copy(update={"word_dim": words.shape[1]})
    return Retriever(
        model=_built(recipe, vocabulary, [stream["dim"] for stream in streams], tensors, path).eval().to(device),
        recipe=recipe,
        vocabulary=vocabulary,
        streams=streams,
        protocol=protocol,
        hash=metadata["sha256"],
    )


def _described(
    metadata: Mapping[str, Any], path: Path
) -> tuple[RetrievalRecipe, Vocabulary | None, list[dict[str, Any]], dict[str, Any]]:
    """What a model file says of its joint space: recipe, vocabulary, streams of features and protocol."""
    if metadata.get("kind") != KIND:
        raise wrong_model(
            "a model of ssan, but not one that finds videos by text; expected what `ssan retrieval train` wrote", path
        )
    streams, given, protocol = metadata.get("streams"), metadata.get("recipe"), metadata.get("protocol") or {}
    if not isinstance(given, dict) or not _are_streams(streams) or not isinstance(protocol, dict):
        raise wrong_model(
            "its metadata lacks the recipe or the streams of features, or its protocol is none; copy the file again",
            path,
        )
    assert isinstance(streams, list)
    try:
        recipe = make_retrieval_recipe({"pooling": "mean", **given})  # as it was before there was such a key
        said = metadata.get("vocabulary")
        vocabulary = None if recipe.text == "transformer" else Vocabulary.from_dict(said)
    except UsageError as error:
        raise wrong_model(
            f"its recipe cannot be built by this version: {error}; use the version it was trained with", path
        ) from error
    return recipe, vocabulary, streams, protocol


def _built(
    recipe: RetrievalRecipe,
    vocabulary: Vocabulary | None,
    dims: Sequence[int],
    tensors: Mapping[str, Tensor],
    path: Path,
) -> JointSpace:
    """The recipe's network with these tensors, which are looked at before any of their size is made."""
    # Without memory: sizes from elsewhere are compared with the tensors that there are.
    with contextlib.nullcontext() if vocabulary is None else torch.device("meta"):
        try:
            built = build_space(recipe, vocabulary, None, dims)
        except UsageError as error:
            if vocabulary is None:  # what its text model lacks on this machine
                raise
            raise wrong_model(f"its recipe cannot be built: {error}; copy the file again", path) from error
    shapes = {name: tensor.shape for name, tensor in built.state_dict().items()}
    other = next((name for name in {**shapes, **tensors} if _shape(tensors, name) != shapes.get(name)), None)
    if other is not None:
        raise wrong_model(
            f"its tensors do not fit its recipe ({recipe.text}, {recipe.dim}): {quoted(other, 80)} is "
            f"{_shape(tensors, other)}, expected {shapes.get(other)}; copy the file again",
            path,
        )
    model = built if vocabulary is None else build_space(recipe, vocabulary, None, dims)
    model.load_state_dict(tensors)
    return model


def _where_its_text_model_is(recipe: RetrievalRecipe, known: Any, now: str | None, path: str) -> RetrievalRecipe:
    """The recipe with the folder of its text model as it lies now, of which configuration and tokeniser are wanted."""
    folder = Path(now or recipe.transformer or "")
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"the text model that it reads captions with was in {printable(str(recipe.transformer))}, and there is "
            f"none in {printable(str(folder))}; name the folder where it lies now with --transformer FOLDER",
            code="missing",
            path=path,
        )
    hash = known.get("sha256") if isinstance(known, dict) else None
    if hash is not None and hash != hash_text_model(folder):
        raise ModelError(
            f"the text model in {printable(str(folder))} is not the one that it was trained with: its configuration "
            "or its tokeniser differs. Name the folder of that one with --transformer FOLDER",
            code="wrong_model",
            path=path,
        )
    return recipe.model_copy(update={"transformer": str(folder)})


def _are_streams(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(stream, dict)
            and isinstance(stream.get("name"), str)
            and type(stream.get("dim")) is int
            and 0 < stream["dim"] <= MOST_DIM
            and isinstance(stream.get("provenance"), dict)
            for stream in value
        )
    )


def _shape(tensors: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None


@torch.inference_mode()
def embed_texts(model: JointSpace, words_nl: np.ndarray, *, batch: int = 512) -> np.ndarray:
    """Embeddings (n, d) float32, each of length 1, of captions as the text tower takes them."""
    device = next(model.parameters()).device
    parts = [
        model.embed_text(torch.from_numpy(words_nl[start : start + batch]).to(device)).float().cpu().numpy()
        for start in range(0, len(words_nl), batch)
    ]
    return np.concatenate(parts)


@torch.inference_mode()
def embed_clips(model: JointSpace, features: ClipFeatures, num: int, *, batch: int = 512) -> np.ndarray:
    """Embeddings (n, d) float32, each of length 1, of the first ``num`` clips that there are features of."""
    device = next(model.parameters()).device
    parts = [
        model.embed_video(_to(features(np.arange(start, min(start + batch, num))), device)).float().cpu().numpy()
        for start in range(0, num, batch)
    ]
    return np.concatenate(parts)


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    return type(value)(_to(inner, device) for inner in value)
