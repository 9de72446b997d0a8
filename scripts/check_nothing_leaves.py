"""Run dimml's commands where every DNS question and every connection to another host is counted; there must be none.

    python scripts/check_nothing_leaves.py [--seconds 180] [--only WORD ...]

Each command runs in a fresh home, in a network namespace whose only way out is a counting sink
(scripts/packet_sink.py), so no packet leaves this machine. Two controls come first, so that a counter that sees nothing
cannot pass: a program that looks a name up and connects, and `dimml serve` with ONNX Runtime's telemetry asked for.
Prints a Markdown table. Exit code: 0 where nothing was seen, 1 where something was or a command failed, 2 where it
could not be checked. Needs Linux, root, iproute2, util-linux and /dev/net/tun, and what the tests need. Triton's server
is fetched before, outside.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from counted_commands import DIMML_TRAFFIC, HEADER, ROOT, TRITON_TRAFFIC, CountedCommands, Row
from packet_sink import RESOLVER, PacketSink

NOT_CHECKED = 2
_DIMML = str(Path(sys.executable).with_name("dimml"))
_INSIDE = "--inside-the-namespace"
_NAMESPACE = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--"]
#: ONNX Runtime 1.32 begins to look hosts up half a minute after its import.
_CONTROL_S = 75.0
_SERVE = [_DIMML, "serve", "--http-port", "0", "--grpc-port", "0", "--repository"]
_CONTROL = """
import contextlib, socket
for address in (("control.invalid", 80), ("192.0.2.1", 81), ("2001:db8:1::1", 82)):
    with contextlib.suppress(OSError):
        socket.create_connection(address, timeout=1.0)
"""


def main() -> int:
    """Go into a namespace and check there; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180.0, help="how long each server is under traffic")
    parser.add_argument("--only", nargs="+", default=[], help="check the commands whose names have one of these words")
    parser.add_argument(_INSIDE, dest="triton_home", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.triton_home is not None:
        return _inside(given.seconds, given.only, given.triton_home)
    missing = [program for program in ("unshare", "ip", "mount") if shutil.which(program) is None]
    if (
        missing
        or subprocess.run([*_NAMESPACE, "test", "-c", "/dev/net/tun"], capture_output=True, check=False).returncode
    ):
        wanted = (
            f"{', '.join(missing)} is not there"
            if missing
            else "root, /dev/net/tun and a kernel that lets it are needed"
        )
        print(f"not checked: no network namespace can be made here ({wanted})", file=sys.stderr)
        return NOT_CHECKED
    home = _fetched_triton()
    return subprocess.run([*_NAMESPACE, sys.executable, __file__, *sys.argv[1:], _INSIDE, home], check=False).returncode


def _fetched_triton() -> str:
    """The folder of Triton's server, fetched while there is a network; empty where it cannot be had."""
    from dimml.errors import DimmlError
    from dimml_server.triton_server.host import check_host
    from dimml_server.triton_server.installation import default_home, install

    try:
        install(default_home(), check_host(), lambda text: print(text, file=sys.stderr))
    except DimmlError as error:
        print(f"without Triton: {error.message}", file=sys.stderr)
        return ""
    return str(default_home())


def _inside(seconds: float, only: list[str], triton_home: str) -> int:
    with tempfile.TemporaryDirectory(prefix="dimml-leaves-") as name:
        folder = Path(name)
        _use_resolver(folder)
        commands = CountedCommands(PacketSink(), folder)
        print(HEADER, flush=True)
        blind = _blind(commands)
        if blind:
            print(f"not checked: {blind}", file=sys.stderr)
            return NOT_CHECKED
        rows = [run() for run in _checks(commands, folder, seconds, only, triton_home)]
    faulty = [row.name for row in rows if not row.clean]
    lookups = sum(row.seen.lookups.total() for row in rows)
    connections = sum(row.seen.connections.total() for row in rows)
    print(
        f"\n{len(rows)} commands: {lookups} look-ups, {connections} connections; {len(faulty)} rows not clean {faulty}"
    )
    return int(bool(faulty))


def _use_resolver(folder: Path) -> None:
    """Ask the sink for every name; in this mount namespace alone."""
    for target, text in {"resolv.conf": f"nameserver {RESOLVER}\n", "nsswitch.conf": "hosts: files dns\n"}.items():
        path = Path("/etc") / target
        if path.exists():
            mine = folder / target
            mine.write_text(text)
            subprocess.run(["mount", "--bind", str(mine), str(path.resolve())], check=True)


def _blind(commands: CountedCommands) -> str:
    """Why the counts cannot be believed; empty where they can."""
    control = commands.run("control: a look-up and three connections", [sys.executable, "-c", _CONTROL])
    if "control.invalid" not in control.seen.lookups or control.seen.connections.total() < 2:
        return "the sink does not see a look-up and connections"
    wish = {"ORT_DISABLE_TELEMETRY": "0"}
    repository = str(ROOT / "model_repository")
    telemetry = commands.serve(
        "control: serve, ORT_DISABLE_TELEMETRY=0", [*_SERVE, repository], wish, seconds=_CONTROL_S
    )
    if not telemetry.sent:
        return "ONNX Runtime sends nothing although its telemetry is asked for: is it older than 1.29?"
    return ""


def _checks(
    commands: CountedCommands, folder: Path, seconds: float, only: list[str], triton_home: str
) -> list[Callable[[], Row]]:
    from support.tiny_training import document, write_clips

    repository, samples, out = str(ROOT / "model_repository"), str(ROOT / "samples"), folder / "out"
    (folder / "clips").mkdir()
    out.mkdir()
    run, models, config = str(folder / "run"), str(folder / "models"), folder / "tiny.yaml"
    config.write_text(json.dumps(document(write_clips(folder / "clips"))))
    score = ["score", f"{samples}/clean_*.mp4", "--repository", repository, "--out"]

    mlflow = ["train", str(config), "--out", f"{run}-mlflow", "--set", f"logging.mlflow={(folder / 'mlruns').as_uri()}"]

    def ends(name: str, *words: str, **variables: str) -> tuple[str, Callable[[], Row]]:
        return name, lambda: commands.run(name, [_DIMML, *words], variables)

    def serves(name: str, words: list[str], traffic: str = DIMML_TRAFFIC) -> tuple[str, Callable[[], Row]]:
        return name, lambda: commands.serve(name, words, seconds=seconds, traffic=traffic)

    checks = [
        serves("serve", [*_SERVE, repository]),
        ends("doctor", "doctor", "--repository", repository),
        ends("predict", "predict", f"{samples}/clean_three.mp4", "--repository", repository),
        ends("score", *score, str(out / "local.parquet")),
        ends("score --engine ray", *score, str(out / "ray.parquet"), "--engine", "ray"),
        ends("train", "train", str(config), "--out", run),
        ends("train, logging to MLflow", *mlflow, MLFLOW_ALLOW_FILE_STORE="true"),
        ends("evaluate --corruptions", "evaluate", run, "--corruptions"),
        ends("calibrate", "calibrate", run),
        ends("report", "report", run),
        ends("export", "export", run, "--repository", models),
        ends("export, second version", "export", run, "--repository", models),
        serves("serve, a shadow", [*_SERVE, models, "--set", "model_control=explicit", "--set", "shadows=stripes=1"]),
    ]
    if triton_home:
        triton = [_DIMML, "triton", "--repository", repository, "--home", triton_home]
        ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
        checks.append(serves("triton", [*triton, *ports], TRITON_TRAFFIC))
    return [check for name, check in checks if not only or any(word in name for word in only)]


if __name__ == "__main__":
    sys.exit(main())
