"""The recipe of a run: every choice that shapes its result, each described once, here.

A recipe is read from YAML, changed by ``key=value`` on the command line, and written whole into the run's folder. One
word is the key in the file, the field here, the override and the report's column. Unknown keys are errors.
"""

import copy
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ssan.errors import UsageError, first_line, shortened, unknown
from ssan.files import read_text
from ssan.shipped import find_recipe

# PyYAML's own, which makes plain values alone; ten times as fast where it was built with libyaml.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_RECIPE_BYTES = 200_000
MAX_DEPTH = 10
MAX_OVERRIDE_LETTERS = 10_000
# Above these no run is meant, and the memory of a machine is at stake: recipes also come with models from elsewhere.
MAX_COUNT = 1_000_000_000
MAX_FRAMES = 4096
MAX_PX = 8192
MAX_RATE = 1000.0
MAX_CLIP_PIXELS = 2**26

Scalar = str | int | float | bool | None
Positive = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Pixels = Annotated[int, Field(ge=1, le=MAX_PX)]


class _Keys(BaseModel):
    """What all keys have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic takes true for 1; `epochs=yes` is a mistake."""
        kind = cls.model_fields[info.field_name].annotation if info.field_name else bool
        if isinstance(value, bool) and kind is not bool and not any(taken is True for taken in get_args(kind)):
            raise PydanticCustomError("truth", "true and false are no value of this key")
        return value


class OptimisationKeys(_Keys):
    """Optimisation, whatever is trained."""

    epochs: Positive = Field(80, description="passes over the training videos")
    batch: Positive = Field(64, description="clips of a batch on each process")
    accumulate: Positive = Field(1, description="batches summed before each step")
    lr: float = Field(0.01, gt=0, description="learning rate")
    weight_decay: float = Field(5e-4, ge=0, description="of every trained weight")
    schedule: Literal["plateau", "step", "exponential", "cosine", "constant"] = Field(
        "plateau", description="the rate over epochs"
    )
    warmup_epochs: float = Field(1.0, ge=0, description="epochs of linear warm-up")
    milestones: list[Positive] = Field([], description="epochs after which `step` multiplies the rate by gamma")
    gamma: float = Field(0.1, gt=0, lt=1, description="factor of `exponential`, `step` and `plateau`")
    patience: Positive = Field(5, description="epochs without a lower validation loss before `plateau` acts")
    early_stop: Positive | None = Field(
        None, description="epochs without a better one, by what chooses the best, after which training ends"
    )
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient")
    precision: Literal["32", "bf16", "16"] = Field("32", description="bf16 and 16 are mixed precision")
    seed: int = Field(0, ge=0, lt=2**63, description="of every random draw in the run")
    checkpoint_every_steps: Positive | None = Field(None, description="steps between two savings within an epoch")


class NetworkKeys(_Keys):
    """The network of a classifier."""

    model: str = Field("ssan_r50", description="a name from `ssan models`")
    layer: dict[str, Scalar] = Field({}, description="options of the model's layer, as layer.NAME=VALUE")
    places: dict[str, Any] = Field({}, description="stages, slot, every: where the layer goes if not the usual place")
    backbone: dict[str, Scalar] = Field({}, description="options of the backbone, such as stride_in: conv1")
    consensus: Literal["attention"] | None = Field(
        None, description="attention over the frames instead of their mean, where the model has no consensus of its own"
    )
    init: str | None = Field(
        None, description="weights to start from: a file, a run's folder, a name of `ssan weights list`, `imagenet`"
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="share of features dropped before the classifier")

    @field_validator("places")
    @classmethod
    def _places_are_words_and_numbers(cls, value: dict[str, Any]) -> dict[str, Any]:
        """The keys are checked where layers are put in; a value of another kind would not come so far."""
        for key, expected in (("stages", list), ("slot", str), ("every", int)):
            given = value.get(key, expected())
            words = given if isinstance(given, list) else []
            if type(given) is not expected or not all(isinstance(word, str) for word in words):
                kind = {"stages": "a list of words", "slot": "a word", "every": "a whole number"}[key]
                raise PydanticCustomError("places", "{key} must be {kind}", {"key": key, "kind": kind})
        for given in value.values():
            if not isinstance(given, list | str | int | float | bool | None):
                raise PydanticCustomError("places", "stages must be a list of words, slot a word, every a whole number")
        return value


