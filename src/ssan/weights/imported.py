"""Imported weights: a file that another toolkit released, made into a model file of ours, every tensor or none."""

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssan.errors import ModelError, UsageError, few, named, quoted
from ssan.files import read_json, read_text, sha256
from ssan.models.catalogue import MODELS, ModelSpec, build, specification, without_memory
from ssan.recipe import Recipe, make_recipe
from ssan.weights.classifier_file import build_from, preprocess_of, save_labeller
from ssan.weights.layouts import LAYOUTS, LayoutFit, Outline, fit, not_ours, num_classes_in, num_frames_in
from ssan.weights.model_file import wrong_model
from ssan.weights.state_dict import read_state_dict

# The window, in frames, over which both toolkits spread a clip that is sampled densely.
DENSE_FRAMES = 64
# How each toolkit averages the views of a video.
AVERAGE = {"mmaction2": "probabilities", "video_nonlocal_net": "probabilities"}  # all others: logits


@dataclass(frozen=True)
class ImportReport:
    """What an import did; ``as_dict`` has the fields of ``ssan import --json``.

    :param file: the model file that was written.
    :param layout: by whose names the weights were read.
    :param matched: number of tensors taken, all of the model's but the counters that the file does not have.
    :param counters_set_to_zero: BatchNorm's counters of batches that the file does not have; they change nothing.
    :param notes: what was taken from the file's name, or not known.
    """

    file: str
    model: str
    layout: str
    matched: int
    counters_set_to_zero: int
    classes: list[str]
    recipe: Recipe
    sha256: str
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "layout": self.layout,
            "matched": self.matched,
            "missing": [],
            "unexpected": [],
            "counters_set_to_zero": self.counters_set_to_zero,
            "model": self.model,
            "num_classes": len(self.classes),
            "preprocess": preprocess_of(self.recipe).as_dict(),
            "file": self.file,
            "sha256": self.sha256,
            "notes": self.notes,
        }


def import_weights(
    path: str, model: str, out: str, *, classes: str | None = None, overrides: Sequence[str] = ()
) -> ImportReport:
    """Read a toolkit's weights file as the named model and write a model file.

    Frames are resized to a short side of 256 px and cropped to 224 in the centre, as all three toolkits test (a model
    made for other sizes keeps the proportion). The number of frames, the share of channels that TSM shifts, how
    non-local blocks compare positions, and dense sampling are taken from the file's name where it has the form that the
    toolkit gives it, and the number of frames of relations from their tensors; ``overrides`` go before.

    Scores are the toolkit's own, with two exceptions. mmaction2's relations (TRN) draw three of each scale for every
    clip, so that one clip gets other scores each time; here they are what the draws come to on average. And non-local
    blocks of theirs that pool keys leave out a last odd row or column, which here is a window of its own: with crops
    of a multiple of 32 px, such as 224 and 256, no side is odd.

    :param out: the model file; a folder, one that is there or a name that ends in /, gets ``model.safetensors``.
    :param classes: a file of class names, see ``read_class_names``; without it they are "0", "1" and so on.
    :param overrides: recipe keys as ``key=value``, such as ``num_frames=16`` or ``layer.divisor=4``.
    :raises ModelError: the file cannot be read safely, or a tensor of it or of the model has no counterpart.
    :raises UsageError: an unknown model, a recipe key, or a list of class names that does not fit.
    """
    spec = specification(model)
    out = _checked_out(path, out)
    state, recipe, notes = _read_with_recipe(path, spec, model, overrides)
    num_classes = num_classes_in(state)
    if num_classes is None:
        known = ", ".join(f"{prefix}bias" for layout in LAYOUTS.values() for prefix in layout.classifiers)
        raise wrong_model(
            f"it has no classifier under a known name ({known}); its {len(state)} names begin with "
            f"{few(list(state), show=named)}. Give a backbone's weights to `ssan train --init`",
            path,
        )
    with without_memory():  # sizes from elsewhere are compared with the tensors before any memory is taken
        network = build_from(recipe, num_classes)
    found = fit(state, network)
    if found is None or found.num_wrong:
        raise wrong_model(_misfit(state, model, num_classes, found), path)
    names, named_in = _class_names(classes, num_classes)
    notes += named_in
    if found.counters:
        notes.append(f"{len(found.counters)} counters of batches (num_batches_tracked) are not in the file; set to 0")
    notes += _differences(found, spec, recipe)

    fresh = network.to_empty(device="cpu").state_dict()  # every value of it is written below
    counters = {key: torch.zeros_like(fresh[key]) for key in fresh if key not in (*found.tensors, *found.ones)}
    network.load_state_dict({**found.tensors, **counters, **{key: torch.ones_like(fresh[key]) for key in found.ones}})
    protocol = {
        "imported_from": {"file": os.path.basename(path), "sha256": sha256(path), "layout": found.layout},
        "views": 1, "crops": 1, "average": AVERAGE.get(found.layout, "logits"), **preprocess_of(recipe).as_dict(),
    }  # fmt: skip
    digest = save_labeller(out, network, names, recipe, protocol)
    return ImportReport(out, model, found.layout, len(found.tensors), len(counters), names, recipe, digest, notes)


