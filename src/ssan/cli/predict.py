"""``ssan predict``."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssan.cli import options
from ssan.cli.screen import print, tell
from ssan.errors import UsageError, quoted

if TYPE_CHECKING:
    from ssan.recognition.predict_windows import WindowAnswer
    from ssan.training.together import Together


def predict(
    context: typer.Context,
    model: options.Model,
    paths: Annotated[list[str], typer.Argument(help="Videos, folders of frames, or folders of videos.")],
    top: Annotated[int, typer.Option(min=1, help="Labels to print of each video.")] = 5,
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="SCORE|file",
            help="Videos whose best score is below are none of the classes.  [default: the model file's own, if any]",
            show_default=False,
        ),
    ] = None,
    windows: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Label windows so long that slide over each video, read one by one."),
    ] = None,
    step: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="From one window's beginning to the next one's.  [default: --windows]",
            show_default=False,
        ),
    ] = None,
    csv: Annotated[
        str | None,
        typer.Option(metavar="FILE.csv", help="Also write a table: path, start_seconds, end_seconds, label, score."),
    ] = None,
    page: Annotated[
        str | None, typer.Option(metavar="FILE.html", help="Also write a page with a film strip of each video.")
    ] = None,
    strips: Annotated[int, typer.Option(min=0, max=2000, help="Film strips on the page, at most.")] = 60,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    device: options.Device = "auto",
    workers: options.Workers = None,
) -> int:
    """Label videos, each as a whole or (--windows) window by window."""
    from ssan.files import one_writer
    from ssan.processes import processes
    from ssan.recognition.predict import expand
    from ssan.training.together import together
    from ssan.weights.open_model import open_classifier

    failed, given, lengths = 0, _given(threshold), _lengths(windows, step)
    for option, file in (("csv", csv), ("page", page)):
        if file is not None:
            options.check_output(f"--{option}", file, [".csv"] if option == "csv" else [".html", ".htm"])
    options.have(model, yes=yes, quiet=quiet)
    processes_here = processes(alone_without_srun=True)
    for file in (csv, page):
        if file is not None and processes_here.first:
            context.with_resource(one_writer(file))
    with ExitStack() as stack:
        group = stack.enter_context(together(processes_here))
        labeller = open_classifier(model, options.choose_device(device))
        least = labeller.threshold if given is None else given
        if threshold is not None and least is None:
            raise UsageError(
                "its file has no threshold; choose one with `ssan eval ... --choose-threshold SHARE --write`, or give "
                "a number",
                path=model,
            )
        videos, notes = group.each(lambda: expand(paths))[0]
        for note in notes if group.first else []:  # not progress: some of what was asked for has no answer
            tell(note)
        # A single video is read here: a process for it takes longer to start than to read most.
        readers = options.choose_workers(workers, processes_here.cores) if workers or len(videos) > 1 else 0
        answers = _answers(labeller, group, videos, lengths, {"top": top, "threshold": least, "workers": readers})
        silent = quiet or not group.first or (len(videos) < 2 and lengths is None)
        began = time.monotonic()
        if not silent:
            tell(f"{_size(videos)}{_in_words(lengths)}")
        outputs = _Outputs(stack, csv if group.first else None, page if group.first else None)
        for answer in _with_bar(answers, len(videos), in_windows=lengths is not None, quiet=silent):
            line = answer.line
            failed += not line["ok"]
            if not group.first:
                continue  # the first process speaks for all
            outputs.take(answer)
            if "warning" in line and not quiet:
                tell(f"{line['path']}: {line['warning']['message']}")
            if json:
                options.show_json(line)
            else:
                _print(line)
        if not silent:
            took = max(time.monotonic() - began, 1e-9)
            more = "" if lengths is None else f", {outputs.num / took:.2f} windows a second"
            tell(f"{_num(videos)} in {took:.1f} s: {len(videos) / took:.2f} videos a second{more}")
        outputs.end(labeller.name, _in_words(lengths).removeprefix(", "), strips, quiet=quiet)
    return options.SOME_FAILED if failed else options.DONE


def _answers(
    labeller: Any, group: "Together", videos: Sequence[str], lengths: tuple[float, float] | None, how: dict[str, Any]
) -> Iterator["WindowAnswer"]:
    """The answers of all processes, in the order of the videos; of a whole video there is one."""
    from ssan.recognition.predict import predict_each
    from ssan.recognition.predict_windows import WindowAnswer, predict_windows

    if lengths is None:
        each = predict_each(labeller, group.mine(videos), **how)
        for number, line in enumerate(group.over(videos, lambda _: next(each))):
            yield WindowAnswer(number, 1, line)
        return
    window, step = lengths
    own = predict_windows(labeller, group.mine(videos), window_seconds=window, step_seconds=step, **how)
    if group.processes.world == 1:
        yield from own
        return
    by_video = (list(of_one) for _, of_one in groupby(own, key=lambda answer: answer.video))
    for number, of_one in enumerate(group.over(videos, lambda _: next(by_video))):
        yield from (answer._replace(video=number) for answer in of_one)


def _with_bar(
    answers: Iterator["WindowAnswer"], num_videos: int, *, in_windows: bool, quiet: bool
) -> Iterator["WindowAnswer"]:
    """The answers, with a bar; how many windows the videos have that were not opened yet it takes from the others."""
    unit = "window" if in_windows else "video"
    with options.progress(total=num_videos, what="labelling", unit=unit, quiet=quiet) as bar:
        known, begun = 0, 0
        for answer in answers:
            if answer.video >= begun:
                known, begun = known + answer.num_windows, answer.video + 1
                bar.total = round(known * num_videos / begun)
            yield answer
            bar.update()


class _Outputs:
    """The table and the page, where they are asked for; both appear when all is done, whole."""

    def __init__(self, stack: ExitStack, csv: str | None, page: str | None) -> None:
        self.page, self.num, self._begun, self._table = page, 0, -1, None
        if csv is not None:
            from ssan.files import writing
            from ssan.recognition.predict_windows import begin_table

            self._table = stack.enter_context(writing(csv))
            begin_table(self._table)
        if page is not None:
            from ssan.report.labels_page import LabelledVideos

            self._found = LabelledVideos()

    def take(self, answer: "WindowAnswer") -> None:
        self.num += 1
        if self._table is not None:
            from ssan.recognition.predict_windows import as_row

            self._table.write(as_row(answer.line))
        if self.page is not None:
            self._found.add(answer.line, begins=answer.video > self._begun)
            self._begun = answer.video

    def end(self, network: str, windows: str, strips: int, *, quiet: bool) -> None:
        if self.page is None:
            return
        from ssan.report.film_strip import FilmStrips
        from ssan.report.labels_page import write_labels_page

        write_labels_page(self.page, self._found, network=network, windows=windows, strips=FilmStrips(strips))
        if not quiet:
            tell(f"{self.page}: open it in a browser")


def _print(line: dict[str, Any]) -> None:
    """An answer in words."""
    where = line["path"]
    if "start_seconds" in line:
        where = f"{where}, {line['start_seconds']:.6g} to {line['end_seconds']:.6g} s"
    if line["ok"]:
        best = ", ".join(f"{best['label']} {best['score']:.3f}" for best in line["top"])
        print(f"{where}: {'none of these: ' if line.get('none') else ''}{best}", flush=True)
    else:
        print(f"{where}: {line['error']['code']}: {line['error']['message']}", file=sys.stderr, flush=True)


def _lengths(windows: float | None, step: float | None) -> tuple[float, float] | None:
    """How long a window is, and how long after it the next one begins; None of whole videos."""
    if windows is None:
        if step is not None:
            raise UsageError("--step is how far windows are apart, and there are none; give --windows SECONDS too")
        return None
    from ssan.recognition.predict_windows import checked_step

    return windows, checked_step(windows, step)


def _in_words(lengths: tuple[float, float] | None) -> str:
    return "" if lengths is None else f", windows of {lengths[0]:g} s every {lengths[1]:g} s"


def _num(videos: Sequence[str]) -> str:
    return f"{len(videos)} video{'' if len(videos) == 1 else 's'}"


def _size(videos: Sequence[str]) -> str:
    """How many videos there are to be read, and how large their files are."""
    num_bytes = sum(os.path.getsize(path) for path in videos if os.path.isfile(path))
    return _num(videos) + (f", {num_bytes / 1e6:.1f} MB" if num_bytes else "")


def _given(threshold: str | None) -> float | None:
    """The number that is given as a threshold; None of the model file's own."""
    if threshold is None or threshold == "file":
        return None
    try:
        value = float(threshold)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UsageError(
            f"--threshold is {quoted(threshold, 40)}; expected a score from 0 to 1, or `file` for the model file's own"
        )
    return value
