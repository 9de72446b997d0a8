"""Subcommands of ``dimml`` that this component brings; heavy imports stand inside the functions."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dimml.cli import with_options
from dimml_server.cli import bundle, keys
from dimml_server.triton_server.options import ModelControl

if TYPE_CHECKING:
    from dimml_server.settings.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Options that `serve` and `doctor` share; they become settings."""

    repository: Annotated[
        Path | None, typer.Option(help="Model repository; by default ./model_repository.", show_default=False)
    ] = None
    model: Annotated[
        list[str] | None, typer.Option(help="Bundle to load, repeatable; by default all.", show_default=False)
    ] = None
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; by default 127.0.0.1.", show_default=False)
    ] = None
    http_port: Annotated[
        int | None, typer.Option(help="HTTP port; by default 8000, 0 takes a free one.", show_default=False)
    ] = None
    grpc_port: Annotated[
        int | None, typer.Option(help="gRPC port; by default 8001, 0 takes a free one.", show_default=False)
    ] = None
    processes: Annotated[int | None, typer.Option(help="Serving processes; by default 1.", show_default=False)] = None
    engine: Annotated[
        str | None, typer.Option(help="local or triton: where encoders run; by default local.", show_default=False)
    ] = None
    triton_url: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Triton's gRPC address, for --engine triton.", show_default=False),
    ] = None
    device: Annotated[
        str | None,
        typer.Option(
            help="auto, cpu, cuda, cuda:N, tensorrt or tensorrt:N, N a GPU's number; by default auto.",
            show_default=False,
        ),
    ] = None
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error; by default info.", show_default=False)
    ] = None
    watch: Annotated[
        bool, typer.Option("--watch", help="Load versions that come to the repository, unload those that go.")
    ] = False
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any setting of docs/settings.md, repeatable."),
    ] = None
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="TOML file of settings.", show_default=False)
    ] = None

    def settings(self) -> ServerSettings:
        """Load the settings: the environment, over it ``config``, over it the options. Raises ConfigurationError."""
        from dimml_server.settings.settings import load_settings

        named = [field.name for field in fields(self) if field.name not in {"model", "watch", "set_", "config"}]
        given = {name: getattr(self, name) for name in named} | {"models": self.model or None}
        return load_settings(self.config, **given | {"watch": self.watch or None} | settings_given(self.set_))


def register(app: typer.Typer) -> None:
    """Add this component's subcommands."""
    app.command("serve", help="Serve the bundles of a model repository over HTTP and gRPC.")(serve)
    app.command("triton", help="Serve a model repository with a real Triton server, fetched from pip.")(triton)
    app.add_typer(keys.build(), name="keys")
    app.command("doctor", help="Check whether this machine and these settings can serve.")(doctor)
    app.add_typer(bundle.build(), name="bundle")


@with_options(ServeOptions)
def serve(
    *,
    options: ServeOptions,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print all settings as TOML, secrets masked, and exit.")
    ] = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C. Settings come from the environment (DIMML_NAME), over it --config, over it flags.

    Once requests are taken, one line on stdout says where: ``ready http=HOST:PORT grpc=HOST:PORT``.
    """
    from dimml_server.settings.settings import SECRETS
    from dimml_server.settings.sources import as_toml

    settings = options.settings()
    if print_config:
        typer.echo(as_toml(settings, SECRETS), nl=False)
        return
    if settings.processes > 1:
        from dimml_server.processes.entrypoint import run_processes

        run_processes(settings)
    else:
        from dimml_server.process.entrypoint import run_until_stopped

        run_until_stopped(settings)


def triton(
    *,
    repository: Annotated[Path, typer.Option("--repository", "-r", help="Model repository to serve.")] = Path(
        "model_repository"
    ),
    model: Annotated[
        list[str] | None,
        typer.Option(help="Bundle, or single model, to load; repeatable; by default all.", show_default=False),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=0, max=65_535, help="HTTP port; 0 takes a free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65_535, help="gRPC port; 0 takes a free one.")] = 8001,
    metrics_port: Annotated[int, typer.Option(min=0, max=65_535, help="Metrics port; 0 takes a free one.")] = 8002,
    home: Annotated[
        Path | None,
        typer.Option(
            help="Where the server is kept once fetched; by default dimml/triton in the cache folder (XDG_CACHE_HOME).",
            show_default=False,
        ),
    ] = None,
    model_control: Annotated[
        ModelControl,
        typer.Option(help="explicit: clients may load and unload models, and a model whose process died is reloaded."),
    ] = ModelControl.EXPLICIT,
) -> None:
    """Serve until SIGTERM or Ctrl-C. The server (x86-64 Linux, CPU) is fetched once, by pip.

    Once all models are loaded, one line on stdout says where:
    ``ready http=HOST:PORT grpc=HOST:PORT metrics=HOST:PORT``.
    """
    from dimml_server.triton_server.installation import default_home
    from dimml_server.triton_server.options import TritonOptions
    from dimml_server.triton_server.running import run_triton

    run_triton(
        TritonOptions(
            repository=repository,
            home=home or default_home(),
            models=tuple(model or ()),
            host=host,
            http_port=http_port,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            model_control=model_control,
        )
    )


@with_options(ServeOptions)
def doctor(
    *,
    options: ServeOptions,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")] = False,
) -> None:
    """Check host, versions, repository, ports, limits, devices, keys and certificates; say what to mend, and how.

    Takes the options and settings that `dimml serve` takes. Exit code 1 where something must be mended.
    """
    from dimml_server.doctor.command import run_doctor

    if not run_doctor(options.settings(), as_json=as_json):
        raise typer.Exit(1)


def settings_given(pairs: list[str] | None) -> dict[str, object]:
    """Parse the settings of ``--set``. Raises BadParameter."""
    given: dict[str, object] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--set")
        given[name] = value
    return given