def _checked_out(path: str, out: str) -> str:
    """The model file to write, which must not be the weights file, which must be there."""
    if not os.path.isfile(path):
        raise ModelError("no such weights file; name a .pth, .pth.tar or .safetensors file", code="missing", path=path)
    if os.path.isdir(out) or out.endswith("/"):
        out = os.path.join(out, "model.safetensors")
    if os.path.exists(out) and os.path.samefile(path, out):
        raise UsageError("the model file would replace the weights it is made from; name another with -o", path=out)
    return out


def _read_with_recipe(
    path: str, spec: ModelSpec, model: str, overrides: Sequence[str]
) -> tuple[dict[str, Tensor], Recipe, list[str]]:
    """The tensors of a file, the whole recipe of their network, and notes on what of it the file has told."""
    told, notes = _told_by_name(os.path.basename(path), spec)
    told = {"model": model, "resize": "short_side", **told}
    make_recipe(told, overrides)  # a mistake in a key is told before a large file is read
    state = read_state_dict(path)
    if spec.consensus == "relation" and (num_frames := num_frames_in(state)) is not None:
        told["num_frames"] = num_frames
        notes = [f"from the file's tensors: num_frames={num_frames}, which its relations are among"]
    recipe = make_recipe(told, overrides)
    if recipe.model != model:
        raise UsageError(f"model={recipe.model} contradicts --as {model}; leave it out")
    crop_px = recipe.crop_px or spec.size_px
    size_px = recipe.size_px or round(crop_px * 8 / 7)
    if size_px < crop_px:
        raise UsageError(f"size_px is {size_px}, smaller than crop_px, {crop_px}; a crop is cut out of it")
    return state, make_recipe({**recipe.model_dump(), "crop_px": crop_px, "size_px": size_px}), notes


def _class_names(path: str | None, num_classes: int) -> tuple[list[str], list[str]]:
    """The names of the classes, numbers where there is no file of names, and a note that says so."""
    if path is None:
        note = f"no class names were given, so they are 0 to {num_classes - 1}; give them with --classes"
        return [str(number) for number in range(num_classes)], [note]
    names = read_class_names(path)
    if len(names) != num_classes:
        raise UsageError(
            f"it has {len(names)} class names, and the weights are for {num_classes} classes; give the list that "
            "the network was trained with",
            path=path,
        )
    return names, []


def _differences(found: LayoutFit, spec: ModelSpec, recipe: Recipe) -> list[str]:
    """What of a toolkit's network is written or computed in another way here, or cannot be known."""
    notes = []
    if found.folded:
        notes.append(
            f"{len(found.folded)} biases before a BatchNorm are part of the mean that it subtracts now: "
            f"{few(found.folded, show=named)}"
        )
    if found.dropped:
        notes.append(
            f"{len(found.dropped)} biases that no score depends on are left out: {few(found.dropped, show=named)}"
        )
    if found.layout == "mmaction2" and spec.layer == "nonlocal":
        supposed = {"pairwise": "embedded_gaussian", "similarity_scale": "none"}
        shown = ", ".join(f"layer.{key}={value}" for key, value in supposed.items() if key not in recipe.layer)
        if shown:
            notes.append(f"neither names nor shapes tell how non-local blocks compare positions: {shown} unless given")
    if found.left_out:
        notes.append(f"{len(found.left_out)} tensors of another part are left out: {few(found.left_out, show=named)}")
    if found.layout == "torchvision" and spec.name == "s3d" and "pixels" not in recipe.backbone:
        notes.append(
            "torchvision normalises pixels in its own way, which names do not tell: give backbone.pixels=kinetics"
        )
    if spec.backbone == "bninception" and spec.consensus is None:
        notes.append(
            f"neither names nor shapes tell whether BN-Inception shifts; it is read as {spec.name}, which "
            f"{'does' if spec.layer else 'does not'}"
        )
    if found.ones:
        notes.append(f"{len(found.ones)} scales of BatchNorm, which such files do not have, are one each")
    if spec.consensus == "relation":
        notes.append(
            f"{found.layout} draws relations anew for every batch of clips; here the scores are what its draws come to "
            "on average"
        )
    return notes


