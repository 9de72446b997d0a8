"""Every test is in one tier, by the folder it stands in, and `make` runs the tiers that it says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from support.data import REPOSITORY_ROOT
from support.tiers import KINDS, LONGEST, SLOW, kind_of, longest_first, mark, scope_of, slow_because

TESTS = REPOSITORY_ROOT / "tests"
TRITON = TESTS / "integration" / "triton"
#: What has these words in it starts a Triton server, or asks one that another file has started.
STARTS_TRITON = re.compile(r"\bsupport\.(triton_process|triton_faults)\b|\bgateway_triton\b|\btriton_server\b")


#: And these, a server of dimml's own.
STARTS_A_SERVER = re.compile(r"\bsupport\.(server_process|gateway)\b|\"dimml\", \"demo\"")


def names(item: pytest.Item) -> list[str]:
    return [mark.name for mark in item.iter_markers()]


def test_every_test_has_the_marker_of_its_folder_and_no_other(request: pytest.FixtureRequest) -> None:
    """Of those that this run has selected; the whole suite, in `make test`."""
    for item in request.session.items:
        assert [kind for kind in KINDS if kind in names(item)] == [kind_of(item.path)], item.nodeid


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("core/fusion/test_weighting.py", "unit"),
        ("test_tiers.py", "unit"),
        ("integration/http/test_predict.py", "integration"),
        ("integration/triton/test_faults.py", "triton"),
    ],
)
def test_a_kind_by_where_a_test_stands(file: str, kind: str) -> None:
    assert (TESTS / file).is_file()
    assert kind_of(TESTS / file) == kind


@pytest.mark.parametrize(
    ("starts", "folder"), [(STARTS_TRITON, TRITON), (STARTS_A_SERVER, TESTS / "integration")], ids=["triton", "dimml"]
)
def test_nothing_outside_its_folder_starts_a_server(starts: re.Pattern[str], folder: Path) -> None:
    found = [path for path in TESTS.rglob("test_*.py") if path != Path(__file__) and starts.search(path.read_text())]
    assert [path for path in found if folder not in path.parents] == []
    assert found != []


def test_what_is_slow_by_its_place_is_marked_so(request: pytest.FixtureRequest) -> None:
    assert [place for place in SLOW if not (REPOSITORY_ROOT / place).exists()] == []
    assert slow_because("tests/training/loop/test_train.py::test_it") == "trains"
    assert slow_because("tests/training/loop_of_another/test_it.py::test_it") is None
    for item in request.session.items:
        assert slow_because(item.nodeid) is None or "slow" in names(item), item.nodeid


@pytest.mark.parametrize("folder", ["triton", "kserve"])
def test_tests_that_share_a_server_share_a_process_and_others_that_of_their_file(folder: str) -> None:
    sharing = [f"tests/integration/{folder}/{path.name}" for path in (TESTS / "integration" / folder).glob("test_*.py")]
    assert len({scope_of(f"{file}::test[a::b]") for file in sharing}) == 1 < len(sharing)
    assert scope_of("tests/core/test_bundle.py::test_it[a::b]") == "tests/core/test_bundle.py"


def test_what_takes_longest_is_begun_first_and_then_what_has_most_tests(request: pytest.FixtureRequest) -> None:
    assert [scope for scope in LONGEST if not (REPOSITORY_ROOT / scope).exists()] == []
    files = (
        "test_words.py",
        "test_kinds.py",
        "export/test_export.py",
        "test_kinds.py",
        "integration/triton/test_faults.py",
    )
    items = []
    for number, file in enumerate(files):
        module = pytest.Module.from_parent(request.session, path=TESTS / file)
        items.append(pytest.Function.from_parent(module, name=f"test_{number}", callobj=names))
    longest_first(items)
    assert [item.name for item in items] == ["test_4", "test_2", "test_1", "test_3", "test_0"]


@pytest.mark.parametrize(
    ("by_hand", "message"),
    [
        (pytest.mark.triton, "triton is given by the test's folder"),
        (pytest.mark.slow, r"slow is for unit tests, as slow\(reason=...\)"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_marker_by_hand_is_refused(
    request: pytest.FixtureRequest, by_hand: pytest.MarkDecorator, message: str
) -> None:
    def test() -> None: ...

    module = pytest.Module.from_parent(request.session, path=Path(__file__))
    item = pytest.Function.from_parent(module, name="test", callobj=by_hand(test))
    with pytest.raises(pytest.UsageError, match=message):
        mark([item])


def test_markers_are_registered_and_strict() -> None:
    options = tomllib.loads((REPOSITORY_ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert "--strict-markers" in options["addopts"]
    assert [line.partition(":")[0].partition("(")[0] for line in options["markers"]] == [*KINDS, "slow"]
    assert options["testpaths"] == ["tests"], "make test runs all"


def test_make_runs_the_tiers_it_names() -> None:
    makefile = (REPOSITORY_ROOT / "Makefile").read_text()
    recipes = dict(re.findall(r"^([a-z-]+):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE))
    assert " -m " not in recipes["test"].replace("-m pytest", ""), "all tests"
    assert "-m 'unit and not slow' --ignore=tests/integration" in recipes["test-unit"]
    assert "make test\n" in (REPOSITORY_ROOT / ".ci" / "run").read_text()
