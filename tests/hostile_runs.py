"""Commands run on hostile files, and everything that they answer and do beside it.

Makes the files (see ``hostile_files``), labels each with a small random model through the command line, trains on
folders with good and bad ones, and compares the frames of damaged files that are read all the same with those that
decoding from the beginning gives. On the way it looks for ports that are opened, for files elsewhere that are, and for
processes and shared memory that are left.
"""

import csv
import ctypes
import json
import math
import os
import platform
import queue
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from tests.hostile_files import OUTSIDE, Hostile, jpeg, make, make_all, remove, video
from tests.hostile_watch import Outside, Watch

import ssan
from ssan.errors import CODES, SsanError
from ssan.training.journal import read_journal
from ssan.video.preprocess import segment_indices
from ssan.video.reader import read_clip

ROOT = Path(__file__).parents[1]
TRAININGS = ("at_once", "strange_names", "within")
FAULTS = ("traceback", "hang", "crash", "no answer", "bad answer")
NUM_FRAMES = 8
BATCH = 150
SETTINGS = ["crop_px=32", "size_px=32", f"num_frames={NUM_FRAMES}", "batch=8", "epochs=1", "crop=center", "flip=off"]


@dataclass
class Outcome:
    """What became of one file: ``ok``, a code, or one of ``FAULTS``."""

    name: str
    kind: str
    outcome: str
    seconds: float
    message: str = ""
    right: bool | None = None


@dataclass
class Report:
    """Everything that the runs gave."""

    outcomes: list[Outcome] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    peak_mb: float = 0.0
    not_run: list[str] = field(default_factory=list)