def _told_by_name(name: str, spec: ModelSpec) -> tuple[dict[str, Any], list[str]]:
    """Recipe keys that a file's name tells, or the network by itself, and notes that say so.

    TSM's code names a file ``TSM_DATA_RGB_resnet50_shift8_blockres_avg_segment8_e50[_dense][_nl].pth``; mmaction2 puts
    ``1x1x8`` (frames of a clip, their distance, clips), ``dense`` and, with non-local blocks, ``nl-dot-product`` (how
    they compare positions) into it. bLVNet-TAM's authors put ``f8x2`` into theirs, of 8 pairs of frames.
    """
    if spec.preprocess:  # a network that is whole by itself, and was published with its input
        pairs = re.search(r"-bLVNet-TAM-\d+-.*-f(\d{1,3})x2(?=[-_.]|$)", name)
        if pairs is None or not spec.name.startswith("blvnet_"):
            return dict(spec.preprocess), []
        num_frames = 2 * int(pairs[1])
        return {**spec.preprocess, "num_frames": num_frames}, [f"from the file's name: num_frames={num_frames}"]
    values: dict[str, Any] = {}
    layer: dict[str, Any] = {}
    notes: list[str] = []
    parts = re.search(r"_segment(\d{1,3})(?=_)", name) or re.search(r"(?:^|[-_])1x\d{1,2}x(\d{1,3})(?=[-_])", name)
    if parts is None:
        notes.append("the file's name does not tell how many frames the network saw: num_frames=8 unless given")
    else:
        values["num_frames"] = num_frames = int(parts[1])
        if re.search(r"[-_]dense[-_.]", name):
            values |= {"sampling": "dense", "stride": max(1, DENSE_FRAMES // max(1, num_frames))}
    shift = re.search(r"_shift(\d{1,3})_", name)
    if shift is not None and "temporal_shift" in spec.layers:
        layer["divisor"] = int(shift[1])
    compared = re.search(r"[-_]nl[-_](dot[-_]product|(?:embedded[-_])?gaussian)[-_]", name)
    if compared is not None and "nonlocal" in spec.layers:
        layer["pairwise"] = compared[1].replace("-", "_")
    if layer:
        values["layer"] = layer
    shown = [f"{key}={value}" for key, value in values.items() if key != "layer"]
    shown += [f"layer.{key}={value}" for key, value in layer.items()]
    if shown:
        notes.insert(0, f"from the file's name: {', '.join(shown)}, unless given")
    return values, notes


def _misfit(state: Mapping[str, Tensor], model: str, num_classes: int, found: LayoutFit | None) -> str:
    """Why a file is not the model's: the names without a counterpart, and what the file fits, if anything."""
    if found is None:
        said = f"no file of {', '.join(LAYOUTS)} holds a network such as {model}"
    else:
        said = f"it does not fit {model} by the names of {found.layout}: " + ", ".join(
            f"{len(names)} {what} ({few(names, show=named)})"
            for what, names in [
                ("not in the file", found.missing),
                ("not in the model", found.unexpected),
                ("of another shape", found.reshaped),
            ]
            if names
        )
    best_name, best = _nearest(state, num_classes)
    if not best.num_wrong:
        return f"{said}. It fits {best_name}; import it with --as {best_name}"
    strange = not_ours(state)
    if strange:
        return f"{said}. It has {' and '.join(strange)}, which cannot be imported; give a file without"
    return (
        f"{said}. Nearest is {best_name} by the names of {best.layout}, with {best.num_wrong} that do not fit; "
        f"expected a network of {', '.join(LAYOUTS)} by its own names"
    )


def _nearest(state: Mapping[str, Tensor], num_classes: int) -> tuple[str, LayoutFit]:
    """The named model that leaves the fewest names of a file unaccounted for."""
    num_frames = num_frames_in(state) or 8
    best: tuple[str, LayoutFit] | None = None
    for name, spec in MODELS.items():
        if not _in_some_layout(spec):
            continue
        # Only a consensus is made for a number of frames; all others are made once.
        outline = _outline(name, num_frames if spec.consensus else 8)
        found = fit(state, _for_classes(outline, num_classes))
        if found is not None and (best is None or found.num_wrong < best[1].num_wrong):
            best = name, found
            if not found.num_wrong:
                break
    assert best is not None
    return best


def _in_some_layout(spec: ModelSpec) -> bool:
    """Whether any toolkit has the family: it puts the same layers into slots of the same kind on every backbone."""
    smallest = f"{spec.family}_tiny"
    return smallest not in MODELS or bool(_outline(smallest, 8).names)


# A number of classes that no other size of a network equals.
ANY_NUMBER = 65_521


@cache
def _outline(name: str, num_frames: int) -> Outline:
    """A named model's shapes, with ``ANY_NUMBER`` where they are those of its classes."""
    with without_memory():
        return Outline.of(build(name, ANY_NUMBER, num_frames=num_frames))


def _for_classes(outline: Outline, num_classes: int) -> Outline:
    shapes = {key: tensor.shape for key, tensor in outline.own.items() if ANY_NUMBER in tensor.shape}
    scoring = {
        key: torch.empty([num_classes if size == ANY_NUMBER else size for size in shape], device="meta")
        for key, shape in shapes.items()
    }
    return replace(outline, own={**outline.own, **scoring})


def read_class_names(path: str | Path) -> list[str]:
    """Class names, in the order of the network's scores, from a file.

    - ``.json``: a list of names, or a mapping of names to numbers (``something-something-v2-labels.json``), or of
      numbers to names. The numbers count from 0, and each stands once.
    - ``.csv``: one name a row; with a header, the column ``name`` or ``label``, and the numbers in ``id`` or ``index``
      if there is one. Names that hold commas need no quotes where a row can only be one name: in a last column, or
      without a header where commas are followed by blanks or some rows have none.
    - any other: one name a line. Empty lines at the end do not count.

    :raises UsageError: there is no such file, it is malformed, a name is empty, or a number is missing or stands twice.
    """
    path = str(path)
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        return _names_in_json(read_json(path), path)
    lines = read_text(path, "class names, one a line").splitlines()
    if suffix == ".csv":
        return _names_in_csv(lines, path)
    while lines and not lines[-1].strip():
        lines.pop()
    return _checked([line.strip() for line in lines], path)


def _names_in_json(content: Any, path: str) -> list[str]:
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return _checked([name.strip() for name in content], path)
    if isinstance(content, dict) and content:
        keys_count = all(str(key).isdecimal() for key in content)
        pairs = content.items() if keys_count else [(number, name) for name, number in content.items()]
        return _numbered([(str(number), str(name)) for number, name in pairs], path)
    raise UsageError(
        "expected a list of class names, or a mapping between names and numbers", code="bad_annotation", path=path
    )


def _names_in_csv(lines: Sequence[str], path: str) -> list[str]:
    try:
        rows = [row for row in csv.reader(lines, strict=True) if row]
    except csv.Error as error:
        raise UsageError(f"not valid CSV: {error}; expected a name a row", code="bad_annotation", path=path) from None
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    column = next((header.index(word) for word in ("name", "label") if word in header), None)
    number = next((header.index(word) for word in ("id", "index") if word in header), None)
    body = rows if column is None else rows[1:]
    width = 1 if column is None else len(header)
    if _hold_commas(body) if column is None else column == width - 1:
        body = [[*row[: width - 1], ",".join(row[width - 1 :])] if len(row) > width else row for row in body]
    for row in body:
        if len(row) != width:
            raise UsageError(
                f"the row {quoted(','.join(row), 80)} has {len(row)} cells; expected one name a row, or a header "
                "with the column name or label. Put names with commas into quotes, or one a line into a file that ends "
                "in .txt",
                code="bad_annotation",
                path=path,
            )
    if number is not None and column is not None:
        return _numbered([(row[number].strip(), row[column]) for row in body], path)
    return _checked([row[column or 0].strip() for row in body], path)


def _hold_commas(rows: Sequence[Sequence[str]]) -> bool:
    """Whether rows without a header are names with commas, and no table whose columns nobody names."""
    numbered = all(row[0].strip().isdecimal() for row in rows)
    written = all(cell.startswith(" ") for row in rows for cell in row[1:])
    return not numbered and (written or any(len(row) == 1 for row in rows))


def _numbered(pairs: Sequence[tuple[str, str]], path: str) -> list[str]:
    """Names in the order of their numbers, which must be 0, 1, 2 and so on."""
    by_number = {int(number): name.strip() for number, name in pairs if re.fullmatch(r"[0-9]{1,9}", number)}
    if sorted(by_number) != list(range(len(pairs))):
        wrong = next((str(n) for n in range(len(pairs)) if n not in by_number), "")
        raise UsageError(
            f"the numbers of its {len(pairs)} classes must be 0 to {len(pairs) - 1}, each once; {wrong} is not there",
            code="bad_annotation",
            path=path,
        )
    return _checked([by_number[number] for number in range(len(pairs))], path)


def _checked(names: list[str], path: str) -> list[str]:
    if not names:
        raise UsageError("it has no class names; expected one a line", code="empty", path=path)
    if "" in names:
        raise UsageError(
            f"the name of class {names.index('')} is empty; expected one a line", code="bad_annotation", path=path
        )
    return names
