"""Processors of the transformers library: how a folder says that pixels reach its network, read as plain JSON.

None of the library's own processors is made: half of them need torchvision, and what they do is four numbers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ssan.errors import UsageError, few, quoted
from ssan.files import read_json
from ssan.video.preprocess import IMAGENET_MEAN, IMAGENET_STD
from ssan.weights.model_file import wrong_model

# In the library's own order: since version 5 what takes videos comes first.
FILES = ("processor_config.json", "video_preprocessor_config.json", "preprocessor_config.json")
MOST_PX = 1024

_HALF = (0.5, 0.5, 0.5)
# What a processor does where its file leaves a word out, by model_type: the defaults of the library's classes. Those of
# images and those of videos agree. Files of old versions leave out most of them.
_OF_VIDEOMAE = {
    "do_resize": True, "size": {"shortest_edge": 224}, "resample": 2, "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224}, "do_rescale": True, "rescale_factor": 1 / 255, "offset": False,
    "do_normalize": True, "image_mean": _HALF, "image_std": _HALF,
}  # fmt: skip
DEFAULTS: dict[str, dict[str, Any]] = {
    "videomae": _OF_VIDEOMAE,
    "timesformer": _OF_VIDEOMAE,
    "xclip": _OF_VIDEOMAE,
    # From -1 to 1 before the mean is taken off: ``offset`` takes off 1.
    "vivit": {**_OF_VIDEOMAE, "size": {"shortest_edge": 256}, "rescale_factor": 1 / 127.5, "offset": True},
    "vjepa2": {
        **_OF_VIDEOMAE, "size": {"shortest_edge": 292}, "crop_size": {"height": 256, "width": 256},
        "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD,
    },
}  # fmt: skip
_DONE = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_sample_frames"}


@dataclass(frozen=True)
class Processor:
    """How pixels reach a network: x of 0..255 becomes ((x * rescale_factor - offset) - mean) / std.

    :param frames_per_second: at which it takes frames out of a video; None where it leaves that open.
    :param resample: the library's number of its filter (2 bilinear, 3 bicubic); ours is the decoder's, bilinear.
    :param file: where this was read.
    """

    resize: Literal["square", "short_side"]
    size_px: int
    crop_px: int
    rescale_factor: float
    offset: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    frames_per_second: float | None
    resample: int | None
    file: str


def read_processor(folder: Path, kind: str) -> Processor:
    """The processor that lies beside a network's weights.

    :param kind: the network's ``model_type``, whose defaults hold where the file is silent.
    :raises ModelError: there is none, or it asks for what is not done here (code ``wrong_model``).
    """
    said, path = _find(folder)
    told = {**DEFAULTS[kind], **{key: value for key, value in said.items() if value is not None}}
    if str(told.get("video_processor_type")) == "VivitVideoProcessor":
        told["offset"] = True  # which knows no other way
    other = [word for word, value in told.items() if word.startswith("do_") and word not in _DONE and value is True]
    if other:
        raise wrong_model(
            f"it asks for {few(other)}, which is not done here; expected resizing, a crop, rescaling and a mean", path
        )
    if told["do_resize"] is not True:
        raise wrong_model(
            "it resizes no pictures, so that every video would have another size; expected do_resize and a size", path
        )
    if kind == "vjepa2" and told["do_center_crop"] is True:  # whose processor goes by the crop, whatever the file says
        cut, _ = _side(told["crop_size"], "crop_size", path)
        told["size"] = {"shortest_edge": cut * 256 // 224}
    size, square = _side(told["size"], "size", path)
    if told["do_center_crop"] is True:
        crop, _ = _side(told["crop_size"], "crop_size", path)
    elif square:
        crop = size
    else:
        raise wrong_model(
            f"it makes the short side {size} px and cuts nothing, so that pictures are not square; expected "
            "do_center_crop, or a height and a width",
            path,
        )
    if crop > size:
        raise wrong_model(f"it cuts {crop} px out of {size} px; expected a crop that fits", path)
    plain = told["do_normalize"] is not True
    rescaled = told["do_rescale"] is True
    rate = told.get("fps") if told.get("do_sample_frames") is True else None
    return Processor(
        resize="square" if square else "short_side",
        size_px=size,
        crop_px=crop,
        rescale_factor=_number(told["rescale_factor"], "rescale_factor", path, above=0) if rescaled else 1.0,
        offset=1.0 if rescaled and told["offset"] is True else 0.0,
        mean=(0.0, 0.0, 0.0) if plain else _colours(told["image_mean"], "image_mean", path, above=-1e6),
        std=(1.0, 1.0, 1.0) if plain else _colours(told["image_std"], "image_std", path, above=0),
        frames_per_second=None if rate is None else _number(rate, "fps", path, above=0),
        resample=told["resample"] if type(told["resample"]) is int else None,
        file=path.name,
    )


def _find(folder: Path) -> tuple[Mapping[str, Any], Path]:
    for name in FILES:
        path = folder / name
        if not path.is_file():
            continue
        said = json_object(path)
        if name == FILES[0]:  # of a network of texts and videos; older ones say only which classes they are
            nested = [said[part] for part in ("video_processor", "image_processor") if isinstance(said.get(part), dict)]
            if not nested:
                continue
            said = nested[0]
        return said, path
    raise wrong_model(
        f"it says nowhere how pictures are resized and normalised; expected {FILES[2]} or {FILES[1]} beside "
        "config.json, as its maker saved it. Copy it from where the weights came from",
        folder,
    )


def json_object(path: Path) -> dict[str, Any]:
    """A JSON object of a folder from elsewhere.

    :raises ModelError: the file is none (code ``wrong_model``).
    """
    try:
        said = read_json(path)
    except UsageError as error:
        raise wrong_model(f"{error.message}; expected a JSON object", path) from None
    if not isinstance(said, dict):
        raise wrong_model(f"it holds {type(said).__name__}; expected a JSON object", path)
    return said


def _side(said: Any, word: str, path: Path) -> tuple[int, bool]:
    """The side that a size stands for, in pixels, and whether the picture becomes a square."""
    if word == "size" and type(said) is int:  # as files before version 4.23 have it: the short side
        said = {"shortest_edge": said}
    elif type(said) is int:
        said = {"height": said, "width": said}
    keys = {key for key, value in said.items() if value is not None} if isinstance(said, dict) else set()
    if keys == {"shortest_edge"}:
        side, square = said["shortest_edge"], False
    elif keys == {"height", "width"} and said["height"] == said["width"]:
        side, square = said["height"], True
    else:
        raise wrong_model(
            f"its {word} is {quoted(str(said), 80)}; expected a shortest_edge, or a height and a width that are equal",
            path,
        )
    if type(side) is not int or not 1 <= side <= MOST_PX:
        raise wrong_model(f"its {word} is {quoted(str(side), 40)} px; expected 1 to {MOST_PX}", path)
    return side, square


def _colours(said: Any, word: str, path: Path, above: float) -> tuple[float, float, float]:
    values = list(said) if isinstance(said, list | tuple) else [said] * 3
    if len(values) != 3:
        raise wrong_model(f"its {word} has {len(values)} numbers; expected one for each of red, green and blue", path)
    red, green, blue = (_number(value, word, path, above) for value in values)
    return red, green, blue


def _number(said: Any, word: str, path: Path, above: float) -> float:
    if type(said) not in (int, float) or not math.isfinite(said) or not above < said < 1e6:
        raise wrong_model(f"its {word} is {quoted(str(said), 40)}; expected a number above {above:g}", path)
    return float(said)