class Runner:
    """Runs commands of ssan in a process of their own, with limits on memory and on the time without an answer."""

    def __init__(self, folder: Path, *, seconds: float, memory_gb: float) -> None:
        self.folder, self.seconds, self.memory = folder, seconds, int(memory_gb * 2**30)
        self.report = Report()

    @contextmanager
    def watching(self, what: str) -> Iterator[Watch]:
        """Look at a command that is started within; what it does beside its answer is a problem."""
        with Watch() as watch:
            yield watch
        self.report.problems += [f"{what}: {self.plain(text)}" for text in watch.problems]

    def start(
        self, arguments: Sequence[str], watch: Watch, *, powerless: bool = False, **streams: Any
    ) -> subprocess.Popen[bytes]:
        paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
        environment |= watch.environment()

        def prepare() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (self.memory, self.memory))
            if powerless:
                obey_permissions()

        return subprocess.Popen(
            [sys.executable, "-m", "ssan", *arguments], cwd=self.folder, env=environment, stdin=subprocess.DEVNULL,
            preexec_fn=prepare, **streams,
        )  # fmt: skip

    def plain(self, said: str) -> str:
        """The end of what was said, without this machine's paths."""
        for path in (self.folder.parent, ROOT):
            said = said.replace(f"{path}{os.sep}", "")
        return said.strip()[-400:]

    def predict(self, model: Path, hostile: Sequence[Hostile], *, powerless: bool = False) -> None:
        """Label the files in a few calls and note what became of each."""
        for start in range(0, len(hostile), BATCH):
            rest = list(hostile[start : start + BATCH])
            while rest:
                rest = rest[self._predict_some(model, rest, powerless) :]

    def _predict_some(self, model: Path, hostile: Sequence[Hostile], powerless: bool) -> int:
        """One call. Returns for how many of the files the answer is known now."""
        arguments = ["predict", str(model), "--json", "--quiet", "--device", "cpu", "--"]
        arguments += [one.name for one in hostile]
        expected = [(one, path) for one in hostile for path in one.paths]
        found: dict[str, list[Outcome]] = {}
        with (
            tempfile.TemporaryFile() as errors,
            self.watching("predict") as watch,
            self.start(arguments, watch, powerless=powerless, stdout=subprocess.PIPE, stderr=errors) as process,
        ):
            lines: queue.Queue[tuple[float, bytes] | None] = queue.Queue()
            reader = threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True)
            reader.start()
            fault = ""
            before = time.monotonic()
            for number, (one, path) in enumerate(expected):
                try:
                    # The first answer waits for the imports too.
                    line = lines.get(timeout=self.seconds + (60 if number == 0 else 0))
                except queue.Empty:
                    fault = "hang"
                    process.kill()
                    break
                if line is None:
                    fault = "no answer"
                    break
                answer = _outcome(one, path, line[1], line[0] - before if number else 0.0)
                before = line[0]
                found.setdefault(one.name, []).append(answer)
            if not fault and (surplus := lines.get(timeout=self.seconds)) is not None:
                self.report.problems.append(f"an answer that nobody asked for: {surplus[1][:200]!r}")
            process.wait(self.seconds)
            self.report.peak_mb = max(self.report.peak_mb, _peak_mb())
            errors.seek(0)
            said = errors.read().decode(errors="replace")
        for one in hostile:
            if len(found.get(one.name, [])) == len(one.paths):
                self.report.outcomes.append(_together(one, found[one.name]))
        done = sum(len(found.get(one.name, [])) == len(one.paths) for one in hostile)
        if not fault:
            failed = any(answer.outcome != "ok" for answers in found.values() for answer in answers)
            if process.returncode != failed:
                self.report.problems.append(
                    f"exit status {process.returncode}, expected {int(failed)}: {self.plain(said)}"
                )
            if said:
                self.report.problems.append(f"on standard error, in spite of --quiet: {self.plain(said)}")
            return done
        if done == 0 and len(hostile) > 1 and fault != "hang":
            # The whole call came to nothing: look for the file that did it.
            half = len(hostile) // 2
            return self._predict_some(model, hostile[:half], powerless)
        if fault == "no answer" and process.returncode < 0:
            fault = "crash"
        if "Traceback" in said:
            fault = "traceback"
        one = hostile[done]
        message = f"exit status {process.returncode}: {self.plain(said)}"
        self.report.outcomes.append(Outcome(one.name, one.kind, fault, self.seconds, message, False))
        return done + 1

    def train(self, name: str, good: bytes, bad: Sequence[Hostile], seed: int) -> dict[str, Any]:
        """Train on a folder of classes with good and hostile files, without and with ``--skip-bad``."""
        root = self.folder.parent / f"train_{name}"
        remove(root)
        for split, number in (("train", 8), ("val", 4)):
            for label in ("one", "other"):
                home = root / split / label
                home.mkdir(parents=True)
                for index in range(number):
                    (home / f"good_{index}.mp4").write_bytes(good)
        # Two files that differ by their suffix alone would have one id.
        added = {f"{index:03d}_{one.name}": one for index, one in enumerate(bad)}
        for index, (file, one) in enumerate(added.items()):
            home = root / ("val" if index % 4 == 3 else "train") / ("one", "other")[index % 2]
            make(one, home / file, seed)
        common = ["train", "--model", "tsn_tiny", "--data", str(root), "--format", "folder", "--workers", "0", "--json",
                  "--quiet", "--device", "cpu", *SETTINGS]  # fmt: skip
        strict = self._finish([*common, "--out", str(root / "strict_run")])
        skipping = self._finish([*common, "--out", str(root / "skipping_run"), "--skip-bad"])
        row: dict[str, Any] = {
            "name": name,
            "num_bad": len(bad),
            "strict": {"status": strict[0], "seconds": strict[3], "says": self.plain(strict[2])},
            "skipping": {"status": skipping[0], "seconds": skipping[3], "says": self.plain(skipping[2])},
        }
        wrong = []
        for run, (status, out, said, _) in (("strict", strict), ("skipping", skipping)):
            if fault := _fault(status, said):
                row["faults"] = [*row.get("faults", []), fault]
                wrong.append(f"{run}: {status}: {self.plain(said)}")
            elif status == 2 and (out or said.count("\n") != 1 or not any(file[:4] in said for file in added)):
                wrong.append(f"{run}: refused without one line that names a bad file: {self.plain(said)}")
        if strict[0] != 2:
            wrong.append(f"strict: status {strict[0]} where bad files are, expected 2")
        if skipping[0] == 1 and "faults" not in row:
            wrong += _check_skipped(root, json.loads(skipping[1]), added, row)
        elif skipping[0] not in (1, 2):
            wrong.append(f"skipping: status {skipping[0]}, expected 1 or 2")
        self.report.problems += [f"train {name}: {text}" for text in wrong]
        remove(root)
        return row

    def _finish(self, arguments: Sequence[str]) -> tuple[int | str, str, str, float]:
        """Run a command to its end: exit status (or "hang"), standard output and error, seconds."""
        started = time.monotonic()
        with self.watching(arguments[0]) as watch:
            process = self.start(arguments, watch, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            try:
                out, said = process.communicate(timeout=10 * self.seconds)
                status: int | str = process.returncode
            except subprocess.TimeoutExpired:
                process.kill()
                out, said = process.communicate()
                status = "hang"
        self.report.peak_mb = max(self.report.peak_mb, _peak_mb())
        seconds = round(time.monotonic() - started, 2)
        return status, out.decode(errors="replace"), said.decode(errors="replace"), seconds


def _read_lines(stream: Any, lines: "queue.Queue[tuple[float, bytes] | None]") -> None:
    for line in stream:
        lines.put((time.monotonic(), line))
    lines.put(None)


def _peak_mb() -> float:
    """The largest memory of any process that has been waited for, in megabytes."""
    return round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1)


