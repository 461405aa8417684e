"""Networks of the transformers library as they lie in a folder: classifiers and encoders of videos, never rebuilt here.

Hostile folders are expected. Of ``config.json`` only what describes the network is taken, its sizes are bounded, and
its weights are counted without memory and compared with those of the files before any is read; weights are safetensors
alone, and no code of the folder is run.
"""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ssan.errors import ModelError, UsageError, few, named, on_one_line, quoted, shortened
from ssan.files import sha256
from ssan.models.catalogue import without_memory
from ssan.models.classifier import VideoNetwork
from ssan.video.preprocess import Preprocess
from ssan.weights.hub_files import lasting, local_folder
from ssan.weights.labeller import EncoderFiles, Labeller
from ssan.weights.model_file import wrong_model
from ssan.weights.processors import Processor, json_object, read_processor

# The largest published of these networks have 40 layers, 1,408 channels and 18,432 tokens of 64 frames.
MOST_SIZE, MOST_LAYERS, MOST_FRAMES, MOST_TOKEN_NUMBERS = 65_536, 128, 512, 2**25
# VideoMAE works out its position of each token in Python, 10 microseconds a number; the largest has 1,568 x 1,280.
MOST_TABLE = 2**22
MOST_LABEL = 1000


@dataclass(frozen=True)
class Kind:
    """An architecture as ``config.json`` names it.

    :param model_type: of the family, as the library calls it.
    :param made_as: the library's class that it is made as.
    :param pool: what of the library's answer the features are: the input of the ``classifier``, the ``mean`` over the
        tokens, the ``first`` token, or the joint embedding of texts and ``video``. ``auto`` is ``mean`` where the
        configuration says ``use_mean_pooling``, as the family's classifier goes by it, and else ``first``.
    :param frames: where the configuration says how many frames a clip has.
    :param size: where it says how large a picture is.
    :param any_number: whether clips may have other numbers of frames.
    :param idle: parts that features do not need, which may lack weights and are not kept.
    :param left_out: tensors of the files that belong to nothing of the encoder.
    :param options: further arguments of the class.
    """

    model_type: str
    made_as: str
    pool: str
    frames: str = "num_frames"
    size: str = "image_size"
    any_number: bool = False
    idle: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def has_classes(self) -> bool:
        return self.pool == "classifier"


_VJEPA2: dict[str, Any] = {"frames": "frames_per_clip", "size": "crop_size", "any_number": True}
_HEADS = ("classifier.", "fc_norm.", "pooler.")
KINDS: dict[str, Kind] = {
    "VideoMAEForVideoClassification": Kind("videomae", "VideoMAEForVideoClassification", "classifier"),
    "VideoMAEModel": Kind("videomae", "VideoMAEModel", "auto", left_out=_HEADS),
    "VideoMAEForPreTraining": Kind(
        "videomae", "VideoMAEModel", "auto", left_out=("decoder.", "encoder_to_decoder.", "mask_token")
    ),
    "TimesformerForVideoClassification": Kind(
        "timesformer", "TimesformerForVideoClassification", "classifier", any_number=True
    ),
    "TimesformerModel": Kind("timesformer", "TimesformerModel", "first", any_number=True, left_out=_HEADS),
    "VivitForVideoClassification": Kind("vivit", "VivitForVideoClassification", "classifier"),
    "VivitModel": Kind("vivit", "VivitModel", "first", left_out=_HEADS, options=(("add_pooling_layer", False),)),
    "VJEPA2ForVideoClassification": Kind(
        "vjepa2", "VJEPA2ForVideoClassification", "classifier", idle=("vjepa2.predictor",), **_VJEPA2
    ),
    "VJEPA2Model": Kind("vjepa2", "VJEPA2Model", "mean", idle=("predictor",), left_out=_HEADS, **_VJEPA2),
    "XCLIPModel": Kind("xclip", "XCLIPModel", "video", idle=("text_model", "text_projection", "prompts_generator")),
}