class FrameKeys(_Keys):
    """The frames that a classifier is given."""

    num_frames: Annotated[int, Field(ge=1, le=MAX_FRAMES)] = Field(8, description="frames of a clip")
    sampling: Literal["segment", "dense"] = Field("segment", description="one frame a segment, or a dense window")
    stride: Positive = Field(8, description="frames between two samples of a dense window")
    frames_per_second: Annotated[float, Field(gt=0, le=MAX_RATE)] | None = Field(
        None, description="rate in time of the frames of a dense window; the file's own frames by default"
    )
    crop_px: Pixels | None = Field(None, description="side of the network's input; the model's own by default")
    size_px: Pixels | None = Field(None, description="side after resizing; 8/7 of crop_px by default (256 for 224)")
    resize: Literal["square", "short_side"] = Field("square", description="to a square, or keeping the aspect ratio")
    crop: Literal["multi_scale", "random", "center"] = Field("multi_scale", description="training crop")
    flip: Literal["swap", "skip_directed", "off"] = Field("swap", description="mirrored training clips")

    @model_validator(mode="after")
    def _a_rate_is_of_a_dense_window(self) -> Self:
        if self.frames_per_second is not None and self.sampling != "dense":
            raise PydanticCustomError(
                "frames_per_second",
                "frames_per_second {rate} is of a dense window, and sampling is {sampling}, which takes its frames "
                "from all of a video whatever their rate; give sampling=dense, or leave frames_per_second out",
                {"rate": self.frames_per_second, "sampling": self.sampling},
            )
        return self

    @model_validator(mode="after")
    def _a_clip_fits_in_memory(self) -> Self:
        side = max(self.size_px or 1, self.crop_px or 1)
        if self.num_frames * side**2 > MAX_CLIP_PIXELS:
            raise PydanticCustomError(
                "clip",
                "num_frames {frames} of {side} pixels a side are more than a clip can have; lower one of them",
                {"frames": self.num_frames, "side": side},
            )
        return self


# Fields stand in the order of the bases from the last to the first; those of the class itself come after them, and one
# that it describes anew keeps its position. So are recipes written.
class Recipe(OptimisationKeys, FrameKeys, NetworkKeys):
    """How a classifier is built, fed and trained. Defaults are section 4.2 of the paper wherever it says something."""

    lr: float = Field(0.01, gt=0, description="learning rate at lr_reference_batch clips a step")
    lr_rule: Literal["linear", "sqrt", "none"] = Field("linear", description="how lr grows with the effective batch")
    lr_reference_batch: Positive = Field(64, description="the effective batch for which lr is stated")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="sgd has Nesterov momentum")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    backbone_lr_scale: float = Field(1.0, ge=0, description="the backbone's rate as a share of the new layers'")
    parameter_groups: Literal["plain", "tsm"] = Field(
        "plain", description="tsm: last layer's rate x5, its bias x10, other biases x2; no decay of biases and norms"
    )
    ema: float | None = Field(None, gt=0, lt=1, description="decay of an average of the weights, which is what is kept")
    new_norm_lr_scale: float = Field(
        1.0, gt=0, description="the rate of the weights of new layers' norms as a share of the new layers'"
    )
    new_norm_weight_decay: float | None = Field(
        None, ge=0, description="of the weights of new layers' norms, instead of weight_decay"
    )
    frozen_epochs: int = Field(
        0, ge=0, le=MAX_COUNT, description="epochs at first in which the new layers alone are trained"
    )
    frozen_stages: int = Field(
        0,
        ge=0,
        le=1000,
        description="stages of the backbone, from the first, that are never trained, nor what is before",
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: a video counts in the loss the more, the fewer its class has"
    )
    balance: Literal["none", "classes"] = Field(
        "none", description="classes: an epoch draws as many videos of each class, some of them more than once"
    )
    freeze_bn: Literal[False, True, "backbone"] = Field(
        False,
        description="BatchNorm uses its stored statistics, and the backbone's is not trained; backbone: that one alone",
    )
    checkpoint_gradients: bool = Field(False, description="compute blocks twice, and keep less for the backward pass")
    compile: bool = Field(False, description="compile the network for training; needs a C++ compiler")
    sync_bn: bool = Field(False, description="BatchNorm over the batches of all processes, on GPUs")

    @model_validator(mode="after")
    def _rare_classes_are_made_up_for_once(self) -> Self:
        if self.class_weights != "none" and self.balance != "none":
            raise PydanticCustomError(
                "balance",
                "class_weights=balanced and balance=classes both make up for classes with few videos; leave out one",
            )
        return self