def _outcome(one: Hostile, path: str, line: bytes, seconds: float) -> Outcome:
    """What a line of the answer says, if it says it as promised."""
    text = line.decode(errors="replace")
    bad = Outcome(one.name, one.kind, "bad answer", round(seconds, 3), text[:300], False)
    try:
        answer = json.loads(line)
    except ValueError:
        return bad
    if answer.get("path") != path:
        return bad
    if answer.get("ok") is True:
        numbers = [answer["num_frames"], answer["duration_seconds"], *(best["score"] for best in answer["top"])]
        fine = all(math.isfinite(number) for number in numbers) and answer["num_frames"] >= 1 and answer["top"]
        return Outcome(one.name, one.kind, "ok", round(seconds, 3)) if fine else bad
    error = answer.get("error", {})
    fine = set(error) == {"path", "code", "message", "line"} and error["code"] in CODES and error["path"] == path
    if not fine or not error["message"] or "\n" in error["message"]:
        return bad
    return Outcome(one.name, one.kind, error["code"], round(seconds, 3), error["message"])


def _together(one: Hostile, answers: Sequence[Outcome]) -> Outcome:
    """One outcome of a path that stands for several files: the first that is not ok."""
    first = next((answer for answer in answers if answer.outcome != "ok"), answers[0])
    first.seconds = max(answer.seconds for answer in answers)
    if one.truth and first.outcome not in FAULTS:
        first.right = first.outcome in one.truth
    return first


def _fault(status: int | str, said: str) -> str:
    """How a command ended that did not end well; nothing where it did."""
    if status == "hang":
        return "hang"
    if isinstance(status, int) and status < 0:
        return "crash"
    return "traceback" if "Traceback" in said else ""


