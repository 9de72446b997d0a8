"""Writing versions into a repository: all of it or nothing, whatever happens in the middle."""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from dimml.bundle import Bundle, file_sha256
from dimml.errors import BundleError
from dimml.repository import bundle_names, bundle_versions, load_bundle, versions
from dimml_export.fusion_graph import fusion_model
from dimml_export.repository_writer import write_bundle
from support.data import REPOSITORY_ROOT
from support.tiny_bundle import AUDIO, REAR, VISUAL, make_tiny_bundle

#: Renames of one export: as version 1, and as a later version of models that are there.
FIRST_RENAMES, NEXT_RENAMES = 6, 5


def tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.name != ".dimml-export.lock")


def test_a_bundle_has_the_designs_layout_and_verifies(tmp_path: Path) -> None:
    written = make_tiny_bundle(tmp_path / "new" / "repository")
    repository = tmp_path / "new" / "repository"
    assert [path for path in tree(repository) if (repository / path).is_file()] == [
        "tiny/1/bundle.json",
        "tiny/1/model.py",
        "tiny/config.pbtxt",
        "tiny_audio/1/model.onnx",
        "tiny_audio/config.pbtxt",
        "tiny_fusion/1/model.onnx",
        "tiny_fusion/config.pbtxt",
        "tiny_media/1/model.py",
        "tiny_media/config.pbtxt",
        "tiny_visual/1/model.onnx",
        "tiny_visual/config.pbtxt",
    ]
    assert load_bundle(repository, "tiny") == written
    assert sorted(written.files) == [
        "tiny/1/model.py",
        "tiny_audio/1/model.onnx",
        "tiny_fusion/1/model.onnx",
        "tiny_media/1/model.py",
        "tiny_visual/1/model.onnx",
    ]
    for relative, record in written.files.items():
        path = repository / relative
        assert (path.stat().st_size, file_sha256(path)) == (record.bytes, record.sha256)


