"""The command line: the commands under their names, exit codes and the log.

Each command parses a configuration, calls one function and prints. Heavy imports happen inside the
commands, so that ``--help`` answers at once. Results go to standard output, where a command has
``--json`` as one JSON object; progress and errors go to standard error.
"""

import errno
import io
import logging
import os
import signal
import sys

import typer

from dynlearn.errors import DynlearnError, InvalidInput
from dynlearn.storage.uri import without_secrets
from dynlearn_services.cli.collect import collect
from dynlearn_services.cli.datasets import datasets
from dynlearn_services.cli.demo import demo
from dynlearn_services.cli.evaluate import evaluate
from dynlearn_services.cli.flags import SectionedCommand
from dynlearn_services.cli.models import models
from dynlearn_services.cli.plan import plan
from dynlearn_services.cli.serve import serve
from dynlearn_services.cli.tokens import tokens
from dynlearn_services.cli.train import train

app = typer.Typer(
    name="dynlearn",
    help="Learn probabilistic dynamics models from trajectories and serve them to planners.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(collect)
app.command(cls=SectionedCommand)(train)
for command in (evaluate, serve, plan, demo):
    app.command()(command)
for name, group in (("datasets", datasets), ("models", models), ("tokens", tokens)):
    app.add_typer(group, name=name)

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def _log_to_standard_error() -> None:
    for package in ("dynlearn", "dynlearn_services"):
        logger = logging.getLogger(package)
        logger.setLevel(logging.INFO)
        logger.handlers = [logging.StreamHandler()]
        logger.propagate = False


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code: 0, 2 for bad input, 130 for Ctrl-C, else 1."""
    _log_to_standard_error()
    # Names of files need not be UTF-8.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(arguments, standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except DynlearnError as error:
        return _fail(str(error), error.exit_code)
    except _UsageError as error:
        return _fail(error.format_message(), InvalidInput.exit_code)  # type: ignore[attr-defined]
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except BrokenPipeError:
        return _leave_standard_output()
    except OSError as error:
        return _fail(_describe(error), 1)
    except MemoryError:
        return _fail("expected enough memory, got none left; ask for less at a time", 1)
    return int(code or 0)


def _leave_standard_output() -> int:
    """Say nothing more to who has stopped listening, as in ``dynlearn … | head``."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def _describe(error: OSError) -> str:
    """Return what is wrong with the disk, or whatever else the system has refused."""
    where = f" for {os.fsdecode(error.filename)}" if error.filename else ""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"expected room on the disk, got {reason}{where}; what was saved before is kept"
    return f"expected files that can be read and written, got {reason}{where}"


def _fail(message: str, code: int) -> int:
    print(f"error: {' '.join(without_secrets(message).split())}", file=sys.stderr)
    return code
