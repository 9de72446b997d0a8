"""Writer that adds a bundle version to a Triton model repository, whole or not at all.

Everything is written in ``<name>/.staging-<version>/`` and moved into place model by model, the manifest
last: before that last rename no reader sees the version, after it the version is whole. The staging folder lies
inside the entry model's folder because Triton takes every folder at the top of a repository for a model, hidden
or not, but ignores folders in a model that are not numbers.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import onnx

from dimml.bundle import MANIFEST_NAME, Bundle, FileRecord, file_sha256, read_bundle
from dimml.contract import SET_OUTPUTS, ModelSpec, Role, model_specs
from dimml.errors import BundleError
from dimml.repository import versions
from dimml.system.files import exclusive_lock
from dimml_export.model_config import CONFIG_NAME, model_config, read_model_config, tensors_differ
from dimml_export.onnx_graph import element_type
from dimml_export.tensorrt.config import TensorRT, uses_tensorrt
from dimml_export.tensorrt.operators import check_operators
from dimml_export.tensorrt.samples import SAMPLES_NAME, Samples, samples_bytes

_LOCK_NAME: Final = ".dimml-export.lock"
#: Files of the models that Triton's Python backend runs, and their imports.
ENTRY_FILE_NAME: Final = "model.py"
_ENTRY_CLASSES: Final[Mapping[Role, tuple[str, str]]] = {
    "entry": ("dimml.triton.entry", "EntryModel"),
    "media": ("dimml.triton.media", "MediaModel"),
}
_STAGING_PREFIX: Final = ".staging-"
#: Protobuf's own limit on one message, hence on a model.onnx without external data.
_MAX_ONNX_BYTES: Final = 2**31 - 1
_TENSORRT_WORDS: Final = {None: "nothing of TensorRT", "accelerator": "TensorRT by provider", "plan": "TensorRT plans"}
_TENSORRT_FLAGS: Final = {
    None: "without --tensorrt",
    "accelerator": "with --tensorrt accelerator",
    "plan": "with --tensorrt plan",
}


def write_bundle(
    repository: Path,
    draft: Bundle,
    encoder_models: Mapping[str, onnx.ModelProto],
    fusion: onnx.ModelProto,
    *,
    tensorrt: TensorRT | None = None,
    samples: Samples | None = None,
) -> Bundle:
    """Write ``draft`` with its models as the next version of its name; return the manifest as written.

    ``encoder_models`` are by modality. ``draft.version`` and ``draft.files`` are ignored: the version is one above
    every version that any of the bundle's models has, and files are hashed as written. An existing ``config.pbtxt`` is
    kept as it is, since operators edit it. Concurrent calls wait for each other, and leftovers of a crashed one are
    removed. ``tensorrt`` is how encoders use TensorRT; ``samples`` are clips by modality, stored beside each encoder
    for the build of its plan.

    Raises BundleError, with nothing left behind, if a model does not have the contract's tensors, if the name is taken
    by a bundle with other tensors, or if the repository cannot be written.
    """
    specs = model_specs(draft)
    models = {
        **{draft.encoder_model(modality): model for modality, model in encoder_models.items()},
        draft.fusion_model: fusion,
    }
    for spec in specs:
        if spec.role in ("encoder", "fusion"):
            _check_model(models.get(spec.name), spec)
        if spec.role == "encoder" and tensorrt == "plan":
            check_operators(models[spec.name])
    try:
        repository.mkdir(parents=True, exist_ok=True)
        with locked(repository):
            _clear_crashed(repository, draft.name)
            check_name(repository, draft, tensorrt)
            return _write(repository, draft, specs, models, tensorrt=tensorrt, samples=samples or {})
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise BundleError(
            f"cannot write bundle {draft.name!r} into {repository}: {error.strerror}{where}; nothing was exported"
        ) from error


def check_name(
    repository: Path, draft: Bundle, tensorrt: TensorRT | None = None, *, reduced: bool | None = None
) -> None:
    """Raise BundleError if existing models with the draft's names have other tensors than its own.

    Version N+1 can replace N in service only with the same tensors and, since its configuration stays, the same use of
    TensorRT, which quantises by itself: encoders in reduced precision (``reduced``, by default the draft's) are refused
    beside it. ``write_bundle`` checks this too; checking first avoids a futile export.
    """
    reduced = draft.reduced_precision is not None if reduced is None else reduced
    for spec in model_specs(draft):
        path = repository / spec.name / CONFIG_NAME
        if not path.exists():
            continue
        config = read_model_config(path)
        if difference := tensors_differ(config, spec):
            raise BundleError(
                f"{path} belongs to another model: {difference}; export under another name (--name)", field="name"
            )
        there = uses_tensorrt(config)
        if spec.role == "encoder" and reduced and there is not None:
            raise BundleError(
                f"{path} says {_TENSORRT_WORDS[there]}, which reduces precision by itself, and an existing "
                "configuration is kept: export without --precision, or under another name (--name)",
                field="precision",
            )
        # A plain export into a configuration with the accelerator is served with it, as the operator configured.
        if spec.role == "encoder" and there != tensorrt and (tensorrt is not None or there == "plan"):
            raise BundleError(
                f"{path} says {_TENSORRT_WORDS[there]}, and an existing configuration is kept: export "
                f"{_TENSORRT_FLAGS[there]}, or under another name (--name)",
                field="tensorrt",
            )


def version_with(
    repository: Path, draft: Bundle, encoder_models: Mapping[str, onnx.ModelProto], fusion: onnx.ModelProto
) -> int | None:
    """Look for the newest version of the draft's name that has exactly these models; None if there is none."""
    models = {draft.encoder_model(modality): model for modality, model in encoder_models.items()}
    models[draft.fusion_model] = fusion
    wanted = {name: hashlib.sha256(model.SerializeToString()).hexdigest() for name, model in models.items()}
    for version in sorted(versions(repository, draft.name), reverse=True):
        with suppress(BundleError):
            files = read_bundle(repository / draft.name / str(version) / MANIFEST_NAME).files
            there = {name: files.get(f"{name}/{version}/model.onnx") for name in wanted}
            if all(record is not None and record.sha256 == wanted[name] for name, record in there.items()):
                return version
    return None


def missing_outputs(repository: Path, draft: Bundle) -> list[str]:
    """Say of which existing configurations Triton would not give the draft's prediction sets, and the way out."""
    lacking = []
    for spec in model_specs(draft):
        path = repository / spec.name / CONFIG_NAME
        wanted = {tensor.name for tensor in spec.outputs}.intersection(SET_OUTPUTS)
        if wanted and path.exists() and not wanted <= {o.name for o in read_model_config(path).output}:
            lacking.append(spec.name)
    if not lacking:
        return []
    return [
        f"Triton will not give the prediction sets: an existing {CONFIG_NAME} is kept, and that of "
        f"{' and '.join(lacking)} has no outputs {', '.join(SET_OUTPUTS)}; add them (docs/abstention.md), or export "
        "under another name (--name). `dimml serve` needs nothing"
    ]


def _write(
    repository: Path,
    draft: Bundle,
    specs: tuple[ModelSpec, ...],
    models: Mapping[str, onnx.ModelProto],
    *,
    tensorrt: TensorRT | None,
    samples: Samples,
) -> Bundle:
    version = 1 + max((v for spec in specs for v in versions(repository, spec.name)), default=0)
    entry = repository / draft.name
    staging = entry / f"{_STAGING_PREFIX}{version}"
    with ExitStack() as undo:
        if not entry.exists():
            entry.mkdir()
            undo.callback(_remove, entry)
        staging.mkdir()
        undo.callback(_remove, staging)

        files: dict[str, FileRecord] = {}
        for spec in specs:
            folder = staging / spec.name
            folder.mkdir()
            _write_file(folder / CONFIG_NAME, model_config(spec, tensorrt).encode())
            if spec.name in models:
                contents = {"model.onnx": models[spec.name].SerializeToString()}
                if tensorrt == "plan" and spec.modality is not None and spec.modality in samples:
                    contents[SAMPLES_NAME] = samples_bytes(samples[spec.modality])
            else:
                contents = {ENTRY_FILE_NAME: entry_file(spec.role).encode()}
            (folder / str(version)).mkdir()
            for name, content in contents.items():
                path = folder / str(version) / name
                _write_file(path, content)
                files[path.relative_to(staging).as_posix()] = FileRecord(
                    sha256=file_sha256(path), bytes=path.stat().st_size
                )
        bundle = Bundle.model_validate(draft.model_dump() | {"version": version, "files": files})
        manifest = staging / draft.name / str(version) / MANIFEST_NAME
        _write_file(manifest, (bundle.model_dump_json(indent=2) + "\n").encode())

        # The entry model, whose version folder holds the manifest, is moved last.
        for spec in sorted(specs, key=lambda spec: spec.role == "entry"):
            _publish(staging / spec.name, repository / spec.name, str(version), undo)
        undo.pop_all()
    _remove(staging)
    return bundle


def _publish(staged: Path, target: Path, version: str, undo: ExitStack) -> None:
    """Move one model's folder into place; if it already exists, only what it lacks."""
    if not target.exists():
        staged.rename(target)
        undo.callback(_remove, target)
        return
    if not (target / CONFIG_NAME).exists():
        (staged / CONFIG_NAME).rename(target / CONFIG_NAME)
        undo.callback((target / CONFIG_NAME).unlink, missing_ok=True)
    if (staged / version).exists():
        undo.callback(_remove, target / version)
        (staged / version).rename(target / version)


def _check_model(model: onnx.ModelProto | None, spec: ModelSpec) -> None:
    """Check that an ONNX model has the tensors of ``spec``, a free batch dimension, and fits in one file."""
    if model is None:
        raise BundleError(f"no ONNX model for {spec.name}")
    if model.ByteSize() > _MAX_ONNX_BYTES:
        raise BundleError(f"{spec.name}: an ONNX file holds at most 2 GiB; use a smaller encoder")
    for what, values, tensors in (
        ("inputs", model.graph.input, spec.inputs),
        ("outputs", model.graph.output, spec.outputs),
    ):
        there = {
            value.name: (value.type.tensor_type.elem_type, [d.dim_value for d in value.type.tensor_type.shape.dim])
            for value in values
        }
        wanted = {tensor.name: (element_type(tensor.datatype), [0, *tensor.dims]) for tensor in tensors}
        if there != wanted:
            raise BundleError(f"{spec.name}: the ONNX model's {what} are {there}, the contract says {wanted}")


def _clear_crashed(repository: Path, name: str) -> None:
    """Remove what a killed export left behind. The caller holds the lock, so no export is running."""
    for staging in (repository / name).glob(f"{_STAGING_PREFIX}*"):
        version = staging.name.removeprefix(_STAGING_PREFIX)
        staged_manifest = staging / name / version / MANIFEST_NAME
        # Once the manifest has moved, the version is complete and only the empty staging folder is left. Before the
        # manifest is written, nothing has moved.
        with suppress(BundleError):
            crashed = read_bundle(staged_manifest)
            for spec in model_specs(crashed):
                folder = repository / spec.name
                _remove(folder / version)
                if not versions(repository, name if spec.role == "media" else spec.name):
                    (folder / CONFIG_NAME).unlink(missing_ok=True)
                    _remove_empty(folder)
        _remove(staging)
    _remove_empty(repository / name)


@contextmanager
def locked(repository: Path) -> Iterator[None]:
    """Hold the repository's lock, waiting for it; the kernel frees it when a process dies."""
    with exclusive_lock(repository / _LOCK_NAME):
        yield


def _write_file(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def entry_file(role: Role) -> str:
    """Return the ``model.py`` of an entry or media model: the same for every bundle and version."""
    module, name = _ENTRY_CLASSES[role]
    return (
        '"""Written by `dimml export`, for Triton\'s Python backend; dimml\'s core must be installed there."""\n\n'
        f"from {module} import {name} as TritonPythonModel\n\n"
        '__all__ = ["TritonPythonModel"]\n'
    )