class JointSpaceKeys(_Keys):
    """The joint space of texts and videos."""

    text: Literal["gru", "bigru", "lstm", "maxpool", "transformer"] = Field("gru", description="what reads a caption")
    transformer: str | None = Field(None, description="folder of a text model of the transformers library")
    pooling: Literal["auto", "mean", "cls", "last", "eos"] = Field(
        "auto", description="of its tokens: eos, as CLIP was trained, with its projection; mean of any other"
    )
    text_dim: Pixels | None = Field(None, description="length of what the text tower gives; dim by default")
    features: str = Field("ssa", description="names of the streams of features, joined by +, such as 2d+ssa")
    aggregate: Literal["max", "mean", "attention"] = Field("max", description="of a clip's features over time")
    dim: Pixels = Field(4096, description="length of the embeddings")
    init: str | None = Field(None, description="a trained joint space to start from: a file, or a run's folder")

    @model_validator(mode="after")
    def _a_transformer_has_a_folder(self) -> Self:
        if (self.text == "transformer") != (self.transformer is not None):
            raise PydanticCustomError(
                "transformer", "text=transformer and transformer=FOLDER belong together; give both or neither"
            )
        return self

    @property
    def streams(self) -> list[str]:
        """The names of the streams of features, in their order."""
        return self.features.split("+")


class CaptionKeys(_Keys):
    """The captions, and the clips that are drawn with them."""

    tokens: Literal["howto100m", "lower"] = Field("howto100m", description="how a caption becomes words")
    max_words: Annotated[int, Field(ge=1, le=1000)] = Field(30, description="words of a caption that are read")
    word_dim: Pixels = Field(300, description="length of word vectors that are learned")
    train_words: bool = Field(False, description="train the word vectors that are given; without any, all are trained")
    captions: Literal["one", "all"] = Field("one", description="of a clip in an epoch: one drawn, or all")
    clips: Annotated[int, Field(ge=1, le=10_000)] = Field(1, description="clips drawn of each narrated video")
    min_seconds: float = Field(5.0, ge=0, le=3600, description="narrations grow with their neighbours until so long")
    min_words: int = Field(0, ge=0, le=1000, description="and until they have so many words")


class LossKeys(_Keys):
    """The loss."""

    loss: Literal["max_margin", "hardest_negative", "info_nce", "mil_nce"] = Field("max_margin", description="its name")
    margin: float = Field(0.1, gt=0, le=2, description="of max_margin and hardest_negative")
    hard_negative_rate: float = Field(
        0.5, gt=0, lt=1, description="share of max_margin that negatives of the same video make, where clips > 1"
    )
    temperature: float = Field(0.07, gt=0, le=10, description="of info_nce and mil_nce")
    same_video: Literal["auto", "left_out", "negative"] = Field(
        "auto", description="other captions of a clip: left out of the negatives; other clips of a narrated video: not"
    )

    @model_validator(mode="after")
    def _positives_are_no_negatives(self) -> Self:
        if self.loss == "mil_nce" and self.same_video != "auto":
            raise PydanticCustomError(
                "same_video", "mil_nce takes other captions of a clip for right; leave same_video"
            )
        return self


class RetrievalRecipe(OptimisationKeys, LossKeys, CaptionKeys, JointSpaceKeys):
    """How a joint space of texts and videos is built and trained. Defaults are the fine-tuning of reference 22.

    That is HowTo100M (Miech et al., ICCV 2019), whose training the paper adopts (section 4.2), and its authors' code.
    """

    epochs: Positive = Field(50, description="passes over the training captions, by the rule of `captions`")
    batch: Positive = Field(256, description="clips (narrated videos) of a batch on each process")
    accumulate: Positive = Field(1, description="batches summed before each step; each has its own negatives")
    lr: float = Field(1e-4, gt=0, description="learning rate of Adam")
    weight_decay: float = Field(0.0, ge=0, description="decoupled, as of AdamW; without it that is Adam")
    schedule: Literal["plateau", "step", "exponential", "cosine", "constant"] = Field(
        "constant", description="the rate over epochs"
    )
    warmup_epochs: float = Field(0.0, ge=0, description="epochs of linear warm-up")
    gamma: float = Field(0.9, gt=0, lt=1, description="factor of `exponential`, `step` and `plateau`")


