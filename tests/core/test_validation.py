"""What is found wrong with a document, by its field."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError, model_validator

from dimml.validation import dotted, first_fault


class Part(BaseModel):
    shape: tuple[int, ...]


class Document(BaseModel):
    parts: list[Part]
    limits: dict[str, float] = {}

    @model_validator(mode="after")
    def _named(self) -> Document:
        if not self.parts:
            raise ValueError("name a part")
        return self


@pytest.mark.parametrize(
    ("document", "field", "message"),
    [
        ({"parts": [{"shape": [1]}, {"shape": [1, "x"]}]}, "parts.1.shape.1", "valid integer"),
        ({"parts": [], "limits": {"audio": "no"}}, "limits.audio", "valid number"),
        ({"limits": {"audio": "no"}}, "parts", "Field required"),
        ({"parts": []}, "the document", "name a part"),
        (3, "the document", "valid dictionary"),
    ],
)
def test_the_first_fault_has_a_path_that_can_be_looked_up(document: object, field: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Document.model_validate(document)
    found = first_fault(caught.value, "the document")
    assert found.field == field
    assert message in found.message


def test_a_path_of_nothing_is_empty() -> None:
    assert dotted(()) == ""
