"""The command line: help, exit codes, and no traceback for people."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import typer

from dimml import __version__, cli
from dimml.errors import BundleError
from dimml.system.installation import install_command
from support.commands import dimml
from support.data import REPOSITORY_ROOT

COMMANDS = ["init", "train", "evaluate", "make-avdigits", "export", "serve", "predict", "score", "plot"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "dimml", *words], capture_output=True, text=True, check=False)


def test_help_lists_the_commands_of_every_component() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert f" {command} " in done.stdout


def test_version() -> None:
    assert run("--version").stdout.strip() == f"dimml {__version__}"


def test_an_unknown_command_exits_with_2() -> None:
    done = run("nosuch")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["serve", "--nosuch"], []])
def test_wrong_usage_exits_with_2(words: list[str]) -> None:
    assert "Traceback" not in dimml(*words, code=2, lines=None)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    assert "Usage" in dimml(command, "--help")


def raising(error: BaseException) -> typer.Typer:
    app = typer.Typer()

    @app.callback()
    def root(traceback: bool = False) -> None:
        pass

    @app.command("work")
    def work() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (BundleError("the bundle is gone"), 1, "error: the bundle is gone"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 1, "which is not installed: pip install "),
        (OSError(28, "No space left on device", "runs/x"), 1, "error: No space left on device: runs/x"),
        (ZeroDivisionError("division by zero"), 1, "unexpected ZeroDivisionError: division by zero"),
    ],
)
def test_errors_for_people_are_one_line(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "build_app", lambda: (raising(error), {"work": "train"}))
    assert cli.main(["work"]) == code
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.strip().splitlines()) == 1


def test_an_unexpected_error_can_be_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "build_app", lambda: (raising(ZeroDivisionError()), {"work": "train"}))
    with pytest.raises(ZeroDivisionError):
        cli.main([cli.TRACEBACK, "work"])


def test_a_missing_extra_names_the_line_that_brings_it() -> None:
    """In a process where torch cannot be found, `dimml train` says what to install."""
    code = textwrap.dedent("""
        import sys
        from importlib.abc import MetaPathFinder

        class Missing(MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name.split(".")[0] == "torch":
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Missing())
        from dimml.cli import main
        sys.exit(main(["train", sys.argv[1]]))
    """)
    config = REPOSITORY_ROOT / "training" / "configs" / "avdigits.yaml"
    done = subprocess.run([sys.executable, "-c", code, str(config)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"not installed: {install_command('train')}" in done.stderr
    assert "Traceback" not in done.stderr
