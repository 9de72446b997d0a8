"""Engine inside Triton: a bundle's encoders and fusion as models of the same server (business logic scripting)."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dimml.bundle import Bundle
from dimml.contract import FEATURES, FUSED_OUTPUTS, LOGITS, fused_from, fusion_inputs
from dimml.engine import Encoded, EngineError
from dimml.fusion import BoolArray, FloatArray, Fused
from dimml.status import Reason
from dimml.system.run_threads import RunThreads

#: Messages of Triton 2.51 for a model, or its process, that is not available.
_GONE: Final = re.compile(
    r"not ready|not found|no available versions|unknown model|not healthy|unloaded|shutting down|Stub process"
)
#: As many as the threads of Triton's Python backend for the calls of one instance.
_CALLS_AT_ONCE: Final = 32


class BlsEngine:
    """Engine that calls the models of the bundle's own version. It belongs to one event loop.

    Triton cannot cancel a call: after its caller has given up it goes on in its thread, as a stray run. A model with
    ``max_stray_runs`` of them fails at once, so that a stalled encoder never takes all threads. The threads are our
    own, since a loop or process that ends waits for those of ``async_exec`` (asyncio's).
    """

    def __init__(self, pb_utils: Any, *, max_stray_runs: int) -> None:
        self._pb_utils = pb_utils
        self._max_stray_runs = max_stray_runs
        self._threads = RunThreads("dimml-bls", _CALLS_AT_ONCE)
        self._strays: Counter[str] = Counter()
        self._cpu = pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0)

    async def encode(self, bundle: Bundle, modality: str, tensor: npt.NDArray[Any]) -> Encoded:
        """Run one encoder on ``[B, *modality.shape]``. Raises EngineError."""
        name = bundle.encoder(modality).modality.tensor
        outputs = await self._call(bundle.encoder_model(modality), bundle.version, {name: tensor}, (FEATURES, LOGITS))
        return Encoded(features=outputs[FEATURES], logits=outputs[LOGITS])

    async def fuse(
        self,
        bundle: Bundle,
        features: Mapping[str, FloatArray],
        logits: Mapping[str, FloatArray],
        present_BM: BoolArray,
    ) -> Fused:
        """Run the fusion graph. Raises EngineError."""
        tensors = fusion_inputs(bundle, features, logits, present_BM)
        return fused_from(await self._call(bundle.fusion_model, bundle.version, tensors, FUSED_OUTPUTS))

    def close(self) -> None:
        """End the threads once they are idle."""
        self._threads.close()

    async def _call(
        self, model: str, version: int, tensors: Mapping[str, npt.NDArray[Any]], outputs: tuple[str, ...]
    ) -> dict[str, FloatArray]:
        if self._strays[model] >= self._max_stray_runs:
            raise EngineError(Reason.ENCODER_BUSY, f"{self._strays[model]} calls that were late are still going")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[dict[str, FloatArray]] = loop.create_future()

        def finish(result: dict[str, FloatArray] | None, failure: Exception | None) -> None:
            if done.cancelled():
                self._strays[model] -= 1
            elif result is not None:
                done.set_result(result)
            else:
                done.set_exception(failure or EngineError(Reason.ENCODER_ERROR, "no outputs"))

        def work() -> Callable[[], None]:
            result, failure = None, None
            try:
                result = self._exec(model, version, tensors, outputs)
            except EngineError as error:
                failure = error
            except Exception as error:
                failure = EngineError(Reason.ENCODER_ERROR, str(error))
            return lambda: _report(loop, lambda: finish(result, failure))

        self._threads.submit(work)
        try:
            return await done
        except asyncio.CancelledError:
            self._strays[model] += 1
            raise

    def _exec(
        self, model: str, version: int, tensors: Mapping[str, npt.NDArray[Any]], outputs: tuple[str, ...]
    ) -> dict[str, FloatArray]:
        utils = self._pb_utils
        response = utils.InferenceRequest(
            model_name=model,
            model_version=version,
            requested_output_names=list(outputs),
            inputs=[utils.Tensor(name, np.ascontiguousarray(tensor)) for name, tensor in tensors.items()],
            preferred_memory=self._cpu,
        ).exec()
        if response.has_error():
            message = response.error().message()
            raise EngineError(Reason.ENCODER_GONE if _GONE.search(message) else Reason.ENCODER_ERROR, message)
        # Copied out of memory shared with Triton, which is released with the response.
        return {name: np.array(utils.get_output_tensor_by_name(response, name).as_numpy()) for name in outputs}


def _report(loop: asyncio.AbstractEventLoop, finish: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(finish)
    except RuntimeError:
        # The model was unloaded meanwhile.
        return