AnyRecipe = TypeVar("AnyRecipe", Recipe, RetrievalRecipe)


def recipe_keys(kind: type[BaseModel] = Recipe) -> list[str]:
    return list(kind.model_fields)


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe of a classifier from YAML and apply ``key=value`` overrides.

    ``path`` is a file, or the name of a recipe that comes with the package, such as ``demo/ssan_tiny``;
    ``layer.channel_branch=false`` reaches into a key.

    :raises UsageError: a missing or malformed file, an unknown key, or a value of the wrong kind; with file and line.
    """
    return _read(Recipe, path, overrides)


def read_retrieval_recipe(path: str | Path, overrides: Sequence[str] = ()) -> RetrievalRecipe:
    """As ``read_recipe``, for a joint space of texts and videos."""
    return _read(RetrievalRecipe, path, overrides)


def _read(kind: type[AnyRecipe], path: str | Path, overrides: Sequence[str]) -> AnyRecipe:
    path = find_recipe(os.fspath(path))
    if not os.path.isfile(path):
        raise UsageError("no such recipe; `ssan recipes list` shows those that come with ssan", path=str(path))
    text = read_text(path, "a few dozen lines of YAML; this is not a recipe", most_bytes=MAX_RECIPE_BYTES)
    values, lines = _parse(text, str(path))
    return _make(kind, copy.deepcopy(values), overrides, path=str(path), lines=lines)


def make_recipe(
    values: dict[str, Any],
    overrides: Sequence[str] = (),
    *,
    path: str | None = None,
    lines: dict[str, int] | None = None,
) -> Recipe:
    """Build a recipe from values and ``key=value`` overrides; ``lines`` says where each key stands in ``path``."""
    return _make(Recipe, values, overrides, path=path, lines=lines)


def make_retrieval_recipe(
    values: dict[str, Any], overrides: Sequence[str] = (), *, path: str | None = None
) -> RetrievalRecipe:
    """As ``make_recipe``, for a joint space of texts and videos."""
    return _make(RetrievalRecipe, values, overrides, path=path, lines=None)


def _make(
    kind: type[AnyRecipe],
    values: dict[str, Any],
    overrides: Sequence[str],
    *,
    path: str | None,
    lines: dict[str, int] | None,
) -> AnyRecipe:
    values, lines = dict(values), dict(lines or {})
    where: dict[str, str] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UsageError(f"{_shown(override)} is not an override; write key=value, such as epochs=20")
        head, _, tail = key.partition(".")
        if head not in kind.model_fields:
            raise UsageError(f"in {_shown(override)}: {unknown('key', head, recipe_keys(kind))}")
        value = _parse_scalar(text, override)
        if tail:
            inner = values.get(head)
            values[head] = {**(inner if isinstance(inner, dict) else {}), tail: value}
        else:
            values[head] = value
        where[head] = override
    # YAML reads 32 as a number and a bare off as false; precision and flip are words.
    if type(values.get("precision")) is int:
        values["precision"] = str(values["precision"])
    if values.get("flip") is False:
        values["flip"] = "off"
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        # Of a mapping's key, the location goes on with the kinds of value that were tried.
        key = ".".join(str(part) for part in problem["loc"][:2])
        head = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "extra_forbidden":
            message = _not_of_this_kind(kind, values) or unknown("key", key, recipe_keys(kind))
        elif not head:
            message = problem["msg"]
        else:
            shown = key if key.isprintable() and len(key) < 80 else _shown(key)
            message = f"{shown} is {_shown(problem['input'])}: {problem['msg'].lower()}"
        if head in where:
            raise UsageError(f"in the override {_shown(where[head])}: {message}") from None
        raise UsageError(message, path=path, line=lines.get(key, lines.get(head))) from None


def _not_of_this_kind(kind: type[BaseModel], values: dict[str, Any]) -> str | None:
    """What to say of a recipe that is whole, but the other command's; None of any other."""
    other: type[BaseModel]
    if kind is Recipe:
        other, what, command = RetrievalRecipe, "a joint space of texts and videos", "ssan retrieval train"
    else:
        other, what, command = Recipe, "a classifier", "ssan train"
    if len(set(values) - set(kind.model_fields)) > 1 and set(values) <= set(other.model_fields):
        return f"this is a recipe of {what}; give it to `{command}`"
    return None


