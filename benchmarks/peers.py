"""``dimml serve`` beside what else one would pick: FastAPI, LitServe, BentoML, and Triton with a classic ensemble.

    python benchmarks/peers.py --repository bundles --bundle grid_digit --out peers.md
    python benchmarks/peers.py --only dimml fastapi bentoml --forms ours --cases both missing --rounds 3
    python benchmarks/peers.py --bundle paper --version 1 --beside 2 --repository bundles  # int8 beside fp32

Every contender serves the same ONNX files of one bundle and takes the same uploads; with ``--beside``, dimml serves
other versions of it as well, each with a table of its own. Peers run in environments of their
own, made at the first run in a cache folder outside the repository, in two forms: ``ours`` has dimml's decoder in the
peer's own process, so that only serving differs; ``docs`` decodes as the documentation of torchcodec or PyAV teaches it
with the libraries' own numbers of threads.

All processes of a server are pinned to one core, the load generator to another. In every round each contender is
started anew, in rotating order, warmed up, and given the cases in turn:

- ``both``: whole recordings, closed loop;  ``missing``: the same without the track of ``--missing``;
- ``idle``: one client;  ``steady``: an open loop at 80 % of its own rate in this round;
- ``stalled``: the encoder of ``--stall`` takes 2 s for every run, an open loop at 70 % of its own rate; an answer that
  has not come after 5 s counts as none. dimml has a deadline of ``--deadline-ms`` for it.

Labels are held against the same calls in this process; of peers with dimml's decoder none may differ (exit code 1).
A round in which others took more than 3 % of either core (time in which the core was not idle, by /proc/stat, less
processor time of its processes), or in which a process of the server came, went or left its core, is made again, up to
three times, and does not count otherwise. Ratios are medians over rounds made side by side, with a bootstrap interval
of 95 %. The file of ``--out`` is written anew after every round.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import contenders
from harness.clips import default_clips, read_clips, without
from harness.contenders import Contender, Job
from harness.environments import default_home
from harness.one_version import with_one_version
from harness.peer_rounds import Bench, Found, Load, case_table, full_name, stalled_table
from harness.report import ROOT, machine
from harness.servers import OTHERS_LIMIT, two_cores
from peer_servers.pipeline import Pipeline

from dimml.bundle import Bundle
from dimml.repository import load_bundle

CASES = ("both", "missing", "idle", "steady", "stalled")
FORMS = ("ours", "docs")
TITLES = {
    "both": "Whole recordings, closed loop",
    "missing": "One modality missing, closed loop",
    "idle": "One client",
    "steady": "80 % of its own rate, open loop",
    "stalled": "One encoder stalled, open loop",
}
#: With another decoder than dimml's; Triton's Python environment has no torch.
DOCS = {"fastapi": ("torchcodec", "pyav"), "litserve": ("torchcodec",), "bentoml": ("torchcodec",), "triton": ("pyav",)}
PEERS = ("dimml", "fastapi", "fastapi2", "litserve", "bentoml", "triton")
#: Below the scratch folder, what all contenders serve.
REPOSITORY = "repository"
#: How the names of dimml's other versions begin.
BESIDE = "dimml serve, version"
#: A contender that did not start so often is left out.
FAILURES = 2


def beside(arguments: argparse.Namespace, bundles: Sequence[Bundle], scratch: Path) -> list[Contender]:
    """``dimml serve`` with other versions of the bundle."""
    made = []
    for bundle in bundles:
        job = Job(
            repository=with_one_version(arguments.repository, bundle, scratch / f"version-{bundle.version}"),
            bundle=bundle,
            decoder="dimml",
            stall="",
            deadline_ms=arguments.deadline_ms,
            home=arguments.home,
            scratch=scratch,
        )
        made.append(replace(contenders.dimml(job), name=beside_name(bundle)))
    return made


def beside_name(bundle: Bundle) -> str:
    """A contender's name that says what it serves."""
    return f"dimml serve, version {bundle.version} in {bundle.precision}"


def make(arguments: argparse.Namespace, bundle: Bundle, scratch: Path, found: Found, stall: str) -> list[Contender]:
    """All contenders that are wanted and can be installed; with ``stall``, those whose encoder stalls."""
    wanted = [("dimml", "dimml")]
    if "ours" in arguments.forms:
        wanted += [(peer, "dimml") for peer in PEERS[1:]]
    if "docs" in arguments.forms and not stall:
        wanted += [(peer, decoder) for peer, decoders in DOCS.items() for decoder in decoders]
    made = []
    for peer, decoder in wanted:
        if peer not in {"dimml", *arguments.only}:
            continue
        job = Job(
            repository=scratch / REPOSITORY,
            bundle=bundle,
            decoder=decoder,
            stall=stall,
            deadline_ms=arguments.deadline_ms,
            home=arguments.home,
            scratch=scratch,
        )
        makers: dict[str, Callable[[], Contender]] = {
            "dimml": partial(contenders.dimml, job),
            "fastapi": partial(contenders.fastapi, job, 1),
            "fastapi2": partial(contenders.fastapi, job, arguments.workers),
            "litserve": partial(contenders.litserve, job, arguments.workers),
            "bentoml": partial(contenders.bentoml, job, arguments.workers),
            "triton": partial(contenders.triton, job, arguments.workers),
        }
        try:
            made.append(makers[peer]())
        except RuntimeError as error:
            found.note(f"{peer} with {decoder} cannot be installed: {error}")
    return made


def loads(arguments: argparse.Namespace, pipeline: Pipeline, clips: Sequence[bytes]) -> dict[str, Load]:
    """The recordings of every case, and their labels by the same calls in this process."""
    lacking = without(pipeline.bundle, clips, arguments.missing)
    whole, cut = (
        Load(some, [str(pipeline.predict(clip)["label"]) for clip in some], arguments.requests, arguments.clients)
        for some in (clips, lacking)
    )
    return {case: cut if case == "missing" else whole for case in CASES}


