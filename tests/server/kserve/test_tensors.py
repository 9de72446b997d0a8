"""Tensor codecs, held against tritonclient's own (de)serialisers."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from dimml.errors import InvalidTensorError
from dimml_server.kserve.tensors import InputTensor, OutputTensor, decode, split_bytes, to_elements, to_raw


def test_raw_numbers_are_a_view_of_what_was_sent() -> None:
    sent = np.arange(12, dtype=np.float32)
    got = decode(InputTensor("X", "FP32", (3, 4), sent.tobytes()), "FP32", "m")
    np.testing.assert_array_equal(got, sent.reshape(3, 4))
    assert not got.flags.owndata


def test_an_unaligned_tensor_is_copied_into_place() -> None:
    sent = np.arange(5, dtype=np.float64)
    for offset in range(8):
        body = memoryview(b"x" * offset + sent.tobytes())[offset:]
        got = decode(InputTensor("X", "FP64", (5,), body), "FP64", "m")
        assert got.flags.aligned
        np.testing.assert_array_equal(got, sent)


def test_bool_takes_any_byte_but_zero_as_true() -> None:
    got = decode(InputTensor("P", "BOOL", (4,), b"\x00\x01\x02\xff"), "BOOL", "m")
    assert got.dtype == np.bool_
    assert got.tolist() == [False, True, True, True]


@pytest.mark.parametrize("size", [0, 11, 13])
def test_a_wrong_number_of_bytes_is_said_in_triton_s_words(size: int) -> None:
    with pytest.raises(
        InvalidTensorError, match=rf"^input byte size mismatch for input 'X' for model 'm'. Expected 12, got {size}$"
    ):
        decode(InputTensor("X", "FP32", (3,), bytes(size)), "FP32", "m")


def test_a_huge_shape_costs_nothing() -> None:
    with pytest.raises(InvalidTensorError, match="byte size mismatch"):
        decode(InputTensor("X", "FP32", (2**62, 2**62), b""), "FP32", "m")


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_bytes_go_both_ways_as_tritonclient_writes_them(elements: list[bytes]) -> None:
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    ours = to_raw(OutputTensor("S", "BYTES", array))
    serialized = serialize_byte_tensor(array)
    assert ours == (serialized.item() if serialized.size else b"")
    assert deserialize_bytes_tensor(ours).tolist() == elements
    assert split_bytes("S", ours, len(elements)) == elements


@given(st.binary(max_size=64), st.integers(0, 4))
@settings(max_examples=300)
def test_any_bytes_are_elements_or_an_invalid_tensor(raw: bytes, count: int) -> None:
    try:
        elements = split_bytes("S", raw, count)
    except InvalidTensorError:
        return
    assert b"".join(struct.pack("<I", len(e)) + e for e in elements) == raw
    assert len(elements) == count


@pytest.mark.parametrize(
    ("raw", "count", "message"),
    [
        (b"\x01\x00", 1, "incomplete string length indicator for inference input 'S', expecting 4 bytes but only 2"),
        (b"\x05\x00\x00\x00ab", 1, "expecting string of length 5 but only 2 bytes available"),
        (b"\x00\x00\x00\x00" * 2, 1, "unexpected number of string elements 2 for inference input 'S', expecting 1"),
        (b"", 1, "expected 1 string elements for inference input 'S', got 0"),
    ],
)
def test_malformed_bytes_tensors_are_explained(raw: bytes, count: int, message: str) -> None:
    with pytest.raises(InvalidTensorError, match=message):
        split_bytes("S", raw, count)


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]], [[[1], [2]], [[3], [4]]]])
def test_json_elements_may_be_nested_or_flat(data: list[object]) -> None:
    got = decode(InputTensor("X", "FP32", (2, 2), data), "FP32", "m")
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, [[1, 2], [3, 4]])


def test_json_strings_become_bytes() -> None:
    got = decode(InputTensor("S", "BYTES", (2,), ["ü", "\x00"]), "BYTES", "m")
    assert got.tolist() == ["ü".encode(), b"\x00"]


def test_json_nan_and_overflow_are_kept_for_the_ensemble_to_judge() -> None:
    got = decode(InputTensor("X", "FP32", (3,), [float("nan"), 1e300, 1]), "FP32", "m")
    assert np.isnan(got[0])
    assert np.isinf(got[1])
    assert got[2] == 1


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("UINT8", [256, 0]),
        ("UINT8", [-1, 0]),
        ("UINT8", [1.5, 0]),
        ("UINT8", [2**80, 0]),
        ("UINT8", [True, 0]),
        ("FP32", ["1", 2]),
        ("FP32", [None, 2]),
        ("FP32", [10**400, 2]),
        ("FP64", [{}, 2]),
        ("BOOL", [1, 0]),
        ("BYTES", [1, "a"]),
        ("FP32", [[1], 2]),
    ],
)
def test_json_elements_of_another_type_are_refused(datatype: str, data: list[object]) -> None:
    with pytest.raises(InvalidTensorError, match="Unable to parse 'data' of input 'X'"):
        decode(InputTensor("X", datatype, (2,), data), datatype, "m")  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [[], [1], [1, 2, 3], [[1, 2], [3]]])
def test_json_data_that_is_not_the_shape_is_refused(data: list[object]) -> None:
    with pytest.raises(InvalidTensorError, match="Shape does not match true shape of 'data' field"):
        decode(InputTensor("X", "FP32", (2,), data), "FP32", "m")


def test_json_data_may_be_of_no_elements() -> None:
    assert decode(InputTensor("X", "UINT8", (2, 0), [[], []]), "UINT8", "m").shape == (2, 0)


def test_json_pixels_keep_every_value() -> None:
    got = decode(InputTensor("X", "UINT8", (1, 256), [list(range(256))]), "UINT8", "m")
    assert got.dtype == np.uint8
    assert got.tolist() == [list(range(256))]


def test_json_data_far_beyond_its_shape_is_refused_before_it_is_flattened() -> None:
    data = [[0] * 10_000] * 10_000  # one row many times over: 10^8 elements once they are flat
    tracemalloc.start()
    try:
        with pytest.raises(InvalidTensorError, match="expected 10000 elements, got 100000000"):
            decode(InputTensor("X", "UINT8", (10_000,), data), "UINT8", "m")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_json_cannot_express_every_output() -> None:
    with pytest.raises(InvalidTensorError, match="output 'L' holds a number that is not finite"):
        to_elements(OutputTensor("L", "FP32", np.array([np.nan], np.float32)))
    blob = np.empty(1, np.object_)
    blob[0] = b"\xff"
    with pytest.raises(InvalidTensorError, match="output 'S' holds bytes that are not UTF-8"):
        to_elements(OutputTensor("S", "BYTES", blob))
