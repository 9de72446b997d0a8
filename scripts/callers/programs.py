"""Clients in other languages: curl, Node's fetch and Java's HttpClient, each one process for all its requests."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from callers.cases import Answer, Case

_HERE = Path(__file__).resolve().parent
_LIMIT_S = 120.0
#: No proxy that the environment names is asked: the servers are on this machine.
_NO_PROXY = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
#: Java calls the versions of HTTP by names of its own.
_VERSIONS = {"HTTP_1_1": "1.1", "HTTP_2": "2"}


def _run(command: Sequence[str], environment: dict[str, str], text: str = "") -> str:
    result = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        env=os.environ | _NO_PROXY | environment,
        check=False,
    )
    if result.returncode and not result.stdout:
        raise OSError(f"{command[0]} ended with {result.returncode}: {result.stderr.strip()[-500:]}")
    return result.stdout


def version(program: str, *arguments: str) -> str | None:
    """The first version number that a program prints of itself, or None where it is not installed."""
    if shutil.which(program) is None:
        return None
    result = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", result.stdout + result.stderr)
    return found[0] if found else "?"


def curl(*options: str) -> object:
    """curl with further options for each request."""

    def run(url: str, cases: Sequence[Case], ca: Path | None) -> list[Answer]:
        with tempfile.TemporaryDirectory() as folder:
            command = ["curl"]
            for number, case in enumerate(cases):
                command += ["--next"] if number else []
                command += [*options, "-sS", "--max-time", "60", "-o", f"{folder}/{number}"]
                command += ["--cacert", str(ca)] if ca else []
                command += ["-w", "%{http_code} %{http_version} %{errormsg}\n", f"{url}{case.path}"]
                command += ["-F", f"media=@{case.file}"] if case.file else []
                command += [part for name, value in case.fields.items() for part in ("-F", f"{name}={value}")]
                command += ["-H", "Transfer-Encoding: chunked"] if "chunked" in case.ways else []
            answers = []
            for number, (case, line) in enumerate(zip(cases, _run(command, {}).splitlines(), strict=True)):
                status, http_version, why = [*line.split(" ", 2), ""][:3]
                body = Path(folder, str(number))
                content = body.read_bytes() if body.exists() else why.encode()
                answers.append(Answer(case.name, int(status), content, http_version))
            return answers

    return run


def node(url: str, cases: Sequence[Case], ca: Path | None) -> list[Answer]:
    """Node's own fetch, with its FormData."""
    environment = {"NODE_EXTRA_CA_CERTS": str(ca)} if ca else {}
    return _answers(_run(["node", "--no-warnings", str(_HERE / "client.mjs"), url], environment, _lines(cases)))


def java(version: str) -> object:
    """Java's HttpClient; ``version`` is HTTP_2, its default, which offers to upgrade, or HTTP_1_1."""

    def run(url: str, cases: Sequence[Case], ca: Path | None) -> list[Answer]:
        command = ["java", "-XX:TieredStopAtLevel=1", str(_HERE / "Client.java"), url, version, str(ca or "")]
        return _answers(_run(command, {}, _lines(cases)))

    return run


def _lines(cases: Sequence[Case]) -> str:
    return "".join(f"{case.line()}\n" for case in cases)


def _answers(output: str) -> list[Answer]:
    """One line an answer: case, status, version of HTTP, body in base64."""
    rows = [line.split("\t") for line in output.splitlines()]
    return [
        Answer(name, int(status), base64.b64decode(body), _VERSIONS.get(http_version, http_version))
        for name, status, http_version, body in rows
    ]
