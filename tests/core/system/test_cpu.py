"""Which int8 instructions a processor has, by what Linux lists of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dimml.system.cpu import int8_instructions


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


def test_a_system_without_the_file_has_no_answer(tmp_path: Path) -> None:
    assert int8_instructions(tmp_path / "cpuinfo") is None