class TransformersNetwork(VideoNetwork):
    """A network of the transformers library that takes clips as ours do.

    It computes nothing itself but the pixels, by its own processor's rule, and the mean over tokens where the library
    has no pooling of its own. Its linear classifier is applied here, to the features that the library hands to it, so
    that logits and features are those of one pass.

    :param network: of the library, in evaluation mode; it is changed: its classifier is taken off.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, network: nn.Module, kind: Kind, processor: Processor, num_frames: int, num_features: int
    ) -> None:
        super().__init__()
        self.network, self.kind, self.num_frames, self.size_px = network, kind, num_frames, processor.crop_px
        self._num_features = num_features
        self.classifier: nn.Module | None = None
        if kind.has_classes:
            self.classifier = network.classifier  # type: ignore[assignment]
            network.classifier = nn.Identity()
        scale = [processor.rescale_factor / std for std in processor.std]
        shift = [(processor.offset + mean) / std for mean, std in zip(processor.mean, processor.std, strict=True)]
        self.register_buffer("scale", torch.tensor(scale).view(-1, 1, 1), persistent=False)
        self.register_buffer("shift", torch.tensor(shift).view(-1, 1, 1), persistent=False)

    @property
    def num_features(self) -> int:
        return self._num_features

    def without_classes(self) -> "TransformersNetwork":
        """The same network, its weights shared, without its classifier."""
        plain = copy(self)
        plain._modules = {**self._modules, "classifier": None}
        return plain

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (b, t, 3, h, w) to logits (b, k).

        :raises UsageError: it is an encoder, or clips are of another size or number of frames than it can take.
        """
        if self.classifier is None:
            raise UsageError(
                f"{self.kind.made_as} is an encoder without classes; use it with `ssan extract` or `ssan probe`, or "
                "give a model that was trained to classify"
            )
        return self.classifier(self.features(clips))

    def features(self, clips: Tensor) -> Tensor:
        """Clips (b, t, 3, h, w) to (b, num_features): what the classifier takes; of an encoder the pooled tokens.

        Unsaid by the library, our choice: an encoder's tokens are pooled as the classifier of its family does: the mean
        over the tokens of VideoMAE (where it was made so) and V-JEPA 2, whose pooler has to be trained, and the first
        token of TimeSformer and ViViT. Pinned by ``test_an_encoder_gives_the_pooled_tokens_of_the_library``.
        """
        pixels = self._pixels(clips)
        if self.kind.pool == "video":
            found = self.network.get_video_features(pixel_values=pixels)  # type: ignore[operator]
            return getattr(found, "pooler_output", found)
        if self.kind.model_type == "vjepa2":
            idle = {} if self.kind.has_classes else {"skip_predictor": True}
            found = self.network(pixel_values_videos=pixels, **idle)
        else:
            found = self.network(pixel_values=pixels)
        if self.kind.has_classes:
            return found.logits  # its classifier was taken off
        return found.last_hidden_state.mean(dim=1) if self.kind.pool == "mean" else found.last_hidden_state[:, 0]

    def _pixels(self, clips: Tensor) -> Tensor:
        """What the library's processor makes of pixels, (b, t, 3, h, w)."""
        t, height, width = clips.shape[1], *clips.shape[-2:]
        if (height, width) != (self.size_px, self.size_px):
            raise UsageError(
                f"this {self.kind.made_as} takes pictures of {self.size_px} x {self.size_px} px and no others; it was "
                f"given {height} x {width}. Leave out --crop-px, --size-px and --resize"
            )
        if not self.kind.any_number and t != self.num_frames:
            raise UsageError(
                f"this {self.kind.made_as} takes clips of {self.num_frames} frames and of no other number; it was "
                f"given {t}. Leave out --num-frames"
            )
        weight = next(self.network.parameters())
        if clips.dtype != torch.uint8:
            return clips.to(weight.dtype)
        return (clips * self.scale).sub_(self.shift).to(weight.dtype)


