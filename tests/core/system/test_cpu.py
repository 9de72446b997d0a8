"""Which processor this is and which int8 instructions it has, by what Linux lists of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dimml.system.cpu import exact_int8_sums, int8_instructions, processor_identity


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse avx2 avx512f avx512_vnni amx_int8\n", ("AVX512-VNNI", "AMX")),
        ("flags\t\t: fpu avx2 avx_vnni\nflags\t\t: fpu amx_int8\n", ("AVX-VNNI",)),
        ("flags\t\t: fpu avx2 avx512f not_avx512_vnni_at_all\n", ()),
        ("Features\t: fp asimd asimddp i8mm\n", ("dot product", "I8MM")),
        ("processor\t: 0\n", None),
    ],
)
def test_flags_are_read_of_the_first_processor(tmp_path: Path, text: str, expected: tuple[str, ...] | None) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert int8_instructions(tmp_path / "cpuinfo") == expected


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_vnni\n", False),
        ("flags\t\t: fpu avx2 avx_vnni\n", False),
        ("Features\t: fp asimd asimddp\n", False),
        ("flags\t\t: fpu avx2 avx512f\n", True),
        ("processor\t: 0\n", True),
    ],
)
def test_slow_exact_sums_are_asked_for_only_where_fast_ones_saturate(tmp_path: Path, text: str, needed: bool) -> None:
    """The entry takes two thirds of the speed away on a processor with VNNI, which needs it not."""
    (tmp_path / "cpuinfo").write_text(text)
    assert exact_int8_sums(tmp_path / "cpuinfo") == ({"session.x64quantprecision": "1"} if needed else {})


def test_a_system_without_the_file_has_no_answer(tmp_path: Path) -> None:
    assert int8_instructions(tmp_path / "cpuinfo") is None


AMD = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t\t: 1\ncpu MHz\t\t: {mhz}\nflags\t\t: {flags}\n"


def test_a_processor_is_known_by_model_and_flags_and_not_by_its_clock(tmp_path: Path) -> None:
    def identity(text: str) -> str | None:
        (tmp_path / "cpuinfo").write_text(text)
        return processor_identity(tmp_path / "cpuinfo")

    one = identity(AMD.format(mhz="2445.4", flags="fpu avx2"))
    assert one is not None
    assert "AuthenticAMD" in one
    assert identity(AMD.format(mhz="1800.0", flags="avx2 fpu")) == one
    # Only the first counts: the others may be listed before they are all there.
    assert identity(AMD.format(mhz="1", flags="fpu avx2") + "\n" + AMD.format(mhz="1", flags="fpu")) == one
    assert identity(AMD.format(mhz="2445.4", flags="fpu avx2 avx512f")) != one
    assert identity(AMD.replace("\t: 1", "\t: 2").format(mhz="1", flags="fpu avx2")) != one
    assert identity("processor\t: 0\n") is None
    assert processor_identity(tmp_path / "not there") is None
