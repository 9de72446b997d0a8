"""Errors of calls, in the words that the client gives them."""

from __future__ import annotations

import pytest

from dimml_client.transport.errors import no_answer


@pytest.mark.parametrize(
    ("left_s", "said"), [(0.998, "1 s"), (29.97, "30 s"), (0.04, "0.04 s"), (2.5, "2.5 s"), (600.0, "600 s")]
)
def test_a_call_without_an_answer_names_the_time_it_was_given(left_s: float, said: str) -> None:
    """Some milliseconds of it are gone when the call is made, which would read as another time."""
    assert str(no_answer("http://host", left_s)) == f"no answer from http://host within {said}"