def open_transformers(spec: str, device: str = "cpu", *, check: Callable[[str], None] | None = None) -> Labeller:
    """Open a video network of the transformers library, in evaluation mode, with its own preprocessing.

    How large frames are made and how they are normalised is its processor's; what resizes them is our decoder.

    Unsaid by most folders, our choice: where the processor names no rate (``do_sample_frames`` and ``fps``), frames are
    one of each of as many equal parts of a video as the network takes. Pinned by
    ``test_frames_are_taken_at_the_processors_rate_or_from_all_of_a_video``.

    :param spec: ``hf:FOLDER``, a folder as ``save_pretrained`` writes it (config.json, preprocessor_config.json,
        model.safetensors), or ``hf://user/name``, a model of the hub that was fetched before.
    :param check: is given the SHA-256 of its files before anything is made of them, and raises where it is not right.
    :raises UsageError: transformers is not installed, no such folder (code ``missing``), a name that was not fetched.
    :raises ModelError: code ``wrong_model``: no network of videos, or not one that can be read safely.
    """
    folder = local_folder(spec)
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise ModelError(
            "no model of transformers there: it has no config.json; expected a folder as save_pretrained writes it",
            code="missing",
            path=str(folder),
        )
    said = json_object(config_file)
    architecture, kind = _kind(said, config_file)
    processor = read_processor(folder, kind.model_type)
    shapes, files = _shapes(folder)
    digest = _hash(folder, [config_file.name, processor.file, *files])
    if check is not None:
        check(digest)
    _check_sizes(_described(said, path=config_file), config_file)
    transformers = _library()
    made_as = getattr(transformers, kind.made_as, None)
    if made_as is None:
        raise UsageError(
            f"transformers {transformers.__version__} has no {kind.made_as}; run: pip install --upgrade 'ssan[hf]'"
        )
    with _quiet(transformers), _telling(folder):
        config = made_as.config_class.from_dict(_described(said, path=config_file))
        part = config.vision_config if kind.model_type == "xclip" else config
        num_frames = _check_tokens(part, kind, config_file)
        _check_picture(part, kind, processor, folder)
        classes = _classes(said, config, shapes, config_file) if kind.has_classes else []
        # VideoMAE's positions are no weights, and take seconds to work out: left out of the count.
        short = (
            {} if kind.model_type != "videomae" else {"num_frames": part.tubelet_size, "image_size": part.patch_size}
        )
        least = {**_described(said, path=config_file), **short}
        with without_memory():
            empty = made_as(made_as.config_class.from_dict(least), **dict(kind.options))
    _check_count(empty, shapes, kind, folder)
    num_features = part.mit_hidden_size if kind.pool == "video" else part.hidden_size
    with _quiet(transformers), _telling(folder):
        network, report = made_as.from_pretrained(
            str(folder), config=config, use_safetensors=True, local_files_only=True, trust_remote_code=False,
            output_loading_info=True, **dict(kind.options),
        )  # fmt: skip
    _check_report(report, kind, folder)
    for name in kind.idle:
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, None)
    pool = kind.pool if kind.pool != "auto" else "mean" if config.use_mean_pooling else "first"
    kind = Kind(**{**vars(kind), "pool": pool})
    ours = TransformersNetwork(network.float().eval(), kind, processor, num_frames, num_features)
    rate = processor.frames_per_second
    preprocess = Preprocess(
        num_frames=num_frames,
        sampling="segment" if rate is None else "dense",
        stride=8 if rate is None else 1,
        resize=processor.resize,
        size_px=processor.size_px,
        crop_px=processor.crop_px,
        frames_per_second=rate,
    )
    return Labeller(
        model=ours.eval().requires_grad_(False).to(device),
        classes=classes,
        preprocess=preprocess,
        recipe=None,
        protocol={
            "source": spec,
            "source_sha256": digest,
            "architecture": architecture,
            "transformers": str(transformers.__version__),
            "processor": processor.file,
            "mean": list(processor.mean),
            "std": list(processor.std),
            "rescale_factor": processor.rescale_factor,
            "offset": processor.offset,
            "resample": processor.resample,
            "features": pool,
            **preprocess.as_dict(),
            "frames_per_second": rate,
        },
        hash=digest,
        name=spec,
        encoder=EncoderFiles(lasting(spec, folder), digest),
    )


def _library() -> Any:
    try:
        import transformers
    except ImportError:
        raise UsageError(
            "a model of a hf: folder needs transformers, which is not installed; run: pip install 'ssan[hf]'"
        ) from None
    return transformers


def _kind(said: Mapping[str, Any], path: Path) -> tuple[str, Kind]:
    names = said.get("architectures")
    first = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None
    known = ", ".join(KINDS)
    if first is None:
        raise wrong_model(f"it names no architecture; expected one of {known}", path)
    if first not in KINDS:
        raise wrong_model(
            f"{quoted(first, 80)} is no network of videos that is known here; expected one of {known}", path
        )
    if said.get("model_type") != KINDS[first].model_type:
        raise wrong_model(
            f"its model_type is {quoted(str(said.get('model_type')), 40)}, and a {first} is a "
            f"{KINDS[first].model_type!r}; copy the file again",
            path,
        )
    return first, KINDS[first]


# What any configuration of the library may say beside its network: how it is run, where code for it lies, how its
# weights are packed. None of it describes the network, and some of it would fetch or run code.
_NOT_DESCRIBING = {
    "architectures", "auto_map", "quantization_config", "compression_config", "attn_implementation",
    "experts_implementation", "dtype", "torch_dtype", "output_attentions", "output_hidden_states", "return_dict",
    "use_return_dict", "chunk_size_feed_forward", "is_encoder_decoder", "problem_type", "transformers_version",
    "torchscript", "tf_legacy_loss", "use_bfloat16", "use_kernels", "pruned_heads", "gradient_checkpointing",
    "finetuning_task", "task_specific_params", "name_or_path", "tie_word_embeddings", "label2id",
}  # fmt: skip


