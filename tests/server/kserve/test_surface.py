"""What importing and describing the KServe v2 surface brings along."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import grpc
import numpy as np
import pytest
from tritonclient.utils import np_to_triton_dtype

import dimml.errors
from dimml.contract import NUMPY_TYPES, Datatype, datatype_of
from dimml.errors import CapacityError, DimmlError, RequestError
from dimml_server.kserve.grpc import server as kserve_grpc
from dimml_server.observability.metrics import Metrics
from dimml_server.process.http_app import create_app
from dimml_server.process.wiring import build_service
from dimml_server.security.guard import Guard
from dimml_server.settings.settings import load_settings

DOCS = Path(__file__).parents[3] / "docs" / "kserve.md"


def test_importing_it_loads_no_client_and_no_torch() -> None:
    script = (
        "import sys, dimml_server.kserve.http.routes, dimml_server.kserve.grpc.server\n"
        "unwanted = {'torch', 'gevent', 'geventhttpclient', 'aiohttp', 'tritonclient.http', 'dimml_export'}\n"
        "print(sorted(unwanted & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "[]"


def test_every_datatype_of_the_contract_has_a_codec() -> None:
    assert set(NUMPY_TYPES) == set(get_args(Datatype))


def test_datatypes_are_what_tritonclient_takes_numpy_for() -> None:
    for datatype, dtype in NUMPY_TYPES.items():
        assert np_to_triton_dtype(dtype) == datatype
        assert datatype_of(dtype) == datatype_of(dtype.newbyteorder(">")) == datatype
    with pytest.raises(KeyError):
        datatype_of(np.dtype(np.complex64))


def _errors() -> list[type[DimmlError]]:
    found = [value for value in vars(dimml.errors).values() if isinstance(value, type)]
    return [kind for kind in found if issubclass(kind, RequestError | CapacityError)]


@pytest.mark.parametrize("kind", _errors())
def test_every_error_has_a_grpc_status_that_is_documented(kind: type[DimmlError]) -> None:
    code = next(kserve_grpc.STATUS_CODES[base] for base in kind.__mro__ if base in kserve_grpc.STATUS_CODES)
    assert code is not grpc.StatusCode.INTERNAL
    assert code.name in DOCS.read_text()


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    settings = load_settings(repository=tmp_path, decode_workers=1)
    metrics = Metrics()
    service = build_service(settings, metrics)
    try:
        return create_app(service, metrics, settings, Guard(settings)).openapi()
    finally:
        asyncio.run(service.close())


def test_openapi_describes_inference_without_a_warning(document: dict[str, Any]) -> None:
    infer = document["paths"]["/v2/models/{model}/infer"]["post"]
    assert set(infer["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
    assert {"200", "400", "404", "408", "413", "422", "429", "500", "503", "504"} <= set(infer["responses"])
    assert "/v2/models/{model}/versions/{version}/infer" in document["paths"]


def test_openapi_lists_what_a_model_path_answers_and_nothing_else(document: dict[str, Any]) -> None:
    found = {path: set(methods["get"]["responses"]) for path, methods in document["paths"].items() if "get" in methods}
    of_model = [path for path in found if path.startswith("/v2/models/{model}")]
    assert len(of_model) == 8
    for path in of_model:
        assert found[path] == {"200", "400", "401", "404", "422", "500", "503", "default"}, path
    assert found["/v2/health/ready"] == {"200", "503"}


def test_every_path_is_documented(document: dict[str, Any]) -> None:
    text = DOCS.read_text().replace("[/versions/{v}]", "")
    for path in document["paths"]:
        if path.startswith("/v2"):
            assert path.replace("/versions/{version}", "").replace("{model}", "{m}") in text
