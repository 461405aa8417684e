"""``ssan info``."""

from collections.abc import Callable, Iterator, Mapping
from json import dumps, loads
from pathlib import Path
from typing import Annotated, Any

import typer

from ssan.cli import options
from ssan.errors import UsageError

FORM = (
    "a model file, the folder of a run, a score file (.npz), features (a folder of `ssan extract`'s or of .npy files), "
    "a clip file (.clips), or a name of `ssan weights list`"
)


def info(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A model, run, score file, features, clip file, or a name.")
    ],
    json: options.Json = False,
) -> int:
    """Say what a file or folder is: what it was trained on or made of, what it takes, and what it has reached."""
    kind, describe = _kind(Path(file))
    found = {"path": file, "kind": kind, **describe(Path(file))}
    # What a file from elsewhere says of itself may hold NaN, which JSON does not have.
    found = loads(dumps(found), parse_constant=lambda _: None)
    options.show(found, _lines, as_json=json)
    return options.DONE


def _kind(path: Path) -> tuple[str, Callable[[Path], dict[str, Any]]]:
    """What it is, and what describes it; by the names of files and their first bytes."""
    from ssan.weights.named import NAMED

    if str(path) in NAMED and not path.exists():
        return "weights", _weights
    if path.is_dir():
        from ssan.features.store import STORE

        if (path / STORE).is_file():  # beside which the job that made it has a journal too
            return "features", _features
        if (path / "journal.jsonl").is_file():
            return "run", _run
        if (path / "model.safetensors").is_file():
            return "model", _model
        if next(path.rglob("*.npy"), None) is not None:
            return "features", _features
        raise UsageError(
            f"a folder that is none of what this command knows; expected {FORM}. `ssan data describe` tells of videos",
            path=str(path),
        )
    if not path.is_file():
        raise UsageError(f"no such file or folder; expected {FORM}", code="missing", path=str(path))
    if path.suffix == ".npz":
        return "scores", _scores
    if path.suffix == ".clips":
        return "clips", _clips
    if path.suffix in (".pth", ".pt", ".tar", ".pkl", ".pickle"):
        raise UsageError(
            f"a file of another toolkit's, by its name; expected {FORM}. `ssan import` makes a model file of weights",
            path=str(path),
        )
    return "model", _model


def _model(path: Path) -> dict[str, Any]:
    """A model file's own words, which need not fit together as they do where it is used."""
    from ssan.models.catalogue import without_memory
    from ssan.recipe import make_recipe
    from ssan.report.journal_runs import mapping, number
    from ssan.weights.classifier_file import OWN, build_from
    from ssan.weights.model_file import read_model_file

    file = path / "model.safetensors" if path.is_dir() else path
    tensors, metadata = read_model_file(file)
    recipe, protocol, classes = (metadata.get(key) for key in ("recipe", "protocol", "classes"))
    recipe, protocol = mapping(recipe), mapping(protocol)
    encoder = mapping(metadata.get("encoder"))  # of a head, whose file has nothing else of the network
    is_retrieval = metadata.get("kind") == "retrieval"
    labels = [str(label) for label in classes] if isinstance(classes, list) else []
    num_params = None
    if labels and not encoder and recipe.get("model") != OWN:
        with without_memory():
            built = build_from(make_recipe(recipe, path=str(file)), len(labels))
        num_params = sum(parameter.numel() for parameter in built.parameters())
    if is_retrieval:
        reached = {key: value for key, value in protocol.items() if number(value) is not None}
    else:
        reached = {key: protocol[key] for key in ("split", "num_scored", "top1") if key in protocol}
    return {
        "task": "retrieval" if is_retrieval else "recognition",
        "model": recipe.get("text") if is_retrieval else encoder.get("source") or recipe.get("model"),
        "num_params": num_params,
        "num_tensors": len(tensors),
        "bytes": file.stat().st_size,
        "sha256": metadata["sha256"],
        "encoder": encoder,
        "classes": labels,
        "takes": metadata.get("streams") if is_retrieval else mapping(metadata.get("preprocess")),
        "trained_on": {"init": recipe.get("init"), "imported_from": protocol.get("imported_from")},
        "reached": reached,
        "threshold": mapping(metadata.get("threshold")),
        "recipe": recipe,
    }


