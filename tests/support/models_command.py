"""The command `dimml models`, and the roll-out that it must do on every kind of server."""

from __future__ import annotations

import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from dimml.cli import main
from support.tiny_bundle import make_tiny_bundle


def dimml_models(*words: str, code: int = 0) -> str:
    """What the command prints: stdout, or where it must fail its one line on stderr."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        exit_code = main(["models", *words])
    assert exit_code == code, err.getvalue()
    if code == 0:
        return out.getvalue()
    assert len(err.getvalue().splitlines()) == 1, err.getvalue()
    return err.getvalue()


def loaded(url: str, bundle: str) -> dict[str, list[str]]:
    """Ready versions of a bundle's models."""
    ready: dict[str, list[str]] = {}
    for entry in json.loads(dimml_models("list", "--url", url, "--json")):
        if entry["state"] == "READY" and f"{entry['name']}_".startswith(f"{bundle}_"):
            ready.setdefault(entry["name"], []).append(entry["version"])
    return {name: sorted(versions) for name, versions in ready.items()}


def parts(bundle: str) -> tuple[str, str, str]:
    """Models of a tiny bundle that a gateway needs."""
    return f"{bundle}_audio", f"{bundle}_visual", f"{bundle}_fusion"


def roll_out_and_back(repository: Path, bundle: str, http: str, grpc: str) -> dict[str, list[str]]:
    """Load version 2 and go back to version 1, which was loaded before; what is loaded then."""
    first = loaded(http, bundle)
    assert set(parts(bundle)) <= set(first)
    assert set(map(tuple, first.values())) == {("1",)}
    make_tiny_bundle(repository, name=bundle)
    said = dimml_models("load", bundle, "--url", grpc, "--repository", str(repository))
    assert "version 2" in said
    assert loaded(grpc, bundle) == {name: ["2"] for name in first}
    dimml_models("load", bundle, "--version", "1", "--url", http)
    assert loaded(http, bundle) == first
    return first


def load_a_broken_one_and_unload(repository: Path, bundle: str, http: str, grpc: str) -> None:
    """Version 3 is broken, which changes nothing; then there is no version loaded."""
    first = loaded(http, bundle)
    broken = make_tiny_bundle(repository, name=bundle)
    broken.model_file(repository, f"{bundle}_visual").write_bytes(b"garbage")
    for url in (http, grpc):
        assert f"{bundle}_visual" in dimml_models("load", bundle, "--version", "3", "--url", url, code=1)
        # Not even the parts that did load have changed.
        assert loaded(url, bundle) == first
    assert "no bundle 'grid'" in dimml_models("load", "grid", "--url", http, code=1)
    dimml_models("unload", bundle, "--url", grpc)
    assert loaded(http, bundle) == {}
