"""Server and model metadata, configuration and versions, as KServe v2 describes them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from tritonclient.grpc import model_config_pb2

import dimml
from dimml.contract import ModelSpec, TensorSpec
from dimml.errors import NotFoundError, RequestError
from dimml_server.versions.model_config import platform_of, read_config
from dimml_server.versions.registry import BundleRegistry, ServedModel

SERVER_NAME: Final = "dimml"
#: Triton's extensions of which every call works here; ``docs/kserve.md`` lists what other extensions lack.
EXTENSIONS: Final = ("classification", "model_configuration", "binary_tensor_data", "parameters", "statistics")
#: Extensions of which every call works if ``model_control`` is ``explicit``.
CONTROL_EXTENSIONS: Final = ("model_repository", "model_repository(unload_dependents)")


#: Gives the ``ModelStatistics`` messages of models, by name and version.
ModelStats = Callable[[Sequence[tuple[str, int]]], Awaitable[list[dict[str, Any]]]]


class Catalog:
    """Answers from the registry of loaded bundles, and from their ``config.pbtxt`` in the repository.

    Returned dictionaries are the protocol's messages, the same for JSON and protobuf.
    """

    def __init__(self, registry: BundleRegistry, repository: Path, model_stats: ModelStats) -> None:
        self._registry = registry
        self._repository = repository
        self._model_stats = model_stats

    def find(self, name: str, version: str) -> ServedModel:
        """Look up a model by name; an empty version is the bundle's default.

        Raises NotFoundError, RequestError, and UnavailableError if the model may still be loading.
        """
        if version and not (version.isascii() and version.isdigit() and len(version) <= 18 and int(version) > 0):
            raise RequestError(
                f"failed to get model version from specified version string '{version[:40]}', version should be an "
                "integral value > 0"
            )
        try:
            return self._registry.model(name, int(version) if version else None)
        except NotFoundError as error:
            which = f"'{name}' version {version}" if version else f"'{name}'"
            raise NotFoundError(f"Request for unknown model: {which} is not found", field=error.field) from error

    def server_metadata(self, *, controlled: bool) -> dict[str, Any]:
        """Build ``ServerMetadataResponse``; ``controlled``: whether models may be loaded and unloaded."""
        extensions = [*EXTENSIONS, *(CONTROL_EXTENSIONS if controlled else ())]
        return {"name": SERVER_NAME, "version": dimml.__version__, "extensions": extensions}

    def model_metadata(self, name: str, version: str) -> dict[str, Any]:
        """Build ``ModelMetadataResponse``: shapes start with the batch. Raises NotFoundError, BundleError."""
        served = self.find(name, version)
        versions = [str(other.version) for other in self._registry.models() if other.spec.name == name]
        return {
            "name": name,
            "versions": versions,
            "platform": platform_of(self.config(name, version)),
            "inputs": [_tensor(served.spec, tensor) for tensor in served.spec.inputs],
            "outputs": [_tensor(served.spec, tensor) for tensor in served.spec.outputs],
        }

    def config(self, name: str, version: str) -> model_config_pb2.ModelConfig:
        """Read a model's ``config.pbtxt``; an entry or media model's has the meaning of its outputs as ``parameters``.

        ``labels``, ``modalities`` and ``heads`` are JSON lists, in the order of PROBABILITIES, STATUS and WEIGHTS;
        ``tensors`` gives each modality's input; ``prediction_sets`` stands where the bundle has these. They come from
        this version's manifest, since the file is shared by all versions. Raises NotFoundError, BundleError.
        """
        served = self.find(name, version)
        config = read_config(self._repository, name)
        if served.spec.role in ("entry", "media"):
            bundle = served.bundle
            meanings: dict[str, object] = {
                "labels": bundle.labels,
                "modalities": [modality.name for modality in bundle.modalities],
                "heads": bundle.heads,
                "tensors": {modality.name: modality.tensor for modality in bundle.modalities},
            }
            if (sets := bundle.prediction_sets) is not None:
                meanings["prediction_sets"] = sets.summary()
            for key, meaning in meanings.items():
                config.parameters[key].string_value = json.dumps(meaning)
        return config

    async def statistics(self, name: str = "", version: str = "") -> dict[str, Any]:
        """Build ``ModelStatisticsResponse`` for one model (or one version of it), or for all. Raises NotFoundError."""
        if not name:
            self._registry.check_loaded()
        chosen = self._registry.models()
        if name:
            newest = self.find(name, version)
            chosen = [newest] if version else [served for served in chosen if served.spec.name == name]
        return {"model_stats": await self._model_stats([(m.spec.name, m.version) for m in chosen])}


def _tensor(spec: ModelSpec, tensor: TensorSpec) -> dict[str, Any]:
    batch = [-1] if spec.max_batch_size else []
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": [*batch, *tensor.dims]}
