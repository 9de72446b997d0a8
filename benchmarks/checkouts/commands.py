"""What the commands of a checkout print and exit with, and the calls of its Python client."""

from __future__ import annotations

import json
from typing import Any

from checkouts.checkout import REPOSITORY, SAMPLES, Checkout
from checkouts.comparison import without_durations, without_noise

#: Help of a command and of all below it, found by the help texts themselves, in one process.
_HELP = """
import io, json, re, sys
from contextlib import redirect_stdout
from importlib.metadata import entry_points
run = next(iter(entry_points(group="console_scripts", name="dimml"))).load()
found = {}
def visit(words):
    sys.argv, out, code = ["dimml", *words, "--help"], io.StringIO(), 0
    with redirect_stdout(out):
        try:
            run()
        except SystemExit as stop:
            code = stop.code
    found[" ".join(["dimml", *words])] = {"exit code": code, "text": out.getvalue()}
    for panel in re.findall("╭─ Commands ─.*?╰", out.getvalue(), re.S):
        for name in re.findall("^│ ([a-z0-9-]+)  ", panel, re.M):
            visit([*words, name])
visit([])
print(json.dumps(found))
"""
#: The documented door of the Python client.
_CLIENT = """
import inspect, json
import dimml_client
from dimml_client import Client
names = {name for name, value in vars(dimml_client).items() if not name.startswith("_") and not inspect.ismodule(value)}
calls = {name: str(inspect.signature(value)) for name, value in inspect.getmembers(Client, callable)
         if not name.startswith("_") or name == "__init__"}
print(json.dumps({"names": sorted(names), "calls": calls}))
"""
#: Both checkouts are looked at at once.
_ANY_PORT = ("--set", "http_port=0", "--set", "grpc_port=0")
#: Usage that is wrong, or asks for what is not there.
_REFUSED = {
    "no command": "",
    "an unknown command": "nonsense",
    "an unknown option": "predict --colour red",
    "predict without a file": "predict",
    "predict a file that is not there": "predict nowhere.mp4 --repository model_repository",
    "predict without a server": "predict samples/clean_three.mp4 --url http://127.0.0.1:9",
    "predict without a gRPC server": "predict samples/clean_three.mp4 --url grpc://127.0.0.1:9",
    "predict with a bad address": "predict samples/clean_three.mp4 --url ftp://127.0.0.1",
    "predict from no repository": "predict samples/clean_three.mp4 --repository nowhere",
    "serve no repository": "serve --repository nowhere --set http_port=0",
    "serve with an unknown setting": "serve --repository model_repository --set colour=red",
    "serve with a bad setting": "serve --repository model_repository --set queue_length=-1",
    "serve an unknown bundle": "serve --repository model_repository --model nothing --set http_port=0",
    "score without a table": "score samples",
    "score an empty glob": "score nowhere/*.mp4 --repository model_repository --out none.parquet",
    "score to an unknown kind of table": "score samples --repository model_repository --out none.xlsx",
    "score samples.csv without its column": "score samples/samples.csv --repository model_repository --out none.csv",
    "train without a config": "train nowhere.yaml",
    "export no run": "export samples --repository exported_none",
    "evaluate no run": "evaluate samples",
    "calibrate no run": "calibrate samples",
    "report on no run": "report samples",
    "plot no table": "plot samples/samples.csv",
    "verify without a key": "bundle verify --repository model_repository",
    "models without a server": "models list --url http://127.0.0.1:9",
    "keys with a bad name": "keys new _bad",
    "build plans without TensorRT": "build-plans model_repository",
}  # fmt: skip


def commands(checkout: Checkout) -> dict[str, Any]:
    """Refusals, prediction in process, ``dimml doctor`` and the Python client."""
    answers = {f"dimml: {name}": shown(checkout, *words.split()) for name, words in _REFUSED.items()}
    answers["dimml --version"] = shown(checkout, "--version")
    answers |= predict_commands(checkout, "in process", "--repository", REPOSITORY)
    for name, words in (
        ("", []),
        (" of a bad repository", ["--repository", "nowhere"]),
        (" of bad settings", ["--set", "queue_length=-1"]),
    ):
        answers[f"dimml doctor{name}"] = _doctor(checkout, *words)
    answers["Python client"] = json.loads(checkout.python_run(_CLIENT).stdout or "null")
    return answers


def help_texts(checkout: Checkout) -> dict[str, Any]:
    """``--help`` of every command and subcommand."""
    done = checkout.python_run(_HELP)
    if done.returncode != 0:
        raise RuntimeError(f"{checkout.path}: its help texts: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return {f"{name} --help": text for name, text in found.items()}


def predict_commands(checkout: Checkout, name: str, *where: str) -> dict[str, Any]:
    """``dimml predict`` as table and as JSON, of whole files, a stretch, and files per modality."""
    clips = sorted(f"{SAMPLES}/{path.name}" for path in (checkout.folder / SAMPLES).iterdir())
    cases = {
        "table": clips,
        "--json": [*clips, "--json", "--top-k", "10"],
        "stretch": [f"{SAMPLES}/long.mp4", "--start", "1.2", "--end", "2.4", "--json"],
        "files per modality": [
            "--modality",
            f"audio={SAMPLES}/spoken_nine.wav",
            "--modality",
            f"visual={SAMPLES}/no_sound.mp4",
        ],
        "an unknown model": [clips[0], "--model", "nothing"],
    }
    return {
        f"dimml predict {name}, {case}": shown(checkout, "predict", *words, *where) for case, words in cases.items()
    }


def shown(checkout: Checkout, *words: str) -> dict[str, Any]:
    """Exit code and what a command prints, JSON as documents, less what no two runs have in common."""
    done = checkout.dimml(*words)
    out, err = (text.replace(str(checkout.folder), "FOLDER") for text in (done.stdout, done.stderr))
    return {"exit code": done.returncode, "stdout": without_noise(_documents(out)), "stderr": without_durations(err)}


def _documents(text: str) -> list[Any]:
    """A document where the whole text is one, else its lines, each a document where it is one."""
    try:
        return [json.loads(text)]
    except ValueError:
        return [json.loads(line) if line[:1] == "{" and line[-1:] == "}" else line for line in text.splitlines()]


def _doctor(checkout: Checkout, *words: str) -> dict[str, Any]:
    """Exit code and the level of each check: what was found is the machine's, and changes as it is looked at."""
    document = shown(checkout, "doctor", "--json", *_ANY_PORT, *words)
    findings = [out["findings"] for out in document["stdout"] if isinstance(out, dict)]
    levels = {finding["check"]: finding["level"] for found in findings for finding in found}
    return {"exit code": document["exit code"], "levels": levels, "stderr": document["stderr"]}
