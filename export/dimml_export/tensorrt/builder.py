"""The boundary to TensorRT: builds a plan and runs it. All other code runs on any machine.

It has never been run in development, which has no GPU; ``tests/export/tensorrt/test_calls.py`` checks every call
against the signatures of TensorRT's own bindings, versions 10 and 11.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from dimml.contract import FEATURES, LOGITS, ModelSpec
from dimml.errors import BundleError, SetupError
from dimml.system.installation import install_command
from dimml_export.tensorrt.device import Device, first_device

if TYPE_CHECKING:
    import tensorrt

#: Batch size that TensorRT optimises for. Requests arrive one or a few at a time; dynamic batching merges some.
_TUNED_BATCH: Final = 8

#: Rows ``[B, *shape]`` to (features ``[B, D]``, logits ``[B, C]``).
Run = Callable[[npt.NDArray[Any]], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Profile:
    """Range of shapes that a plan accepts for one input, batch first."""

    tensor: str
    smallest: tuple[int, ...]
    tuned: tuple[int, ...]
    largest: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Host:
    """The GPU and TensorRT version that a plan is bound to."""

    tensorrt: str
    device: Device


class PlanBuilder(Protocol):
    """Builds plans for the machine it runs on."""

    def host(self) -> Host:
        """Describe this host. Raises SetupError if no plan can be built here."""
        ...

    def build(
        self, model: bytes, profile: Profile, *, workspace_bytes: int, timing_cache: bytes
    ) -> tuple[bytes, bytes]:
        """Build a plan of an ONNX model; return it with the updated timing cache. The given one may be empty.

        Raises BundleError naming the node at fault, or with TensorRT's last error.
        """
        ...

    def runner(self, plan: bytes, tensor: str) -> Run:
        """Return a function that runs a plan whose input is ``tensor``. Raises BundleError if it does not load."""
        ...


def profile_of(spec: ModelSpec) -> Profile:
    """Return an encoder's range of shapes, from one row to ``max_batch_size``."""
    tensor, largest = spec.inputs[0], spec.max_batch_size
    shapes = [(batch, *tensor.dims) for batch in (1, min(_TUNED_BATCH, largest), largest)]
    return Profile(tensor.name, *shapes)


class TensorRTBuilder:
    """Builds plans with the installed TensorRT, for the first visible GPU. Implements ``PlanBuilder``."""

    def __init__(self) -> None:
        try:
            import tensorrt as trt
        except ImportError as error:
            raise SetupError(
                "TensorRT's Python package cannot be imported "
                f"({error}): on the host that will serve, pip install 'tensorrt==VERSION' of the version that its "
                "Triton has (docs/tensorrt.md)"
            ) from error
        # Needed only after a build, which takes minutes: report its absence before.
        if find_spec("polygraphy") is None:
            raise SetupError(f"comparing a plan needs polygraphy: {install_command('tensorrt')}")
        self._version = str(trt.__version__)
        self._errors: list[str] = []
        self._logger = _logger(self._errors)

    def host(self) -> Host:
        """Return TensorRT's version and the GPU. Raises SetupError for TensorRT below 10, or without a GPU."""
        if int(self._version.split(".", maxsplit=1)[0]) < 10:
            raise SetupError(f"TensorRT {self._version} is installed, plans need 10 or newer")
        return Host(self._version, first_device())

    def build(
        self, model: bytes, profile: Profile, *, workspace_bytes: int, timing_cache: bytes
    ) -> tuple[bytes, bytes]:
        """Implement ``PlanBuilder``."""
        import tensorrt as trt

        self._errors.clear()
        builder = trt.Builder(self._logger)
        # Batches are always explicit in TensorRT 10 and 11. 11 is always strongly typed, 10 needs the flag.
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(model):
            raise BundleError(_parser_errors(parser))
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
        # TF32 has FP16's ten bits of mantissa: with it, nodes kept in FP32 would lose their precision.
        config.clear_flag(trt.BuilderFlag.TF32)
        shapes = builder.create_optimization_profile()
        shapes.set_shape(profile.tensor, trt.Dims(profile.smallest), trt.Dims(profile.tuned), trt.Dims(profile.largest))
        if config.add_optimization_profile(shapes) < 0:
            raise BundleError(self._last_words("refused the range of batch sizes"))
        cache = config.create_timing_cache(timing_cache)
        # A cache of another GPU or version does not fit, and is ignored: a cache only saves time.
        if not config.set_timing_cache(cache, False):
            config.set_timing_cache(config.create_timing_cache(b""), False)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise BundleError(self._last_words("built no plan"))
        return _copied(plan), _copied(config.get_timing_cache().serialize())

    def runner(self, plan: bytes, tensor: str) -> Run:
        """Implement ``PlanBuilder``."""
        import tensorrt as trt

        self._errors.clear()
        runtime = trt.Runtime(self._logger)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BundleError(self._last_words("does not load the plan it built"))
        return _Runner(runtime, engine, tensor)

    def _last_words(self, what: str) -> str:
        return f"TensorRT {what}: {self._errors[-1] if self._errors else 'it does not say why'}"


class _Runner:
    """Runs a plan; polygraphy copies to the GPU and back."""

    def __init__(self, runtime: tensorrt.Runtime, engine: tensorrt.ICudaEngine, tensor: str) -> None:
        # An engine must not outlive its runtime.
        self._runtime = runtime
        self._engine = engine
        self._tensor = tensor

    def __call__(self, rows: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        from polygraphy.backend.trt import TrtRunner

        with TrtRunner(self._engine) as runner:
            outputs: Mapping[str, Any] = runner.infer({self._tensor: np.ascontiguousarray(rows)})
            # Copies: the runner reuses its buffers.
            return np.array(outputs[FEATURES], np.float32), np.array(outputs[LOGITS], np.float32)


def _copied(memory: Any) -> bytes:
    """Copy the bytes of an ``IHostMemory``, by the buffer protocol, which pybind11's signatures do not show."""
    return bytes(memory)


def _parser_errors(parser: tensorrt.OnnxParser) -> str:
    """Format all errors of the parser, by node, in one line."""
    said = []
    for index in range(parser.num_errors):
        error: tensorrt.ParserError = parser.get_error(index)
        said.append(f"node {error.node_name() or error.node()!r} ({error.node_operator()}): {error.desc()}")
    return "TensorRT cannot read the ONNX model: " + (
        "; ".join(" ".join(text.split()) for text in said) or "it does not say why"
    )


def _logger(errors: list[str]) -> tensorrt.ILogger:
    """Make a logger that keeps errors, one line each, and drops the rest."""
    import tensorrt as trt

    class Keeper(trt.ILogger):  # type: ignore[misc]  # TensorRT ships no types
        def __init__(self) -> None:
            # pybind11 requires its base to be initialised by name.
            trt.ILogger.__init__(self)

        def log(self, severity: tensorrt.ILogger.Severity, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                errors.append(" ".join(message.split()))

    return Keeper()