def write_recipe(recipe: Recipe | RetrievalRecipe) -> str:
    """The recipe as YAML, every key present."""
    return yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True)


def recipe_from_json(text: str, *, path: str) -> Recipe:
    """The recipe stored in a model file; one that this version cannot read is named with its file."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"its recipe is not valid JSON: {first_line(error)}; copy the file again", code="wrong_model", path=path
        ) from None
    if not isinstance(values, dict):
        raise UsageError("its recipe is not a mapping; copy the file again", code="wrong_model", path=path)
    return make_recipe(values, path=path)


@lru_cache(maxsize=256)  # a table reads its rows' recipes again and again; what is returned is nobody's to change
def _parse(text: str, path: str) -> tuple[dict[str, Any], dict[str, int]]:
    """YAML text to its mapping and the line of each key; objects, aliases and repeated keys are refused."""
    try:
        _look_over(text, path)
        root = yaml.compose(text, Loader=LOADER)
        values = yaml.load(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise UsageError(
            f"not valid YAML: {first_line(error.problem)}; expected lines like `epochs: 20`", path=path, line=line
        ) from None
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError) as error:
        raise UsageError(f"not valid YAML: {first_line(error)}; expected lines like `epochs: 20`", path=path) from None
    except (LookupError, AttributeError):  # PyYAML's own, for a tag such as !!bool before what is none
        raise UsageError(
            "not valid YAML: a value is not of the type that its tag says; leave out the tag", path=path
        ) from None
    if values is None:
        return {}, {}
    if not isinstance(root, yaml.MappingNode) or not isinstance(values, dict):
        raise UsageError("expected a mapping of keys to values, such as `epochs: 20`", path=path, line=1)
    lines: dict[str, int] = {}

    def note(key: str, node: yaml.Node) -> None:
        line = node.start_mark.line + 1
        if key in lines:
            raise UsageError(
                f"key {_shown(key)} stands twice (first in line {lines[key]}); leave out one", path=path, line=line
            )
        lines[key] = line

    for key_node, value_node in root.value:
        note(str(key_node.value), key_node)
        if isinstance(value_node, yaml.MappingNode):
            for inner_key, _ in value_node.value:
                note(f"{key_node.value}.{inner_key.value}", inner_key)
    return {str(key): value for key, value in values.items()}, lines


def _look_over(text: str, path: str | None) -> None:
    """Refuse what makes a short text a large value, or one that takes minutes to read: aliases and deep nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        line = None if event.start_mark is None else event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise UsageError("aliases are not allowed in a recipe; write the value out", path=path, line=line)
        if depth > MAX_DEPTH:
            raise UsageError(
                f"values within values, deeper than {MAX_DEPTH}; expected a recipe, which is flat",
                path=path,
                line=line,
            )
        # 1:1:1 is a number to base 60, and as long as one likes.
        if (
            isinstance(event, yaml.ScalarEvent)
            and event.value.count(":") > 9
            and not event.value.strip("+-0123456789:._")
        ):
            raise UsageError("a number of too many parts; write it in digits", path=path, line=line)


def _parse_scalar(text: str, override: str) -> Any:
    if len(text) > MAX_OVERRIDE_LETTERS:
        raise UsageError(f"in {_shown(override)}: the value is too long; write it in a recipe, and use --recipe FILE")
    try:
        _look_over(text, None)
        value = yaml.load(text, Loader=LOADER)
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError, LookupError, AttributeError):
        raise UsageError(
            f"in {_shown(override)}: {_shown(text)} is not a value; write it as in YAML, such as epochs=20"
        ) from None
    # YAML 1.1 reads 1e-3 as text; people mean the number.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _shown(value: Any) -> str:
    """A value for a message: as Python writes it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        text = "a huge number"
    return shortened(text)