def _check_skipped(root: Path, answer: dict[str, Any], added: dict[str, Hostile], row: dict[str, Any]) -> list[str]:
    """Whether the answer, the journal and ``skipped.csv`` of a run agree with each other and with the files."""
    run = root / "skipping_run"
    with open(run / "skipped.csv", encoding="utf-8", errors="surrogateescape", newline="") as handle:
        skipped = {os.path.basename(line["path"]): line["code"] for line in csv.DictReader(handle)}
    (start,) = read_journal(run / "journal.jsonl", "start")
    row |= {"num_skipped": answer["num_skipped"], "num_used": answer["num_train"] + answer["num_val"]}
    row["codes"] = dict(Counter(skipped.values()))
    wrong = []
    if not len(skipped) == answer["num_skipped"] == start["num_skipped"]:
        wrong.append(f"{len(skipped)} lines, {answer['num_skipped']} answered, {start['num_skipped']} in the journal")
    if answer["num_train"] + answer["num_val"] + answer["num_skipped"] != 24 + len(added):
        wrong.append(f"{row['num_used']} used and {row['num_skipped']} skipped of {24 + len(added)}")
    wrong += [f"{name} was skipped and is none of the bad files" for name in skipped.keys() - added.keys()]
    for name, one in added.items():
        code = skipped.get(name, "ok")
        if one.truth and code not in one.truth:
            wrong.append(f"{name}: {code}, expected {sorted(one.truth)}")
    return [f"skipping: {text}" for text in wrong]


# ------------------------------------------------------------------------------------------------- frames compared


def compare(folder: Path, names: Sequence[str], seconds: float) -> list[dict[str, Any]]:
    """For damaged files that are read: whether their frames are those that decoding from the beginning gives.

    In a process of its own, which a file may take down.
    """
    rows: list[dict[str, Any]] = []
    while len(rows) < len(names):
        rest = names[len(rows) :]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "tests.hostile_runs", str(folder.resolve())],
                cwd=ROOT, input=json.dumps(list(rest)).encode(),
                stdout=subprocess.PIPE, check=False, timeout=seconds * len(rest),
            )  # fmt: skip
            out, ended = done.stdout, f"exit status {done.returncode}"
        except subprocess.TimeoutExpired as stopped:
            out, ended = stopped.stdout or b"", "no end"
        rows += [json.loads(line) for line in out.splitlines()]
        if len(rows) < len(names):
            rows.append({"name": names[len(rows)], "compared": 0, "different": 0, "why": ended})
    return rows


