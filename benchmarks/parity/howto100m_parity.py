"""Our joint space against the network that reference 22 released, with the same weights on the same captions.

    python -m benchmarks.parity.howto100m_parity --howto100m CHECKOUT

``CHECKOUT`` is a checkout of antoine77340/howto100m. Its ``Net`` is built in float64 with random weights; our joint
space with the ``maxpool`` tower gets the same ones. Both are given the same captions, ours as indices, theirs as word
vectors filled up with zeros, as its loaders make them, and the same features. Printed are the largest differences of
the similarities of all pairs, and of the gradients of every weight (of those of their network that take part), relative
to the largest value; and the seconds of both text sides at the size of a training batch, in float32.
"""

import argparse
import importlib.util
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import RESULTS
from ssan.files import write_json
from ssan.retrieval.embedding import JointSpace
from ssan.retrieval.towers import MaxOverWords, word_embedding

# Theirs: ours.
NAMES = {
    "text_pooling.fc": "tower.fc",
    "GU_text.fc": "text.fc",
    "GU_text.cg.fc": "text.gate",
    "GU_video.fc": "video.fc",
    "GU_video.cg.fc": "video.gate",
}
SIZES = {"word_dim": 300, "dim": 509, "video_dim": 1021, "batch": 67, "max_words": 20, "num_words": 211}


def _their_module(howto100m: Path) -> Any:
    spec = importlib.util.spec_from_file_location("howto100m_model", howto100m / "model.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"no model.py in {howto100m}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _captions(num: int, max_words: int, num_words: int, generator: torch.Generator) -> Tensor:
    """Random captions (num, max_words) of 1 to max_words words, the frequent ones first as in language."""
    rank = torch.arange(1, num_words + 1)
    words_bl = 1 + torch.multinomial(1.0 / rank, num * max_words, replacement=True, generator=generator).view(num, -1)
    length_b1 = torch.randint(1, max_words + 1, (num, 1), generator=generator)
    return words_bl.masked_fill(torch.arange(max_words) >= length_b1, 0)


def _both(howto100m: Path, sizes: dict[str, int], dtype: torch.dtype, generator: torch.Generator) -> Any:
    """Their network, ours with its weights, and the matrix of word vectors."""
    matrix = torch.randn(sizes["num_words"] + 1, sizes["word_dim"], generator=generator)
    matrix[0] = 0
    theirs = _their_module(howto100m).Net(
        embd_dim=sizes["dim"], video_dim=sizes["video_dim"], we_dim=sizes["word_dim"], max_words=sizes["max_words"]
    )
    tower = MaxOverWords(word_embedding(matrix=matrix.numpy(), trained=False), num_features=sizes["dim"])
    ours = JointSpace(tower, [sizes["video_dim"]], sizes["dim"])
    for their_name, our_name in NAMES.items():
        ours.get_submodule(our_name).load_state_dict(theirs.get_submodule(their_name).state_dict())
    return theirs.to(dtype), ours.to(dtype), matrix.to(dtype)


def model_parity(howto100m: Path) -> dict[str, float]:
    """Largest differences of similarities and of gradients, relative to the largest of theirs."""
    generator = torch.Generator().manual_seed(0)
    theirs, ours, matrix = _both(howto100m, SIZES, torch.float64, generator)
    words_bl = _captions(SIZES["batch"], SIZES["max_words"], SIZES["num_words"], generator)
    features_bf = torch.randn(SIZES["batch"], SIZES["video_dim"], generator=generator).double()
    their_scores_bb = theirs(features_bf, matrix[words_bl])
    text_bd, video_bd = ours((words_bl, features_bf))
    our_scores_bb = text_bd @ video_bd.mT
    d_scores_bb = torch.randn(our_scores_bb.shape, generator=generator).double()
    (their_scores_bb * d_scores_bb).sum().backward()
    (our_scores_bb * d_scores_bb).sum().backward()
    found = {"similarities": _difference(our_scores_bb, their_scores_bb)}
    for their_name, our_name in NAMES.items():
        for kind in ("weight", "bias"):
            pair = [
                part.get_submodule(name).get_parameter(kind) for part, name in ((ours, our_name), (theirs, their_name))
            ]
            found[f"gradient of {our_name}.{kind}"] = _difference(pair[0].grad, pair[1].grad)
    return found


def _difference(ours: Tensor | None, theirs: Tensor | None) -> float:
    if ours is None or theirs is None:
        raise SystemExit("a weight has no gradient")
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def text_seconds(howto100m: Path, *, rounds: int = 3) -> dict[str, float]:
    """Median seconds, forward and backward, of both text encoders, before the gated unit, on one thread, interleaved.

    2,048 captions (32 videos of 64 clips) of up to 20 words out of 20,000, to 4,096 features.
    """
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    sizes = SIZES | {"dim": 4096, "batch": 2048, "num_words": 20_000}
    theirs, ours, matrix = _both(howto100m, sizes, torch.float32, generator)
    words_bl = _captions(sizes["batch"], sizes["max_words"], sizes["num_words"], generator)
    d_out_bf = torch.randn(sizes["batch"], sizes["dim"], generator=generator)
    forms: dict[str, tuple[nn.Module, Tensor]] = {
        "theirs": (theirs.text_pooling, matrix[words_bl]),
        "ours": (ours.tower, words_bl),
    }
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds):
        for name, (form, given) in forms.items():
            start = time.perf_counter()
            (form(given) * d_out_bf).sum().backward()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--howto100m", type=Path, required=True, help="a checkout of antoine77340/howto100m")
    howto100m = parser.parse_args().howto100m
    found = model_parity(howto100m)
    seconds = text_seconds(howto100m)
    for name, value in found.items():
        print(f"{name}: {value:.1e}")
    for name, value in seconds.items():
        print(f"seconds of the text encoder, {name}: {value:.2f}")
    gradients = [value for name, value in found.items() if name != "similarities"]
    write_json(
        RESULTS / "howto100m_network.json",
        {"similarities": found["similarities"], "gradients": max(gradients), "all": found, "text_seconds": seconds},
    )


if __name__ == "__main__":
    main()
