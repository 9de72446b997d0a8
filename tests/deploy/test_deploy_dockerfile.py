"""The Dockerfile, as far as it can be held to anything without a Docker engine."""

from __future__ import annotations

import re
import shlex

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


def test_bases_are_pinned() -> None:
    stages = {rest.rpartition(" ")[2] for word, rest in INSTRUCTIONS if word == "FROM"}
    for word, rest in INSTRUCTIONS:
        if word == "FROM" and rest.split()[0] not in stages:
            assert re.search(r":\d", rest.split()[0]), rest


def test_everything_that_is_copied_exists() -> None:
    for word, rest in INSTRUCTIONS:
        parts = [part for part in shlex.split(rest) if not part.startswith("--chown")]
        if word == "COPY" and not parts[0].startswith("--from"):
            for source in parts[:-1]:
                assert (REPOSITORY_ROOT / source).exists(), source


def test_pins_are_those_of_the_constraints() -> None:
    found = dict(re.findall(r"([\w-]+)(?:\[[\w,]+\])?==([\w.]+)", "\n".join(rest for _, rest in INSTRUCTIONS)))
    assert set(found) == {"build", "onnxruntime-gpu"}
    assert found["build"] == PINS["build"]
    # The GPU build of ONNX Runtime comes out later than the CPU's: no newer, and not far behind.
    ours, theirs = ([int(part) for part in v.split(".")[:2]] for v in (found["onnxruntime-gpu"], PINS["onnxruntime"]))
    assert ours <= theirs
    assert theirs[1] - ours[1] <= 2


@pytest.mark.parametrize("target", TARGETS)
def test_targets_install_with_constraints_run_as_nobody_and_are_watched(target: str) -> None:
    instructions = stage(target)
    installs = [rest for word, rest in instructions if word == "RUN" and "pip install" in rest]
    assert installs
    assert all("-c /tmp/constraints.txt" in rest for rest in installs)
    users = [rest for word, rest in instructions if word == "USER"]
    assert users == ["10001"]
    last_run = max(i for i, (word, _) in enumerate(instructions) if word == "RUN")
    assert instructions.index(("USER", "10001")) > last_run, "what comes after USER cannot install"
    (health,) = [rest for word, rest in instructions if word == "HEALTHCHECK"]
    assert ("/v2/health/ready" if target == "triton" else "/health/ready") in health
    assert (f"dimml-{'triton' if target == 'triton' else 'gateway'}") in TEXT
    assert f":{__version__} " in TEXT


def test_without_a_target_the_cpu_server_is_built() -> None:
    last = [rest for word, rest in INSTRUCTIONS if word == "FROM"][-1]
    assert last == "gateway AS serve"


def test_the_script_that_tries_tritons_steps_runs_those_very_steps() -> None:
    (step,) = [rest for word, rest in stage("triton") if word == "RUN" and "pip install" in rest]
    words = re.search(r"pip install (.*?) &&", step)
    assert words is not None
    script = (REPOSITORY_ROOT / "scripts" / "check_triton_image.sh").read_text()
    assert '-c "$root/constraints.txt" "dimml @ file://$wheel"' in script
    assert words[1].strip().replace("--no-cache-dir --break-system-packages ", "") == (
        '-c /tmp/constraints.txt "dimml @ file://$wheel"'
    )