def _described(said: Mapping[str, Any], *, path: Path) -> dict[str, Any]:
    """What a configuration says of its network, and nothing else."""
    if said.get("quantization_config") is not None:
        raise wrong_model("its weights are quantised, which is not read here; expected those of full precision", path)
    return {
        key: _described(value, path=path)
        if isinstance(value, dict) and key.endswith(("_config", "_config_dict"))
        else value
        for key, value in said.items()
        if key not in _NOT_DESCRIBING and not key.startswith("_")
    }


def _check_sizes(said: Mapping[str, Any], path: Path) -> None:
    """Refuse sizes that no network has, before anything is made of them."""
    for key, value in said.items():
        if key in ("id2label", "label2id"):
            continue
        if isinstance(value, dict):
            _check_sizes(value, path)
        most = MOST_LAYERS if "layers" in key else MOST_SIZE
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not (math.isfinite(number) and -MOST_SIZE <= number <= most):
                raise wrong_model(
                    f"its {quoted(key, 60)} is {shortened(str(number), 40)}; expected at most {most}. Copy the file "
                    "again",
                    path,
                )


def _check_tokens(part: Any, kind: Kind, path: Path) -> int:
    """How many frames a clip has; refused where it would be cut into more tokens than fit a machine."""
    frames, size = getattr(part, kind.frames), _square(getattr(part, kind.size))
    patch: Any = getattr(part, "patch_size", None)
    tubelet: Any = getattr(part, "tubelet_size", 1)
    if patch is None:
        tubelet, patch = tubelet[0], tubelet[1:]
    numbers = (frames, size, _square(patch), tubelet)
    if any(type(number) is not int or number < 1 for number in numbers):
        raise wrong_model(
            f"its frames, size, patch and tubelet are {shortened(str(numbers), 80)}; expected whole numbers above 0, "
            "and squares",
            path,
        )
    tokens = (frames // tubelet) * (size // numbers[2]) ** 2
    if frames > MOST_FRAMES:
        raise wrong_model(f"its clips have {frames} frames; expected at most {MOST_FRAMES}. Copy the file again", path)
    most = MOST_TABLE if kind.model_type == "videomae" else MOST_TOKEN_NUMBERS
    if not 0 < tokens * part.hidden_size <= most:
        raise wrong_model(
            f"{frames} frames of {size} px are {tokens} tokens of {part.hidden_size} channels; expected at most "
            f"{most:,} numbers, and some. Copy the file again",
            path,
        )
    return int(frames)


def _square(said: Any) -> Any:
    """The side that a size of the library stands for: a number, or two that are equal."""
    if isinstance(said, list | tuple):
        return said[0] if len(said) == 2 and said[0] == said[1] else None
    return said


def _check_picture(part: Any, kind: Kind, processor: Processor, folder: Path) -> None:
    size = _square(getattr(part, kind.size))
    if processor.crop_px != size:
        raise wrong_model(
            f"its processor ({processor.file}) makes pictures of {processor.crop_px} px, and its network was made for "
            f"{size}; copy both files from where the weights came from",
            folder,
        )


def _classes(said: Mapping[str, Any], config: Any, shapes: Mapping[str, tuple[int, ...]], path: Path) -> list[str]:
    """The names of the classes, by their numbers; they are as many as the classifier has rows."""
    labels = config.id2label
    numbers = sorted(labels)
    if numbers != list(range(len(labels))) or not labels:
        raise wrong_model(
            f"its id2label has the numbers {few(numbers, show=str)}; expected 0 to {len(labels) - 1}, each once", path
        )
    names = [labels[number] for number in numbers]
    wrong = next((name for name in names if not isinstance(name, str) or len(name) > MOST_LABEL), None)
    if wrong is not None:
        raise wrong_model(f"it names a class {quoted(str(wrong), 60)}; expected a text of at most {MOST_LABEL}", path)
    rows = next((shape[0] for name, shape in shapes.items() if name == "classifier.weight" and shape), None)
    if rows is not None and rows != len(names):
        raise wrong_model(
            f"it names {len(names)} classes (id2label), and the classifier of the weights has {rows}; copy config.json "
            "from where the weights came from",
            path,
        )
    return names


def _shapes(folder: Path) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """The shapes of all tensors of the weights, by name, and the files that they lie in."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        files = ["model.safetensors"]
    elif index.is_file():
        parts = json_object(index).get("weight_map")
        names = set(parts.values()) if isinstance(parts, dict) and all(map(_is_name, parts.values())) else set()
        if not names or any(not (folder / name).is_file() for name in names):
            raise wrong_model(
                "it does not name files of weights that lie beside it, model-....safetensors; copy the folder again",
                index,
            )
        files = [index.name, *sorted(names)]
    else:
        pickled = next((path.name for path in folder.glob("*.bin")), None)
        raise wrong_model(
            f"its weights are a pickle ({named(pickled)}), which could run code; pickles are not read. Save them as "
            "model.safetensors where they are trusted: model.save_pretrained(FOLDER)"
            if pickled
            else "it has no model.safetensors; expected the weights beside config.json. Copy the folder again",
            folder,
        )
    shapes: dict[str, tuple[int, ...]] = {}
    for name in files:
        if name == index.name:
            continue
        try:
            with safe_open(folder / name, framework="pt") as file:
                shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError, RuntimeError, OverflowError) as error:
            raise wrong_model(f"not a safetensors file ({on_one_line(error)}); copy it again", folder / name) from None
    return shapes, files


def _is_name(said: Any) -> bool:
    return isinstance(said, str) and said.endswith(".safetensors") and Path(said).name == said


def _check_count(empty: nn.Module, shapes: Mapping[str, tuple[int, ...]], kind: Kind, folder: Path) -> None:
    """Refuse a network that is larger than the weights that are there, before it is made."""
    idle = tuple(f"{name}." for name in kind.idle)
    there = sum(math.prod(shape) for shape in shapes.values())
    used, unused = 0, 0  # what is idle may be missing, but is made before it is left out
    for name, weight in empty.named_parameters():
        if name.startswith(idle):
            unused += weight.numel()
        else:
            used += weight.numel()
    if max(used, unused) > there:
        raise wrong_model(
            f"config.json describes a network of {used + unused:,} numbers, and its weights are {there:,}; copy both "
            "from one model",
            folder,
        )


def _check_report(report: Mapping[str, Any], kind: Kind, folder: Path) -> None:
    """Refuse weights that leave something of the network as it was drawn, or that it has no place for."""
    idle = tuple(f"{name}." for name in kind.idle)
    wrong = [str(key[0] if isinstance(key, tuple) else key) for key in report.get("mismatched_keys") or ()]
    missing = [str(key) for key in report.get("missing_keys") or () if not str(key).startswith(idle)]
    more = [
        str(key)
        for key in report.get("unexpected_keys") or ()
        if not str(key).startswith((*idle, *kind.left_out)) and not str(key).endswith("position_ids")
    ]
    for names, what in ((wrong, "have other shapes"), (missing, "are missing"), (more, "belong to nothing in it")):
        if names:
            raise wrong_model(
                f"its weights do not fit {kind.made_as} as config.json describes it: {len(names)} tensors {what} "
                f"({few(sorted(names), show=named)}); copy both from one model, or take the transformers that saved it",
                folder,
            )


def _hash(folder: Path, names: list[str]) -> str:
    """SHA-256 over the names and bytes of the files that decide what the network makes of a video."""
    pairs = sorted((name, sha256(folder / name)) for name in names)
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


@contextmanager
def _telling(folder: Path) -> Iterator[None]:
    """Say of what the library cannot make of a folder that it is the folder's."""
    from huggingface_hub import errors

    known: tuple[type[Exception], ...] = (
        OSError, ValueError, LookupError, TypeError, RuntimeError, ImportError, AttributeError, ArithmeticError,
        AssertionError, SafetensorError,
    )  # fmt: skip
    if hasattr(errors, "StrictDataclassError"):  # of a value of another type than a field's; new since 0.32
        known = (*known, errors.StrictDataclassError)
    try:
        yield
    except ModelError:
        raise
    except known as problem:
        raise wrong_model(
            f"transformers cannot make a network of it ({on_one_line(problem, 300)}); expected config.json and "
            "model.safetensors as save_pretrained writes them",
            folder,
        ) from None


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep the library's own reports and progress bars off the screen; what matters of them becomes an error."""
    told = transformers.logging
    level, shown = told.get_verbosity(), told.is_progress_bar_enabled()
    told.set_verbosity_error()
    told.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        told.set_verbosity(level)
        if shown:
            told.enable_progress_bar()