def report(arguments: argparse.Namespace, found: Found, head: str) -> str:
    """Everything so far, as Markdown."""
    parts = [head]
    peers = list(found.rounds)
    for case in arguments.cases:
        if not any(case in rounds for rounds in found.rounds.values()):
            continue
        if case == "stalled":
            parts.append(f"{TITLES[case]}:\n\n{stalled_table(found, peers, peers[0])}")
            continue
        for first in (name for name in peers if name == peers[0] or name.startswith(BESIDE)):
            served = "" if first == peers[0] else f", {first} beside the others"
            parts.append(f"{TITLES[case]}{served}:\n\n{case_table(found, case, peers, first)}")
    parts += [f"- {note}" for note in found.notes]
    return "\n\n".join(parts) + "\n"


def wrong(found: Found) -> list[str]:
    """Contenders with dimml's decoder that gave other labels than the same calls in this process."""
    return [
        f"{name}, {case}"
        for name, cases in found.rounds.items()
        for case, rounds in cases.items()
        if case != "stalled" and not name.endswith(("torchcodec", "pyav")) and any(r.differing for r in rounds.values())
    ]


def main() -> int:
    """Measure; print Markdown; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=ROOT / "model_repository")
    parser.add_argument("--bundle", default="avdigits")
    parser.add_argument("--version", type=int, help="version that all serve; by default the newest")
    parser.add_argument("--beside", type=int, nargs="+", default=[], help="other versions that dimml serves as well")
    parser.add_argument("--clips", type=Path, default=default_clips(), help="folder of .mp4 files")
    parser.add_argument("--only", nargs="+", choices=PEERS, default=PEERS, help="beside dimml; by default all")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="'both' is always among them")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--stalled-rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=300, help="of a round (300)")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2, help="processes of a peer that has several")
    parser.add_argument("--missing", default="audio", help="modality whose track the case 'missing' lacks")
    parser.add_argument("--stall", default="visual", help="modality whose encoder stalls")
    parser.add_argument("--deadline-ms", type=float, default=200.0, help="of dimml's stalled encoder")
    parser.add_argument("--home", type=Path, default=default_home(), help="folder of the peers' environments")
    parser.add_argument(
        "--others", type=float, default=OTHERS_LIMIT, help="share of a core that others may take (0.03)"
    )
    parser.add_argument("--out", type=Path, help="file for the Markdown, in addition to stdout")
    arguments = parser.parse_args()
    arguments.cases = [case for case in CASES if case in {"both", *arguments.cases}]

    with tempfile.TemporaryDirectory() as scratch:
        return compare(arguments, Path(scratch))


def compare(arguments: argparse.Namespace, scratch: Path) -> int:
    """Measure what was asked for, with a scratch folder; print Markdown; the exit code."""
    cores, found = two_cores(), Found()
    bundle = load_bundle(arguments.repository, arguments.bundle, arguments.version)
    others = [load_bundle(arguments.repository, arguments.bundle, version) for version in arguments.beside]
    repository = with_one_version(arguments.repository, bundle, scratch / REPOSITORY)
    pipeline = Pipeline(repository, arguments.bundle)
    clips = read_clips(arguments.clips, 50)
    names = {modality.name for modality in pipeline.bundle.modalities}
    for option in ("missing", "stall"):
        if getattr(arguments, option) not in names:
            raise SystemExit(f"--{option}: {arguments.bundle} has {sorted(names)}")
    also = beside(arguments, others, scratch)
    own = {
        contender.name: loads(arguments, Pipeline(scratch / f"version-{other.version}", other.name), clips)
        for contender, other in zip(also, others, strict=True)
    }
    bench = Bench(loads(arguments, pipeline, clips), cores, found, arguments.others, own)
    head = (
        f"{arguments.bundle} in {bundle.precision}, {len(clips)} clips of {arguments.clips.parent.name}, "
        f"{arguments.clients} clients, rounds of {arguments.requests}; {machine()}"
    )
    ordinary = [*make(arguments, bundle, scratch, found, ""), *also]
    stalled = make(arguments, bundle, scratch, found, arguments.stall)
    os.sched_setaffinity(0, {cores[1]})
    failures: dict[str, int] = {}

    def turns(some: Sequence[Contender], rounds: int, cases: Sequence[str]) -> None:
        for number in range(rounds):
            shift = number % len(some)
            for contender in [*some[shift:], *some[:shift]]:
                name = full_name(contender)
                unknown = "stalled" in cases and "both" not in found.rounds.get(name, {})
                if unknown or failures.get(name, 0) >= FAILURES:
                    continue
                own = [c for c in cases if contender.decoder == "dimml" or c in ("both", "missing")]
                try:
                    bench.one_turn(number, contender, own)
                except (RuntimeError, OSError) as error:
                    failures[name] = failures.get(name, 0) + 1
                    found.note(f"{name}: {str(error)[:300]} … {str(error)[-300:]}")
            if arguments.out is not None:
                arguments.out.write_text(report(arguments, found, head))

    turns(ordinary, arguments.rounds, [case for case in arguments.cases if case != "stalled"])
    if "stalled" in arguments.cases:
        failures.clear()
        turns(stalled, min(arguments.rounds, arguments.stalled_rounds), ["stalled"])
    # dimml first, whichever was measured first.
    found.rounds = dict(sorted(found.rounds.items(), key=lambda item: item[0] != "dimml serve"))
    text = report(arguments, found, head)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text)
    for name in (differing := wrong(found)):
        print(f"other labels than the same calls in this process: {name}", file=sys.stderr)
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