def _weights(path: Path) -> dict[str, Any]:
    """What the table says of named weights, be they here or not."""
    from ssan.weights.named import NAMED, as_row, path_of

    weights = NAMED[str(path)]
    row = as_row(weights)
    return {
        **{key: row[key] for key in row if key != "name"},
        "file": str(path_of(weights)),
        "takes": dict(weights.recipe),
    }


def _run(path: Path) -> dict[str, Any]:
    """What the journal says of a run, and the model file of what it takes."""
    from ssan.report.journal_runs import mapping, read_runs

    [run] = read_runs([str(path)])
    has_model = (path / "model.safetensors").is_file()
    model = _model(path) if has_model else {}
    best = mapping(run.best)
    figures = ("split", "num_scored", "num_queries", "top1", "mean_class_accuracy", "interval95", "protocol")
    both_ways = ("text_to_video", "video_to_text")
    evaluated = run.measured or [
        {"split": one.split, **one.figures, "interval95": one.interval95, "protocol": one.protocol}
        for one in run.evaluations
    ]
    return {
        **model,
        "task": "retrieval" if run.is_retrieval else "recognition",
        "model": run.recipe.get("text") if run.is_retrieval else run.model,
        "status": run.status,
        "num_epochs": len(run.epochs),
        "classes": run.classes,
        "trained_on": {
            "data": run.start.get("data"),
            "num_train": run.start.get("num_train"),
            "num_val": run.start.get("num_val"),
            "init": run.recipe.get("init"),
        },
        "reached": {
            **({} if best else mapping(model.get("reached"))),
            **({"epoch": best["epoch"], "val_top1": run.val_top1, "interval95": run.val_interval95} if best else {}),
        },
        "evaluations": [{key: row[key] for key in (*figures, *both_ways) if key in row} for row in evaluated],
        "recipe": run.start.get("recipe"),
    }


def _scores(path: Path) -> dict[str, Any]:
    from ssan.recognition.score_file import UNKNOWN, read_scores
    from ssan.training.metrics import accuracies

    file = read_scores(path)
    return {
        "num_videos": len(file.ids),
        "num_labelled": int((file.labels != UNKNOWN).sum()),
        "classes": file.classes,
        "protocol": file.protocol,
        "reached": {key: value for key, value in accuracies(file.scores, file.labels).items() if value is not None},
    }


def _features(path: Path) -> dict[str, Any]:
    from ssan.features.store import STORE, open_vectors
    from ssan.features.streams import open_features

    if (path / STORE).is_file():
        store = open_vectors(path)
        return {
            "num_videos": len(store),
            "num_vectors": store.num_vectors,
            "dim": store.dim,
            "made_by": store.provenance,
        }
    [stream] = open_features(path, strict=False)
    return {"num_videos": len(stream.known()), "num_vectors": None, "dim": stream.dim, "made_by": None}


def _clips(path: Path) -> dict[str, Any]:
    from ssan.video.clip_file import open_clip_file

    file = open_clip_file(str(path))
    entries = [file.entries[name] for name in file.entries]
    sizes = {(entry.width_px, entry.height_px) for entry in entries}
    return {
        "num_videos": len(entries),
        "num_frames": sum(entry.num_frames for entry in entries),
        "bytes": path.stat().st_size,
        "sizes_px": sorted(sizes)[:100],
        "folders": file.subfolders(""),
    }


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    """A line for each thing known; what is nested is told with its names."""
    for key, value in found.items():
        if key in ("path", "recipe") or value in (None, {}, []):
            continue
        if key == "evaluations":
            for row in value:
                yield f"{'evaluated':12} {_said({name: row[name] for name in row if name != 'protocol'})}"
        elif key in ("classes", "folders"):
            more = f", and {len(value) - 8} more" if len(value) > 8 else ""
            yield f"{key:12} {len(value)}: {', '.join(map(str, value[:8]))}{more}"
        else:
            yield f"{key.removeprefix('num_').replace('_', ' '):12} {_said(value)}"


def _said(value: Any) -> str:
    if isinstance(value, dict):
        parts = ((name.removeprefix("num_"), inner) for name, inner in value.items() if inner not in (None, {}, []))
        return ", ".join(f"{name.replace('_', ' ')} {_said(inner)}" for name, inner in parts) or "not said"
    if isinstance(value, list):
        return f"[{', '.join(map(_said, value))}]"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
