"""``ssan``: the door. Maps verbs to their files, and errors to one line and an exit status."""

import errno
import gc
import sys
from functools import cache
from typing import Annotated, Any

import typer

from ssan._version import __version__
from ssan.cli import (
    compare,
    data,
    demo,
    ensemble,
    evaluate,
    extract,
    import_,
    info,
    models,
    predict,
    probe,
    recipes,
    report,
    reproduce,
    retrieval,
    submission,
    train,
    weights,
)
from ssan.cli.options import DONE, INTERRUPTED, REFUSED, SOME_FAILED
from ssan.cli.screen import OutputLostError, ReaderGoneError, end_in_order_when_told_to, open_screens, print, tell
from ssan.errors import SsanError, lack_of_memory
from ssan.processes import end_with_starter

# typer brings its own copy of click, or uses the package of that name, depending on its version; the base of its
# errors is reached through one that typer exports.
CommandLineError: type[Any] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="ssan",
    help="Train, evaluate and use video networks with separable self-attention.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich takes longer than everything else that --help does
)
app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("extract")(extract.extract)
app.command("probe")(probe.probe)
app.command("compare")(compare.compare)
app.command("ensemble")(ensemble.ensemble)
app.command("submission")(submission.submission)
app.command("report")(report.report)
app.command("predict")(predict.predict)
app.command("info")(info.info)
app.command("reproduce")(reproduce.reproduce)
app.command("import")(import_.import_)
app.command("models")(models.models)
app.add_typer(recipes.app, name="recipes")
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")
app.add_typer(retrieval.app, name="retrieval")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train, evaluate and use video networks with separable self-attention."""


def run() -> None:
    """Run a command and leave with its exit status: 0 done, 1 some inputs failed, 2 refused, 130 interrupted.

    Output that is lost, as on a full disk, is 1; a reader that has gone is no error; ended by SIGTERM is 143.
    """
    end_with_starter()
    open_screens()
    end_in_order_when_told_to()
    code = status(sys.argv[1:])
    try:
        sys.stdout.flush()
    except ReaderGoneError:
        pass
    except OutputLostError as error:
        code = _lost(error)
    gc.freeze()  # all of it goes at once; to look for what could go first takes seconds where torch is imported
    sys.exit(code)


@cache
def _command() -> Any:
    """All verbs with their options, put together once: that takes longer than most refusals."""
    return typer.main.get_command(app)


def status(arguments: list[str]) -> int:
    """Run a command and return its exit status; a mistake of the user prints one line on standard error."""
    try:
        result: Any = _command().main(args=arguments or ["--help"], prog_name="ssan", standalone_mode=False)
    except SsanError as error:
        return _refuse(str(error))
    except CommandLineError as error:
        return _refuse(_meant_as_key(error, arguments) or error.format_message())
    except (KeyboardInterrupt, typer.Abort):
        tell("interrupted")
        return INTERRUPTED
    except ReaderGoneError:
        return DONE  # there is nobody to tell
    except OutputLostError as error:
        return _lost(error)
    except (OSError, MemoryError, RuntimeError) as error:
        message = lack_of_memory(error)
        if message is None and isinstance(error, OSError):
            message = _of_the_system(error)
        if message is None:
            raise
        return _refuse(message)
    return result if isinstance(result, int) else DONE


def _meant_as_key(error: Any, arguments: list[str]) -> str | None:
    """What to say of an unknown option, such as ``--epochs 3``, that is a key of the recipe; None of any other."""
    context = error.ctx
    if not hasattr(error, "possibilities") or context is None:
        return None
    if all(parameter.name != "overrides" for parameter in context.command.params):
        return None
    from ssan.recipe import Recipe, RetrievalRecipe, recipe_keys

    option = error.option_name
    key = option.lstrip("-").replace("-", "_")
    kind = RetrievalRecipe if "retrieval" in context.command_path.split() else Recipe
    if key.partition(".")[0] not in recipe_keys(kind):
        return None
    value = "VALUE"
    for word, following in zip(arguments, [*arguments[1:], "--"], strict=True):
        if word.startswith(f"{option}="):
            value = word.removeprefix(f"{option}=")
        elif word == option and not following.startswith("--"):
            value = following
    return f"{option} is no option, but {key} is a key of the recipe: write `{key}={value}`, without dashes"


def _of_the_system(error: OSError) -> str | None:
    """What to say of a fault of files or of the machine; None of what nobody but us can mend."""
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}; name a folder where files can be read and written"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}; free space and run again"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{error.strerror}; use fewer --workers, or raise the limit (ulimit -n)"
    return None


def _lost(error: OutputLostError) -> int:
    tell(f"standard output cannot be written ({error}); the answer is lost, run again")
    return SOME_FAILED


def _refuse(message: str) -> int:
    # One line, and no control characters from a file's name or content: a terminal would obey them.
    plain = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in " ".join(message.split()))
    tell(plain)
    return REFUSED
