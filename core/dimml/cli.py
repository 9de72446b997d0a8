"""The ``dimml`` command. Components add their subcommands through the entry point group ``dimml.commands``.

An entry point's name is the extra that its commands need (``train``, ``export``, ``serve``, ``client``); its
value is a function ``register(app: typer.Typer) -> None`` in a module that imports only core and typer, so that
``dimml --help`` is quick and whole whatever is installed.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from importlib.metadata import entry_points
from typing import Any, get_type_hints

import typer

from dimml import __version__
from dimml.errors import DimmlError
from dimml.system.installation import install_command
from dimml.system.outbound import set_quiet_defaults

GROUP = "dimml.commands"
TRACEBACK = "--traceback"
EXIT_ERROR = 1
EXIT_INTERRUPTED = 130


def _version(show: bool) -> None:
    if show:
        typer.echo(f"dimml {__version__}")
        raise typer.Exit


def build_app() -> tuple[typer.Typer, dict[str, str]]:
    """Build the application; also give, for each command, the extra that installs what it needs."""
    app = typer.Typer(
        name="dimml",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Train detached encoders, export them as a bundle, serve it, and predict.",
    )

    @app.callback()
    def root(
        version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
        traceback: bool = typer.Option(False, TRACEBACK, help="Show where an unexpected error came from."),
    ) -> None:
        pass

    extras: dict[str, str] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        before, groups_before = len(app.registered_commands), len(app.registered_groups)
        entry.load()(app)
        added = [command.name for command in app.registered_commands[before:]]
        added += [group.name for group in app.registered_groups[groups_before:]]
        extras.update({name or "": entry.name for name in added})
    return app, extras


def with_options(options: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a decorator that gives a command the options of a dataclass in place of its keyword parameter of that type.

    Each field is an option, annotated as typer wants it, with a default: typer reads a command's options from its
    signature, one for each parameter.
    """
    hints = get_type_hints(options, include_extras=True)
    shared = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(options)
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        (place,) = (name for name, own in signature.parameters.items() if own.annotation is options)
        parameters = [p for name, own in signature.parameters.items() for p in (shared if name == place else [own])]

        @wraps(command)
        def run(*arguments: Any, **given: Any) -> None:
            chosen = options(**{option.name: given.pop(option.name) for option in shared})
            command(*arguments, **given, **{place: chosen})

        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code. Errors meant for people are one line on stderr, never a traceback."""
    set_quiet_defaults()  # Before a command imports a library that would send data.
    words = sys.argv[1:] if arguments is None else arguments
    app, extras = build_app()
    command = next((word for word in words if not word.startswith("-")), "")
    try:
        # Standalone: typer shows its own usage errors, and leaves by SystemExit.
        app(args=words, prog_name="dimml")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`dimml … | head`); redirect stdout so that the exit raises no second error.
        sys.stderr.close()
        return EXIT_ERROR
    except DimmlError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return EXIT_ERROR
    except ModuleNotFoundError as error:
        if command not in extras or (error.name or "").startswith("dimml"):
            raise
        print(
            f"error: `dimml {command}` needs {error.name}, which is not installed: {install_command(extras[command])}",
            file=sys.stderr,
        )
        return EXIT_ERROR
    except OSError as error:
        # A full disk, a folder that cannot be written to: the system's own message describes it best.
        where = f": {error.filename}" if error.filename else ""
        print(f"error: {error.strerror or error}{where}", file=sys.stderr)
        return EXIT_ERROR
    except Exception as error:
        if TRACEBACK in words:
            raise
        print(
            f"error: unexpected {type(error).__name__}: {error}; this is a bug, "
            f"and `dimml {TRACEBACK} {command} …` shows where",
            file=sys.stderr,
        )
        return EXIT_ERROR
    return 0


def run() -> None:
    """Run the console script ``dimml``."""
    sys.exit(main())