def test_files_can_be_read_by_a_server_that_runs_as_someone_else(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        make_tiny_bundle(tmp_path / "repository")
    finally:
        os.umask(before)
    for path in [tmp_path / "repository", *(tmp_path / "repository").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_a_second_export_is_version_two_and_keeps_edited_configs(tmp_path: Path) -> None:
    first = make_tiny_bundle(tmp_path)
    config = tmp_path / "tiny_audio" / "config.pbtxt"
    edited = config.read_text().replace("count: 1", "count: 3")
    config.write_text(edited)
    second = make_tiny_bundle(tmp_path)
    assert (first.version, second.version) == (1, 2)
    assert config.read_text() == edited
    assert bundle_versions(tmp_path, "tiny") == [1, 2]
    assert load_bundle(tmp_path, "tiny", 1) == first
    assert load_bundle(tmp_path, "tiny") == second


def test_the_version_is_above_that_of_every_model_of_the_bundle(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    (tmp_path / "tiny_visual" / "7").mkdir()
    assert make_tiny_bundle(tmp_path).version == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ("a", "b")}, r"tiny_audio/config\.pbtxt .*output LOGITS is FP32 \[3\] there and FP32 \[2\] here"),
        ({"modalities": (AUDIO,)}, r"tiny_fusion/config\.pbtxt .*input VISUAL_FEATURES is .* missing here"),
        ({"modalities": (AUDIO, VISUAL, REAR)}, r"tiny_fusion/config\.pbtxt .*REAR_FEATURES is missing there"),
        ({"modalities": (AUDIO, VISUAL.model_copy(update={"frames": 2}))}, r"FRAMES is UINT8 \[4, 16, 16, 3\] there"),
    ],
)
def test_a_name_taken_by_a_bundle_of_another_shape_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    make_tiny_bundle(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(BundleError, match=message + ".*export under another name"):
        make_tiny_bundle(tmp_path, **change)  # type: ignore[arg-type]
    assert tree(tmp_path) == before
    make_tiny_bundle(tmp_path, name="other", **change)  # type: ignore[arg-type]
    assert bundle_names(tmp_path) == ["other", "tiny"]


def test_a_model_without_the_contracts_tensors_is_refused(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "made", fused_head=False)
    draft = bundle.model_copy(update={"files": {}})
    fusion = fusion_model(draft, None, None)
    with pytest.raises(BundleError, match="no ONNX model for tiny_audio"):
        write_bundle(tmp_path / "other", draft, {}, fusion)
    with pytest.raises(BundleError, match=r"tiny_audio: the ONNX model's inputs are .*the contract says .*WAVEFORM"):
        write_bundle(tmp_path / "other", draft, {"audio": fusion, "visual": fusion}, fusion)
    assert not (tmp_path / "other").exists()


# Each child dies, as by a power cut, just before the rename with its number: nothing after it runs, no clean-up
# either. One interpreter forks them all, since starting one costs more than the export does.
KILLED_EXPORTS = """
import os, sys
from pathlib import Path
sys.path.insert(0, "tests")
from support.tiny_bundle import make_tiny_bundle

rename, done = Path.rename, 0

def counted(self, target):
    global done
    if done == renames:
        os._exit(9)
    done += 1
    return rename(self, target)

for repository in sys.argv[1:]:
    renames = int(Path(repository).name)
    if (child := os.fork()) == 0:
        Path.rename = counted
        make_tiny_bundle(Path(repository))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def killed_exports(repositories: list[Path]) -> list[int]:
    """Exports into folders named by the rename before which each dies; their exit codes, 9 for killed."""
    command = [sys.executable, "-c", KILLED_EXPORTS, *map(str, repositories)]
    result = subprocess.run(command, cwd=REPOSITORY_ROOT, check=True, capture_output=True, text=True)
    return [int(line) for line in result.stdout.split()]


def test_killed_in_the_middle_the_old_version_still_serves(tmp_path: Path) -> None:
    repositories = [tmp_path / str(renames) for renames in range(NEXT_RENAMES + 1)]
    firsts = [make_tiny_bundle(repository) for repository in repositories]
    assert killed_exports(repositories) == [9] * NEXT_RENAMES + [0]
    for repository, first in zip(repositories, firsts, strict=True):
        whole = repository is repositories[-1]
        assert bundle_versions(repository, "tiny") == ([1, 2] if whole else [1])
        if not whole:
            assert load_bundle(repository, "tiny") == first
        following = make_tiny_bundle(repository)
        assert following.version == (3 if whole else 2)
        assert load_bundle(repository, "tiny") == following
        assert not list(repository.rglob(".staging*"))
        for model in ("tiny", "tiny_audio", "tiny_visual", "tiny_fusion"):
            assert versions(repository, model) == list(range(1, following.version + 1))


def test_killed_in_the_middle_of_the_first_export_the_name_stays_free(tmp_path: Path) -> None:
    repositories = [tmp_path / str(renames) for renames in range(FIRST_RENAMES)]
    assert killed_exports(repositories) == [9] * FIRST_RENAMES
    for repository in repositories:
        assert bundle_names(repository) == []
        # Other shapes under the same name: possible only if nothing of the dead export counts any more.
        following = make_tiny_bundle(repository, modalities=(VISUAL, REAR))
        assert following.version == 1
        assert load_bundle(repository, "tiny") == following
        assert not (repository / "tiny_audio").exists()
        assert not list(repository.rglob(".staging*"))


def _export(repository: Path, barrier: object, versions_made: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    versions_made.put(make_tiny_bundle(repository).version)  # type: ignore[attr-defined]


def test_concurrent_exports_each_get_a_version_of_their_own(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier, versions_made = spawn.Barrier(3), spawn.Queue()
    processes = [spawn.Process(target=_export, args=(tmp_path, barrier, versions_made)) for _ in range(3)]
    for process in processes:
        process.start()
    made = sorted(versions_made.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert made == [1, 2, 3]
    for version in made:
        assert load_bundle(tmp_path, "tiny", version).version == version


def _small_files_only() -> None:
    # The kernel then refuses to let a file grow past this: what a full disk does to a write half way.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


FULL_DISK_EXPORT = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from support.tiny_bundle import make_tiny_bundle
from dimml.errors import BundleError
try:
    make_tiny_bundle(Path(sys.argv[1]))
except BundleError as error:
    print(error.message)
"""


@pytest.mark.parametrize("there_before", [False, True])
def test_a_write_that_fails_half_way_leaves_nothing_behind(tmp_path: Path, there_before: bool) -> None:
    if there_before:
        make_tiny_bundle(tmp_path)
    before = tree(tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK_EXPORT, str(tmp_path)],
        cwd=REPOSITORY_ROOT,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=_small_files_only,
    )
    assert result.stdout.strip() == (
        f"cannot write bundle 'tiny' into {tmp_path}: File too large; nothing was exported"
    ), result.stderr
    assert tree(tmp_path) == before


def test_a_repository_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match=r"cannot write bundle 'tiny' into .*file: File exists"):
        make_tiny_bundle(tmp_path / "file")


def test_the_manifest_is_one_that_core_reads(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path)
    assert Bundle.model_validate_json((tmp_path / "tiny" / "1" / "bundle.json").read_bytes()) == bundle
