"""The dashboard held to Grafana's own schema, as the models of Grafana's Foundation SDK have it."""

from __future__ import annotations

import copy
import json
import sys
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ConfigDict, TypeAdapter, ValidationError

from support.monitoring import DASHBOARD
from support.side_packages import side_packages

#: The last release for Grafana 11, whose schema is the dashboard's ``schemaVersion``. The SDK's versions go by the time
#: of their release, so a lower bound would mean nothing.
SDK = "grafana-foundation-sdk==1769699379!11.6.0"
#: Fields of Grafana that these models leave out: what the editor shows of a query of a variable, and two of annotations
#: from Prometheus (https://grafana.com/docs/grafana/latest/datasources/prometheus/).
LEFT_OUT = {
    *(f".templating.list[{index}].definition" for index in range(2)),
    *(f".annotations.list[{index}].{name}" for index in range(2) for name in ("titleFormat", "step")),
}


@pytest.fixture(scope="module")
def parse() -> Iterator[Callable[[Any], Any]]:
    """A dashboard's JSON as the SDK's model."""
    folder = str(side_packages(SDK))
    sys.path.insert(0, folder)
    try:
        from grafana_foundation_sdk.cog.plugins import register_default_plugins
        from grafana_foundation_sdk.models.dashboard import Dashboard

        register_default_plugins()
        yield Dashboard.from_json
    finally:
        sys.path.remove(folder)


def written(model: Any) -> Any:
    """The JSON that the SDK writes for a model."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    return json.loads(json.dumps(model, cls=JSONEncoder))


def lost(ours: Any, theirs: Any, at: str = "") -> Iterator[str]:
    """What we wrote and the model does not know, or takes for something else."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name, value in ours.items():
            if name in theirs:
                yield from lost(value, theirs[name], f"{at}.{name}")
            else:
                yield f"{at}.{name}"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(*pair, f"{at}[{index}]")
    elif ours != theirs:
        yield at


def misfits(model: Any, at: str = "") -> Iterator[str]:
    """Values that are not of the type that the model declares, which it does not look at itself."""
    if isinstance(model, dict | list):
        for name, value in model.items() if isinstance(model, dict) else enumerate(model):
            yield from misfits(value, f"{at}[{name}]")
    elif hasattr(model, "to_json"):
        for name, hint in typing.get_type_hints(type(model)).items():
            value = getattr(model, name)
            if isinstance(value, str | int | float):
                try:
                    # Of JSON, a strict validation takes the values of an enumeration.
                    adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
                    adapter.validate_json(json.dumps(value), strict=True)
                except ValidationError as error:
                    yield f"{at}.{name}: {error.errors()[0]['msg']}"
            yield from misfits(value, f"{at}.{name}")


def faults(dashboard: Any, parse: Callable[[Any], Any]) -> list[str]:
    """Every place where a dashboard is not what Grafana's schema says."""
    from grafana_foundation_sdk.cog.runtime import Runtime
    from grafana_foundation_sdk.models.prometheus import Dataquery

    model = parse(copy.deepcopy(dashboard))
    found = [*(set(lost(dashboard, written(model))) - LEFT_OUT), *misfits(model)]
    for index, (panel, own) in enumerate(zip(dashboard["panels"], model.panels, strict=True)):
        if panel["type"] != "row" and panel["type"] not in Runtime().panelcfg_variants:
            found.append(f".panels[{index}].type: {panel['type']}")
        if panel["type"] != "row" and not all(isinstance(target, Dataquery) for target in own.targets):
            found.append(f".panels[{index}].targets: not for Prometheus")
    return sorted(found)


def test_the_dashboard_is_of_grafanas_schema(parse: Callable[[Any], Any]) -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert dashboard["schemaVersion"] == 41
    assert faults(dashboard, parse) == []


def test_what_is_not_of_the_schema_is_seen(parse: Callable[[Any], Any]) -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    first, second = [panel for panel in dashboard["panels"] if panel["type"] == "stat"][:2]
    places = [dashboard["panels"].index(panel) for panel in (first, second)]
    first["gridPos"]["h"] = "6"
    first["fieldConfig"]["default"] = {}
    second["options"]["graphMode"] = "areas"
    second["type"] = "stats"
    second["datasource"]["type"] = second["targets"][0]["datasource"]["type"] = "prom"
    dashboard["templating"]["list"][0]["refresh"] = 7
    found = faults(dashboard, parse)
    one, two = (f".panels[{place}]" for place in places)
    assert f"{one}.fieldConfig.default" in found
    assert any(fault.startswith(f"{one}.grid_pos.h: ") for fault in found)
    assert f"{two}.type: stats" in found
    assert f"{two}.targets: not for Prometheus" in found
    assert any(fault.startswith(".templating.list_val[0].refresh: ") for fault in found)
