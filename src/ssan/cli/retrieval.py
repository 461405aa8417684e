"""``ssan retrieval``: train a joint space of texts and videos, and measure one."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ssan.cli import options
from ssan.cli.screen import tell
from ssan.errors import UsageError

if TYPE_CHECKING:
    from ssan.datasets.source import DataSource

app = typer.Typer(help="Find videos by text: train on captions and features, and measure.")

Features = Annotated[
    list[str],
    typer.Option(help="NAME=PATH, a folder or file of features, once for each stream; or PATH, in the recipe's order."),
]
Rates = Annotated[
    list[float] | None, typer.Option("--rate", help="Vectors a second of each, where the features do not say it.")
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out captions without features, or without known words.")
]
AllowUnused = Annotated[bool, typer.Option("--allow-unused", help="Features that no caption tells of are no fault.")]


@app.command("train")
@options.reads_captions
def train(
    features: Features,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the run.")],
    overrides: options.Overrides = None,
    recipe: options.Recipe = None,
    text: Annotated[str | None, typer.Option(help="gru, bigru, lstm, maxpool or transformer.")] = None,
    vectors: Annotated[str | None, typer.Option(help="Word vectors: GloVe, word2vec or fastText.")] = None,
    narrations: Annotated[
        str | None, typer.Option(help="What is said in narrated videos (format howto100m), JSON or pickle.")
    ] = None,
    init: Annotated[str | None, typer.Option(help="A trained joint space to start from.")] = None,
    val_split: Annotated[
        str, typer.Option(help="Captions that choose the best epoch: val, test or train; `none` keeps the last epoch.")
    ] = "val",
    rate: Rates = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    more_epochs: options.MoreEpochs = None,
    skip_bad: SkipBad = False,
    allow_unused: AllowUnused = False,
    *,
    source: "DataSource",
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.RecipeSeed = None,
    device: options.Device = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that put batches together.")] = 0,
) -> int:
    """Train a joint space on captions and the features of their videos, and keep the best.

    KEY=VALUE after the options changes the recipe, such as epochs=20 or loss=info_nce.
    """
    from ssan.processes import processes
    from ssan.recipe import make_retrieval_recipe, read_retrieval_recipe
    from ssan.retrieval.train import Material, train
    from ssan.shipped import find_recipe
    from ssan.training.callbacks import InterruptedRun

    said = {"text": text, "init": init, "seed": seed}
    changes = [*(f"{key}={value}" for key, value in said.items() if value is not None), *(overrides or [])]
    if recipe is None:
        chosen = make_retrieval_recipe({"features": "+".join(_names(features))}, changes)
    else:
        chosen = read_retrieval_recipe(find_recipe(recipe), changes)
    material = Material(
        captions=_captions(source),
        features=tuple(features),
        rates=tuple(rate or ()),
        vectors=vectors,
        narrations=narrations,
        val_split=None if val_split == "none" else val_split,
    )
    try:
        answer = train(
            chosen,
            material,
            out,
            resume=resume,
            skip_bad=skip_bad,
            allow_unused=allow_unused,
            device=options.choose_device(device),
            workers=workers,
            quiet=quiet,
            more_epochs=more_epochs,
        )
    except InterruptedRun as interrupted:
        tell(interrupted)
        return options.INTERRUPTED
    if processes().first:
        options.show(answer, _lines_of_training, as_json=json)
    return options.SOME_FAILED if answer["num_skipped"] else options.DONE


def _lines_of_training(answer: dict[str, Any]) -> Iterator[str]:
    split = answer["measured_on"]
    measured = answer[split]
    figures = ", ".join(f"{split}_{key} {measured[key]:.4f}" for key in ("r1", "r5", "r10") if key in measured)
    figures = figures or f"{split}_loss {measured['loss']:.4f}"
    yield f"epoch {answer['best_epoch']} of {answer['epochs']} ({answer['chosen_by']}): {figures}"
    yield f"{answer['num_train']} pairs an epoch, {answer['num_skipped']} captions left out"
    yield answer["model"]


@app.command("eval")
@options.reads_captions_if_any
def evaluate(
    model: Annotated[str | None, typer.Argument(help="A model file, or a run's folder; none with --scores.")] = None,
    features: Annotated[list[str] | None, typer.Option(help="As of `retrieval train`.")] = None,
    split: options.Split = "test",
    positives: Annotated[
        Literal["own", "same_caption"],
        typer.Option(help="Right is a caption's own clip, or every clip with the very caption."),
    ] = "own",
    twins: Annotated[str | None, typer.Option(help="CSV video,other,kind: whose own video scores higher?")] = None,
    scores: Annotated[str | None, typer.Option(help="A matrix of scores (.npy) instead of a model.")] = None,
    truth: Annotated[str | None, typer.Option(help="CSV query_row,video_column, for --scores.")] = None,
    bootstrap: Annotated[int, typer.Option(min=0, max=100_000, help="Draws behind the intervals; 0 for none.")] = 1000,
    batch: Annotated[int, typer.Option(min=1, help="Captions or clips at a time.")] = 512,
    transformer: Annotated[
        str | None, typer.Option(help="Where the folder of the model's transformers text model lies now.")
    ] = None,
    rate: Rates = None,
    skip_bad: SkipBad = False,
    allow_unused: Annotated[
        bool, typer.Option("--allow-unused/--refuse-unused", help="Features that no caption of the split tells of.")
    ] = True,
    *,
    source: "DataSource | None",
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> int:
    """Rank all clips of a split for each caption, and the captions for each clip; or take the scores of any model."""
    if (scores is None) != (truth is None):
        raise UsageError("--scores FILE.npy and --truth FILE.csv belong together; give both or neither")
    if scores is not None and truth is not None:
        if model is not None or source is not None or features:
            raise UsageError("--scores are measured as they are; leave out the model, --captions and --features")
        from ssan.retrieval.matrix import evaluate_matrix

        answer = evaluate_matrix(scores, truth, bootstrap=bootstrap, seed=seed)
    else:
        if model is None or source is None or not features:
            raise UsageError("give a model, --captions and --features; or a matrix, by --scores and --truth")
        from ssan.features.named import paths_by_stream
        from ssan.retrieval.evaluate import evaluate
        from ssan.retrieval.fingerprint import fingerprint
        from ssan.retrieval.model_file import load_retriever
        from ssan.retrieval.train import open_streams

        retriever = load_retriever(model, options.choose_device(device), transformer=transformer)
        streams = open_streams(features, rate or (), [stream["name"] for stream in retriever.streams])
        samples = _captions(source).read(split)
        answer = evaluate(
            retriever,
            samples,
            streams,
            split=split,
            positives=positives,
            twins=twins,
            skip_bad=skip_bad,
            allow_unused=allow_unused,
            bootstrap=bootstrap,
            batch=batch,
            seed=seed,
        )
        if (Path(model) / "journal.jsonl").is_file():
            options.record_evaluation(
                Path(model),
                source,
                split,
                {key: value for key, value in answer.items() if key != "dropped"},
                features=list(features),
                listed=fingerprint({split: samples}, paths_by_stream(features, retriever.recipe.streams)),
                model_hash=retriever.hash,
            )
    options.show(answer, _lines, as_json=json)
    return options.SOME_FAILED if answer["num_missing"] else options.DONE


FORMATS = ("captions_csv", "msrvtt", "youcook2", "lsmdc", "howto100m")


def _captions(source: "DataSource") -> "DataSource":
    """The captions that are named; what is a list of labels is none."""
    if source.found_format not in FORMATS:
        raise UsageError(
            f"these are no captions (they look like {source.found_format}); expected a CSV file with the header "
            f"video,caption[,start,end][,split], or a folder with captions.csv, or --format {', '.join(FORMATS[1:])}",
            path=source.root,
        )
    return source


def _names(features: list[str]) -> list[str]:
    """Names for streams of which no recipe says any: those that are given, or those of their folders."""
    from ssan.features.named import named

    pairs = [named(given) for given in features]
    return [name or Path(path).name.replace("+", "_") or "features" for name, path in pairs]


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    for name, title in (("text_to_video", "text to video"), ("video_to_text", "video to text")):
        found = answer[name]
        low, high = found["interval95"]["r1"] if "interval95" in found else (None, None)
        interval = "" if low is None else f" [{low:.4f}, {high:.4f}]"
        yield (
            f"{title}: R@1 {found['r1']:.4f}{interval}  R@5 {found['r5']:.4f}  R@10 {found['r10']:.4f}  median rank "
            f"{found['median_rank']:g}  mean rank {found['mean_rank']:.1f}"
        )
    used = answer["protocol"]
    yield (
        f"{answer['num_queries']} captions, {answer['num_candidates']} candidates, {answer['num_missing']} captions "
        f"left out, {answer['num_ties']} ties; right: {used['positives']}, ties: {used['tie_rule']}"
    )
    for kind, found in answer.get("twins", {}).items():
        if found["accuracy"] is not None:
            yield f"twins that differ by {kind}: {found['accuracy']:.4f} of {found['num']} told apart"
    for note in answer.get("notes", []):
        yield f"note: {note}"
    for dropped in answer.get("dropped", [])[:5]:
        yield f"left out: {dropped['message']}"
    if len(answer.get("dropped", [])) > 5:
        yield f"left out: {len(answer['dropped']) - 5} more"
