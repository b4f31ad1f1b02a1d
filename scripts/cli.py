"""The table of verbs; an error becomes one line and an exit status."""

import errno
import importlib
import os
import sys
from keyword import iskeyword
from typing import Any

import click

from breadth.loaders.errors import BreadthError

# Threads that spin while they wait make a step of training six times as long where others use the
# cores too, and a tenth shorter where nobody does. It is read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

VERBS = {
    "demo": "breadth.scripts.demo.verb",
    "build": "breadth.scripts.build",
    "plan": "breadth.scripts.plan",
    "stages": "breadth.scripts.stages",
    "inspect": "breadth.scripts.inspect",
    "index": "breadth.scripts.index",
    "report": "breadth.scripts.report",
    "train": "breadth.scripts.train",
    "evaluate": "breadth.scripts.evaluate",
    "runs": "breadth.scripts.runs",
    "study": "breadth.scripts.study",
    "export": "breadth.scripts.export",
    "import": "breadth.scripts.import_",
}
"""Each verb's module, which holds a click command of the verb's name, or of import_."""


class Verbs(click.Group):
    """Imports a verb's module when it is asked for, so that ``--help`` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the road."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb's command."""
        if cmd_name not in VERBS:
            return None
        name = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        command: click.Command = getattr(importlib.import_module(VERBS[cmd_name]), name)
        return command


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="breadth")
def cli() -> None:
    """Build image-text datasets, know what is in them, and train on them.

    A pool goes through a recipe and becomes shards with a ledger; shards stream into a training
    run; a study compares runs.
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; exits 0 when done, 1 to run again, 2 where nothing was done."""
    try:
        cli(arguments, standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        see = f" (see {context.command_path} --help)" if context else ""
        _say(" ".join(error.format_message().split()) + see)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted; the same command continues")
        sys.exit(1)
    except BreadthError as error:
        _say(str(error))
        sys.exit(error.exit_status)
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        where = error.filename or "while writing"
        _say(f"{error.strerror}: {where}; {REMEDIES[error.errno]}, then run the same command again")
        sys.exit(1)


REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room in your quota",
    errno.EACCES: "give a folder that you may write",
    errno.EPERM: "give a folder that you may write",
    errno.EROFS: "give a folder that can be written",
    errno.ENOENT: "give a folder that can be made",
    errno.ENOTDIR: "give a folder that can be made",
}


def _say(message: str) -> None:
    click.echo(f"error: {message}", err=True)


if __name__ == "__main__":
    main()
