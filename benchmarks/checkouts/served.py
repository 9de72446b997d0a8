"""What a checkout's server answers: HTTP, KServe over both transports, its description and its metrics."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import httpx

from checkouts import guarded, http_calls, kserve_calls
from checkouts.checkout import Checkout
from checkouts.commands import predict_commands
from checkouts.comparison import ASIDE
from support.kserve_clients import face
from support.server_process import ServerProcess


def default_server(checkout: Checkout) -> dict[str, Any]:
    """Of a server as it is without settings: one answer for each call, by name."""
    with checkout.server() as server:
        answers = {
            "openapi.json": json.loads(httpx.get(f"{server.url}/openapi.json").content),
            **_http(server, http_calls.predictions(checkout.folder)),
            **_http(server, http_calls.pages()),
            **_http(server, http_calls.inferences()),
        }
        for transport in kserve_calls.TRANSPORTS:
            with face(transport, server.http, server.grpc) as client:
                for calls in (kserve_calls.lookups(), kserve_calls.inferences(checkout.folder)):
                    answers |= {f"{transport} {name}": kserve_calls.answer(client, call) for name, call in calls}
        for transport in kserve_calls.TRANSPORTS:
            with face(transport, server.http, server.grpc) as client:
                calls = kserve_calls.statistics()
                answers |= {f"{transport} {name}": kserve_calls.answer(client, call) for name, call in calls}
        for transport, url in (("http", server.url), ("grpc", f"grpc://{server.grpc}")):
            answers |= predict_commands(checkout, f"over {transport}", "--url", url)
        return {**answers, **metrics(httpx.get(f"{server.url}/metrics").text)}


def guarded_server(checkout: Checkout) -> dict[str, Any]:
    """Of a server with keys, load and unload, and small limits."""
    with checkout.server(**guarded.settings()) as server:
        answers = {f"guarded {name}": got for name, got in _http(server, guarded.calls(checkout.folder)).items()}
        for who, headers in (("nobody", {}), ("a caller", {"x-api-key": guarded.CALLER})):
            with face("grpc", server.http, server.grpc) as client:
                for name, call in (
                    ("metadata", lambda f, h=headers: f.client.get_server_metadata(headers=h)),
                    ("unload", lambda f, h=headers: f.client.unload_model("avdigits", headers=h)),
                ):
                    answers[f"guarded grpc {name} by {who}"] = kserve_calls.answer(client, call)
        shown = httpx.get(f"{server.url}/metrics", headers={"X-API-Key": guarded.CALLER}).text
        return {**answers, **{f"guarded {name}": found for name, found in metrics(shown).items()}}


def _http(server: ServerProcess, calls: Iterable[http_calls.HttpCall]) -> dict[str, Any]:
    with httpx.Client(base_url=server.url, timeout=60.0) as client:
        return {call.name: call.answer(client) for call in calls}


def metrics(text: str) -> dict[str, Any]:
    """Help text, type and every sample with its labels of each metric; of values the counts of requests and rows."""
    found: dict[str, Any] = {}
    metric = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            metric, _, words = line.removeprefix("# HELP ").partition(" ")
            found[f"metric {metric}"] = {"help": words, "type": "", "samples": {}}
        elif line.startswith("# TYPE "):
            found[f"metric {metric}"]["type"] = line.rsplit(" ", 1)[1]
        elif line:
            sample, _, value = line.rpartition(" ")
            counts = metric.startswith("dimml_") and sample.partition("{")[0].endswith(("_total", "_count"))
            found[f"metric {metric}"]["samples"][sample] = value if counts else ASIDE
    return found
