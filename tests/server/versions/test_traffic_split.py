"""Who answers a request that names no version: shares, keys, what is refused, and what is kept in a file."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from dimml.errors import ConfigurationError, InvalidParameterError
from dimml_server.versions.registry import BundleRegistry
from dimml_server.versions.traffic_file import read_routing_file, write_routing_file
from dimml_server.versions.traffic_split import NEWEST_ANSWERS, Routing
from support.tiny_bundle import make_tiny_bundle

SERVED = (1, 2, 3)


def test_the_same_key_gets_the_same_version_and_shares_are_kept() -> None:
    routing = Routing({1: 70.0, 2: 20.0, 3: 10.0})
    keys = [f"user-{number}" for number in range(20_000)]
    chosen = {key: routing.choose(SERVED, "grid", key) for key in keys}
    assert chosen == {key: routing.choose(SERVED, "grid", key) for key in keys}
    counts = Counter(chosen.values())
    for version, share in routing.split.items():
        # Five standard deviations of a binomial share.
        assert abs(counts[version] / 200 - share) < 5 * (share * (100 - share) / len(keys)) ** 0.5
    by_chance = Counter(routing.choose(SERVED, "grid", None) for _ in keys)
    assert abs(by_chance[3] / 200 - 10.0) < 5 * (10 * 90 / len(keys)) ** 0.5
    # Who sees the new version of one bundle is not who sees that of another.
    assert any(routing.choose(SERVED, "ave", key) != chosen[key] for key in keys[:100])


def test_nobody_leaves_the_newest_version_while_its_share_grows() -> None:
    keys = [str(number) for number in range(2000)]
    before: set[str] = set()
    for share in (1.0, 10.0, 50.0, 90.0):
        routing = Routing({2: 100.0 - share, 3: share})
        now = {key for key in keys if routing.choose((2, 3), "grid", key) == 3}
        assert before < now
        before = now


def test_the_default_has_the_largest_share() -> None:
    assert NEWEST_ANSWERS.default(SERVED) == NEWEST_ANSWERS.choose(SERVED, "grid", "key") == 3
    assert Routing({1: 100.0}).choose(SERVED, "grid", None) == 1
    assert Routing({1: 90.0, 2: 10.0}).default(SERVED) == 1
    assert Routing({1: 50.0, 2: 50.0}).default(SERVED) == 2


def test_a_share_of_a_version_that_goes_is_given_to_the_others() -> None:
    assert Routing({1: 60.0, 2: 20.0, 3: 20.0}).without(3) == Routing({1: 75.0, 2: 25.0})
    assert Routing({1: 100.0}, shadow=2).without(2) == Routing({1: 100.0})
    assert Routing({1: 100.0}).without(1) == NEWEST_ANSWERS


@pytest.mark.parametrize(
    ("routing", "said"),
    [
        (Routing({1: 90.0, 2: 20.0}), "add up to 100 percent, these make 110"),
        (Routing({1: 120.0, 2: -20.0}), "above 0 and at most 100"),
        (Routing({1: 100.0, 2: 0.0}), "leave out who gets none"),
        (Routing({1: float("nan"), 2: 50.0}), "above 0 and at most 100"),
        (Routing({1: 90.0, 7: 10.0}), r"split: version 7 of 'grid' is not loaded; loaded are \[1, 2, 3\]"),
        (Routing({1: 100.0}, shadow=7), "shadow: version 7 of 'grid' is not loaded"),
        (Routing({1: 90.0, 2: 10.0}, shadow=2), "version 2 of 'grid' answers requests itself"),
        (Routing(shadow=3), "version 3 of 'grid' answers requests itself"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(routing: Routing, said: str) -> None:
    with pytest.raises(InvalidParameterError, match=said) as refused:
        routing.check("grid", SERVED)
    assert refused.value.field in ("split", "shadow")


@pytest.mark.parametrize("routing", [NEWEST_ANSWERS, Routing({1: 33.3, 2: 66.7}, shadow=3), Routing(shadow=2)])
def test_what_can_be_is_let_through_and_survives_the_file(routing: Routing, tmp_path: Path) -> None:
    routing.check("grid", SERVED)
    path = tmp_path / "routing.json"
    assert read_routing_file(path) == {}
    write_routing_file(path, {"grid": routing})
    assert read_routing_file(path) == {"grid": routing}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["{", "[]", '{"grid": {"spilt": {}}}', '{"grid": {"split": {"one": 100}}}'])
def test_a_file_that_is_wrong_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "routing.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=re.escape(str(path))):
        read_routing_file(path)


def test_the_registry_routes_and_gives_shares_on(tmp_path: Path) -> None:
    registry = BundleRegistry()
    first, second, third = (make_tiny_bundle(tmp_path) for _ in range(3))
    for bundle in (first, second, third):
        registry.add(bundle)
    registry.set_routing("tiny", Routing({1: 60.0, 2: 40.0}, shadow=3))
    assert registry.bundle("tiny") == registry.model("tiny_audio").bundle == first
    chosen = {registry.route("tiny", None, str(key)).bundle.version for key in range(50)}
    assert chosen == {1, 2}
    named = registry.route("tiny", 3, "key")
    assert (named.bundle, named.chosen) == (third, False)
    assert registry.route(None, None, "key").chosen
    registry.remove(first)
    assert registry.routing("tiny") == Routing({2: 100.0}, shadow=3)
    # With the last one that answers, the shadow is no longer one: somebody must answer.
    registry.remove(second)
    assert registry.routing("tiny") == NEWEST_ANSWERS
    assert registry.bundle("tiny") == third