def compare_here(folder: Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for name in names:
        try:
            clip = read_clip(folder / name, lambda n: segment_indices(n, NUM_FRAMES, rng=None))
        except SsanError as error:
            yield {"name": name, "compared": 0, "different": 0, "why": f"{error.code}: {error.message}"}
            continue
        wanted = set(clip.indices)
        reference, count = sequential(folder / name, wanted)
        again, _ = sequential(folder / name, wanted)
        row: dict[str, Any] = {"name": name, "compared": 0, "different": 0, "num_frames": clip.num_frames}
        if list(clip.indices) != segment_indices(clip.num_frames, NUM_FRAMES, rng=None):
            row["why"] = "the frames are not the middles of the video's parts"
        for index, picture in zip(clip.indices, clip.frames.permute(0, 2, 3, 1).numpy(), strict=True):
            other = reference.get(index)
            if other is not None and not np.array_equal(other, again.get(index)):
                row["unstable"] = row.get("unstable", 0) + 1  # what FFmpeg makes of this frame is left to chance
                continue
            row["compared"] += 1
            if other is None or (other.shape == picture.shape and not np.array_equal(other, picture)):
                row["different"] += 1
                row["why"] = f"frame {index} " + (
                    f"is not among the {count} that decode in sequence" if other is None else "has other pixels"
                )
        yield row


def sequential(path: Path, wanted: set[int]) -> tuple[dict[int, np.ndarray], int]:
    """The wanted frames of the best stream, decoded from the beginning, and their number; an error ends the video.

    Written apart from the package.
    """
    found, count = {}, 0
    with av.open(f"file:{path}", metadata_errors="ignore") as container:
        stream = container.streams.best("video")
        stream.thread_type = "NONE"
        try:
            for frame in container.decode(stream):
                if count in wanted:
                    found[count] = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                if count >= max(wanted):
                    break
                count += 1
        except av.error.FFmpegError:
            pass
    return found, count


# -------------------------------------------------------------------------------------------------------- the whole


def save_model(path: Path) -> None:
    """A tiny network with random weights."""
    from ssan.recipe import make_recipe
    from ssan.recognition.train import complete  # not in the process that compares frames, which never trains
    from ssan.weights.classifier_file import build_from, save_labeller

    torch.manual_seed(0)
    recipe = complete(make_recipe({"model": "tsn_tiny"}, [setting for setting in SETTINGS if "crop=" not in setting]))
    save_labeller(path, build_from(recipe, 2), ["one", "other"], recipe, {})


@contextmanager
def changing(paths: Sequence[Path]) -> Iterator[None]:
    """Meanwhile the files are cut, emptied, restored and lengthened, again and again."""
    contents = [path.read_bytes() for path in paths]
    stop = threading.Event()

    def change() -> None:
        share = 0
        while not stop.is_set():
            share = (share + 37) % 130
            for path, content in zip(paths, contents, strict=True):
                with open(path, "r+b") as handle:
                    if share <= 100:
                        handle.truncate(len(content) * share // 100)
                    else:
                        handle.write(content)
                        handle.seek(0, os.SEEK_END)
                        handle.write(content[-200:])
            time.sleep(0.001)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)


def obey_permissions() -> None:
    """Give up root's right to read and write everything; for the process about to be started, and for good."""
    if os.getuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            if libc.prctl(24, capability, 0, 0, 0) != 0:  # PR_CAPBSET_DROP
                raise OSError(ctypes.get_errno(), "the right to read everything cannot be given up")


def permissions_hold(closed: Path) -> bool:
    """Whether a process that gave up root's rights really cannot read a file that nobody may read."""
    try:
        tried = subprocess.run(["cat", str(closed)], preexec_fn=obey_permissions, capture_output=True, check=False)
    except subprocess.SubprocessError:
        return False
    return tried.returncode != 0


def run_hostile(
    hostile: list[Hostile],
    work: Path,
    *,
    seed: int,
    seconds: float,
    memory_gb: float,
    rounds: int = 10,
    trainings: Sequence[str] = TRAININGS,
) -> dict[str, Any]:
    """Make the files, run the commands on them, and return the results.

    :param rounds: calls while files change.
    :param trainings: the data sets to train on; see ``_train``.
    """
    folder, model = work / "files", work / "model.safetensors"
    remove(folder)
    make_all(hostile, folder, seed)
    save_model(model)
    runner = Runner(folder, seconds=seconds, memory_gb=memory_gb)
    report = runner.report
    outside = Outside(work / OUTSIDE)
    for name in ("secret.mp4", "secret.jpg"):
        (work / OUTSIDE / name).write_bytes(video("h264.mp4", 12) if name.endswith("4") else jpeg(0))
    outside.num_opened()
    if not (Watch.can_see and outside.can_see):
        report.not_run.append("ports, processes and files elsewhere: this system does not tell")
    still = [one for one in hostile if not one.moving]
    closed = [one for one in still if one.unreadable]
    runner.predict(model, [one for one in still if not one.unreadable])
    if closed and permissions_hold(folder / closed[0].name):
        runner.predict(model, closed, powerless=True)
    elif closed:
        report.not_run.append("no permission: this user reads everything, and the right cannot be given up here")
    moving = [one for one in hostile if one.moving]
    for _ in range(rounds if moving else 0):
        with changing([folder / one.name for one in moving]):
            runner.predict(model, moving)
    known = {answer.name: answer for answer in report.outcomes}
    training = _train(runner, hostile, known, seed, trainings)
    if opened := outside.num_opened():
        report.problems.append(f"files elsewhere, which hostile files name, were opened {opened} times")
    outside.close()
    remove(work / OUTSIDE)
    readable = [one.name for one in still if one.damaged and one.name in known and known[one.name].outcome == "ok"]
    frames = compare(folder, readable, seconds)
    remove(folder)
    return _results(hostile, runner, training, frames, seed)


def _train(
    runner: Runner, hostile: Sequence[Hostile], known: dict[str, Outcome], seed: int, trainings: Sequence[str]
) -> list[dict[str, Any]]:
    """Data sets of good files and others: found bad when they are opened, of strange names, damaged within."""
    suffixes = (".mp4", ".webm", ".avi", ".ts", ".mkv", ".mov")
    usable = [
        one for one in hostile
        if one.name in known and one.name.endswith(suffixes) and "/" not in one.name and len(one.name) < 200
        and not one.name.startswith(".") and not one.answers and not one.moving and not one.unreadable
        and known[one.name].outcome not in FAULTS and one.kind not in ("nothing there", "a folder named as a video")
    ]  # fmt: skip
    at_once = [one for one in usable if one.truth and "ok" not in one.truth][:80]
    within = [
        one for one in usable if one.damaged and known[one.name].outcome in ("truncated", "decode_error", "empty")
    ]
    strange = [one for one in usable if one.kind == "a strange name" and one.truth == {"ok"}]
    good = video("h264.mp4", 12)
    sets = {"at_once": at_once, "strange_names": [*strange, *at_once[:1]], "within": within[:60]}
    return [runner.train(name, good, sets[name], seed) for name in trainings if sets[name]]


def _results(
    hostile: Sequence[Hostile], runner: Runner, training: list[dict[str, Any]], frames: list[dict[str, Any]], seed: int
) -> dict[str, Any]:
    report = runner.report
    by_kind: dict[str, Counter[str]] = {}
    for answer in report.outcomes:
        by_kind.setdefault(answer.kind, Counter())[answer.outcome] += 1
    total = Counter(answer.outcome for answer in report.outcomes)
    in_training = Counter(fault for row in training for fault in row.get("faults", []))
    answered = {answer.name for answer in report.outcomes}
    return {
        "schema": 1,
        "seed": seed,
        "files": len(hostile),
        "tracebacks": total["traceback"] + in_training["traceback"],
        "hangs": total["hang"] + in_training["hang"],
        "crashes": total["crash"] + in_training["crash"],
        "no_answer": total["no answer"] + total["bad answer"] + sum(one.name not in answered for one in hostile)
        - (sum(one.unreadable for one in hostile) if report.not_run else 0),
        "wrong": sum(answer.right is False and answer.outcome not in FAULTS for answer in report.outcomes),
        "known": sum(answer.right is not None for answer in report.outcomes),
        "codes": dict(sorted(total.items())),
        "by_kind": {kind: dict(sorted(count.items())) for kind, count in sorted(by_kind.items())},
        "slowest": [asdict(a) for a in sorted(report.outcomes, key=lambda a: -a.seconds)[:5]],
        "peak_mb": report.peak_mb,
        "frames": {
            "files": len(frames),
            "compared": sum(row["compared"] for row in frames),
            "different": sum(row["different"] for row in frames),
            "left_to_chance": sum(row.get("unstable", 0) for row in frames),
            "rows": [row for row in frames if "why" in row],
        },
        "train": training,
        "faults": [asdict(a) for a in report.outcomes if a.right is False],
        "problems": report.problems,
        "not_run": report.not_run,
        "limits": {"seconds": runner.seconds, "memory_gb": runner.memory / 2**30},
        "versions": {
            "ssan": ssan.__version__, "python": platform.python_version(), "torch": torch.__version__,
            "av": av.__version__, "ffmpeg": ".".join(map(str, av.ffmpeg_version_info.split("-")[:1])),
        },
    }  # fmt: skip


def bad(results: dict[str, Any]) -> bool:
    """Whether anything went wrong that must not.

    Frames of damaged files that differ from those of a decoding in sequence are counted and do no harm here: damage in
    what need not be decoded stays unseen, where a decoding in sequence would have met it.
    """
    counted = ("tracebacks", "hangs", "crashes", "no_answer", "wrong", "problems")
    unlike = [row for row in results["frames"]["rows"] if not row["different"]]
    return any(results[key] for key in counted) or bool(unlike)


if __name__ == "__main__":  # the process of ``compare``
    for row in compare_here(Path(sys.argv[1]), json.load(sys.stdin)):
        print(json.dumps(row), flush=True)
