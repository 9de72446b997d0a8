"""The Dockerfile, as far as it can be held to anything without a Docker engine; scripts/check_images.sh has one."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dimml import __version__
from support.data import REPOSITORY_ROOT

TEXT = (REPOSITORY_ROOT / "Dockerfile").read_text()
INSTRUCTIONS = [
    tuple(line.split(None, 1))
    for line in re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^#.*\n", "", TEXT)).splitlines()
    if line.strip()
]
PINS = dict(line.split("==") for line in (REPOSITORY_ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
TARGETS = ("serve", "serve-gpu", "triton")


def stage(name: str) -> list[tuple[str, ...]]:
    """Instructions of a stage, those of the stages that it is built from first."""
    start = next(i for i, (word, rest) in enumerate(INSTRUCTIONS) if word == "FROM" and rest.endswith(f" AS {name}"))
    end = next((i for i in range(start + 1, len(INSTRUCTIONS)) if INSTRUCTIONS[i][0] == "FROM"), len(INSTRUCTIONS))
    base = INSTRUCTIONS[start][1].split()[0]
    stages = [rest.rpartition(" ")[2] for word, rest in INSTRUCTIONS if word == "FROM"]
    return [*(stage(base) if base in stages else []), *INSTRUCTIONS[start:end]]


def everything_in(name: str) -> list[tuple[str, ...]]:
    """Instructions of a stage and of all stages that it copies or mounts from."""
    own = stage(name)
    others = {other for _, rest in own for other in re.findall(r"from=([\w-]+)", rest)}
    return own + [instruction for other in sorted(others) for instruction in everything_in(other)]


def test_bases_are_pinned() -> None:
    stages = {rest.rpartition(" ")[2] for word, rest in INSTRUCTIONS if word == "FROM"}
    for word, rest in INSTRUCTIONS:
        if word == "FROM" and rest.split()[0] not in stages:
            assert re.search(r":\d", rest.split()[0]), rest


def copied(instructions: list[tuple[str, ...]]) -> list[tuple[list[str], str]]:
    """Sources in the checkout, and where they go, of each COPY; those between stages are left out."""
    found = []
    for word, rest in instructions:
        parts = [part for part in shlex.split(rest) if not part.startswith("--chown")]
        if word == "COPY" and not parts[0].startswith("--from"):
            found.append((parts[:-1], parts[-1]))
    return found


def test_everything_that_is_copied_exists_and_nothing_else_goes_to_the_engine() -> None:
    sources = {source for sources, _ in copied(INSTRUCTIONS) for source in sources}
    for source in sources:
        assert (REPOSITORY_ROOT / source).exists(), source
    rules = [line for line in (REPOSITORY_ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == sources


def test_the_wheel_builds_from_what_is_copied(tmp_path: Path) -> None:
    """What the image's own step makes of these files alone has every module that a checkout has."""
    (step,) = [rest for word, rest in stage("build") if word == "RUN" and "-m build" in rest]
    context = tmp_path / "src"
    for sources, destination in copied(stage("build")):
        for source in sources:
            there = context / destination
            if (REPOSITORY_ROOT / source).is_dir():
                shutil.copytree(REPOSITORY_ROOT / source, there, ignore=shutil.ignore_patterns("__pycache__"))
            elif not destination.startswith("/"):
                there.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY_ROOT / source, there)
    command = [sys.executable, *shlex.split(step.replace("/wheels", str(tmp_path / "wheels")))[1:]]
    done = subprocess.run(command, cwd=context, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    roots = {"core": "dimml", "training": "dimml_training", "export": "dimml_export"}
    for folder, package in {**roots, "server": "dimml_server", "clients": "dimml_client"}.items():
        modules = {
            str(p.relative_to(REPOSITORY_ROOT / folder)) for p in (REPOSITORY_ROOT / folder / package).rglob("*.py")
        }
        assert modules
        assert modules <= names
    assert "dimml_server/triton_runtime/constraints-triton.txt" in names


def test_what_the_build_runs_with_python_is_python() -> None:
    for text in re.findall(r'python -c "([^"]+)"', TEXT):
        ast.parse(text)


def test_pins_are_those_of_the_constraints() -> None:
    found = dict(re.findall(r"([\w-]+)(?:\[[\w,]+\])?==([\w.]+)", "\n".join(rest for _, rest in INSTRUCTIONS)))
    assert set(found) == {"onnxruntime-gpu"}
    assert {"build", "hatchling"} <= set(PINS)
    # The GPU build of ONNX Runtime comes out later than the CPU's: no newer, and not far behind.
    ours, theirs = ([int(part) for part in v.split(".")[:2]] for v in (found["onnxruntime-gpu"], PINS["onnxruntime"]))
    assert ours <= theirs
    assert theirs[1] - ours[1] <= 2


@pytest.mark.parametrize("target", TARGETS)
def test_targets_install_with_constraints_run_as_nobody_and_are_watched(target: str) -> None:
    instructions = stage(target)
    installs = [rest for word, rest in everything_in(target) if word == "RUN" and "pip" in rest and " install " in rest]
    assert len([rest for rest in installs if '"dimml' in rest]) == 1
    assert all(re.search(r" -c /(mnt|wheels)/constraints\.txt ", rest) for rest in installs if "apt-get" not in rest)
    assert all("--no-cache-dir" in rest for rest in installs if "apt-get" not in rest)
    users = [rest for word, rest in instructions if word == "USER"]
    assert users == ["10001"]
    last_run = max(i for i, (word, _) in enumerate(instructions) if word == "RUN")
    assert instructions.index(("USER", "10001")) > last_run, "what comes after USER cannot install"
    (health,) = [rest for word, rest in instructions if word == "HEALTHCHECK"]
    assert ("/v2/health/ready" if target == "triton" else "/health/ready") in health
    assert any(word == "ENV" and "ORT_DISABLE_TELEMETRY=1" in rest.split() for word, rest in instructions)
    assert (f"dimml-{'triton' if target == 'triton' else 'gateway'}") in TEXT
    assert f":{__version__} " in TEXT


@pytest.mark.parametrize("target", TARGETS)
def test_no_wheel_is_left_in_a_layer(target: str) -> None:
    """Removing it in a later step would leave it in the layer that brought it."""
    for word, rest in stage(target):
        assert word != "COPY" or "wheels" not in rest


def test_without_a_target_the_cpu_server_is_built() -> None:
    last = [rest for word, rest in INSTRUCTIONS if word == "FROM"][-1]
    assert last == "gateway AS serve"


def test_no_image_is_fetched_that_no_stage_is_built_from() -> None:
    assert not re.match(r"#\s*syntax\s*=", TEXT)
