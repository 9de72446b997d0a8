"""Which nodes may leave FP32: found by what they compute from and into, whatever they are called."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from dimml_export.precision.body import body_nodes, named
from support.small_graphs import convolutional


def test_the_body_lies_between_the_normalised_front_end_and_the_features() -> None:
    found = [node.name for node in body_nodes(convolutional())]
    assert found == ["body.first", "body.first_relu", "body.second", "body.add", "body.add_relu", "mean"]


@pytest.mark.parametrize("order", ["renamed", "without a logarithm"])
def test_structure_decides_and_not_names(order: str) -> None:
    model = convolutional()
    if order == "renamed":
        for index, node in enumerate(model.graph.node):
            node.name = f"n{index}"
        assert [node.name for node in body_nodes(model)] == [f"n{index}" for index in range(7, 13)]
        return
    (log,) = [node for node in model.graph.node if node.op_type == "Log"]
    log.op_type = "Tanh"
    names = [node.name for node in body_nodes(model)]
    # Then the first convolution is the first layer with weights, and all that follows it belongs to the body.
    assert names[:3] == ["front.basis", "front.power", "front.floor"]
    assert "front.channel" not in names


def test_a_later_logarithm_keeps_all_that_it_is_computed_from() -> None:
    model = convolutional()
    (mean,) = [node for node in model.graph.node if node.name == "mean"]
    mean.input[0] = "late"
    place = list(model.graph.node).index(mean)
    model.graph.node.insert(place, helper.make_node("Log", ["sum_relu"], ["late"], name="late"))
    assert [node.name for node in body_nodes(model)] == []


def test_nodes_get_names_of_their_own_and_the_model_stays_as_it_was() -> None:
    model = convolutional()
    for node in model.graph.node:
        node.name = "same" if node.op_type == "Conv" else ""
    before = model.SerializeToString()
    names = [node.name for node in named(model).graph.node]
    assert len(set(names)) == len(names)
    assert all(names)
    assert model.SerializeToString() == before
    onnx.checker.check_model(named(model), full_check=True)
