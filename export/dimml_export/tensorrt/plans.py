"""Build of the plans of bundles that were exported for TensorRT, on the host that will serve them.

A plan is written beside its ONNX model, then recorded in the manifest; a plan to be replaced is removed from the
manifest first. So whenever the build is stopped, ``Bundle.verify`` succeeds, and the next run builds what is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import onnx

from dimml.bundle import MANIFEST_NAME, Bundle, FileRecord, PlanRecord, file_sha256, read_bundle
from dimml.contract import ModelSpec, model_specs
from dimml.errors import BundleError
from dimml.repository import bundle_names, bundle_versions
from dimml.system.files import StrPath, write_atomically
from dimml_export.model_config import CONFIG_NAME, read_model_config
from dimml_export.repository_writer import locked
from dimml_export.tensorrt.builder import Host, PlanBuilder, profile_of
from dimml_export.tensorrt.config import uses_tensorrt
from dimml_export.tensorrt.graph import Precision, network_model
from dimml_export.tensorrt.plan_parity import check_plan
from dimml_export.tensorrt.samples import SAMPLES_NAME, read_samples

#: The file that Triton's TensorRT backend looks for.
PLAN_NAME: Final = "model.plan"
TIMING_CACHE_NAME: Final = ".dimml-timing-cache"
WORKSPACE_BYTES: Final = 2**30


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """Options of a build."""

    precision: Precision = "fp16"
    #: GPU memory that TensorRT may use while it tries kernels.
    workspace_bytes: int = WORKSPACE_BYTES
    #: File of the timing cache; by default in the repository.
    timing_cache: Path | None = None
    #: Build even plans that exist.
    force: bool = False


@dataclass(frozen=True, slots=True)
class BuiltPlan:
    """Result of one encoder's plan."""

    bundle: str
    version: int
    model: str
    outcome: Literal["built", "kept"]
    megabytes: float
    record: PlanRecord

    def as_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for JSON."""
        return {**asdict(self), "record": self.record.model_dump()}


def build_plans(
    repository: StrPath,
    builder: PlanBuilder,
    options: PlanOptions,
    *,
    name: str | None = None,
    version: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[BuiltPlan]:
    """Build the plans of bundle ``name``, or of all that were exported for plans; newest version by default.

    An intact plan, built from the same model in the same precision by the same TensorRT for the same GPU, is kept
    unless ``options.force``. ``say`` is called with progress messages. Raises SetupError if no plan can be built on
    this machine, and BundleError, naming the model, if one cannot be read or built, or differs from its ONNX model:
    plans before it stay, and its own is not written.
    """
    repository = Path(repository)
    names = bundle_names(repository) if name is None else [name]
    chosen = [bundle for bundle in names if _wants_plans(repository, bundle, version)]
    if not chosen:
        what = f"bundle {name!r}" if name else "any bundle"
        raise BundleError(
            f"{repository}: {what} is not there for TensorRT plans: export with --tensorrt plan", field="bundle"
        )
    site = _Site(repository, builder, builder.host(), options, say)
    done = []
    with locked(repository):
        for bundle in chosen:
            done += _build_bundle(site, bundle, version)
    return done


@dataclass(frozen=True, slots=True)
class _Site:
    """Where plans are built, and how."""

    repository: Path
    builder: PlanBuilder
    host: Host
    options: PlanOptions
    say: Callable[[str], None]


def _wants_plans(repository: Path, name: str, version: int | None) -> bool:
    known = bundle_versions(repository, name)
    if not known or (version is not None and version not in known):
        return False
    manifest = read_bundle(_manifest_path(repository, name, version or known[-1]))
    configs = [repository / manifest.encoder_model(m.name) / CONFIG_NAME for m in manifest.modalities]
    return all(path.exists() and uses_tensorrt(read_model_config(path)) == "plan" for path in configs)


def _build_bundle(site: _Site, name: str, version: int | None) -> list[BuiltPlan]:
    repository, host = site.repository, site.host
    number = version or bundle_versions(repository, name)[-1]
    bundle = read_bundle(_manifest_path(repository, name, number))
    # Plans themselves are checked one by one: a damaged one is built again.
    _without(bundle, *bundle.plans).verify(repository)
    done = []
    for spec in model_specs(bundle):
        if spec.role != "encoder":
            continue
        path = f"{spec.name}/{number}/{PLAN_NAME}"
        outcome: Literal["built", "kept"] = "kept"
        if site.options.force or not _is_done(site, bundle, path, spec):
            outcome = "built"
            site.say(f"building {spec.name} for {host.device.name}")
            try:
                bundle = _build(site, bundle, spec, path)
            except BundleError as error:
                message = error.message if error.message.startswith(spec.name) else f"{spec.name}: {error.message}"
                raise BundleError(message, field=path) from error
        size = bundle.files[path].bytes / 1e6
        done.append(BuiltPlan(name, number, spec.name, outcome, size, bundle.plans[path]))
    return done


def _is_done(site: _Site, bundle: Bundle, path: str, spec: ModelSpec) -> bool:
    host = site.host
    record, file = bundle.plans.get(path), bundle.files.get(path)
    if record is None or file is None:
        return False
    there = (record.tensorrt, record.gpu, record.compute_capability, record.precision, record.onnx_sha256)
    wanted = (
        host.tensorrt,
        host.device.name,
        host.device.compute_capability,
        site.options.precision,
        _onnx_sha256(bundle, spec),
    )
    plan = site.repository / path
    whole = plan.is_file() and file_sha256(plan) == file.sha256
    return there == wanted and whole


def _build(site: _Site, bundle: Bundle, spec: ModelSpec, path: str) -> Bundle:
    """Build, compare and write one plan; return the updated manifest."""
    repository, host, options = site.repository, site.host, site.options
    exported = bundle.model_file(repository, spec.name).read_bytes()
    samples = repository / spec.name / str(bundle.version) / SAMPLES_NAME
    if not samples.exists():
        raise BundleError(
            f"{samples} is not there: without clips the plan cannot be compared; export again with --tensorrt plan"
        )
    network = network_model(onnx.load_from_string(exported), options.precision)
    cache = options.timing_cache or repository / TIMING_CACHE_NAME
    plan, timings = site.builder.build(
        network.SerializeToString(),
        profile_of(spec),
        workspace_bytes=options.workspace_bytes,
        timing_cache=cache.read_bytes() if cache.exists() else b"",
    )
    _replace(cache, timings)
    parity = check_plan(
        spec.name,
        exported,
        site.builder.runner(plan, spec.inputs[0].name),
        read_samples(samples),
        precision=options.precision,
        max_batch_size=bundle.max_batch_size,
    )
    record = PlanRecord(
        tensorrt=host.tensorrt,
        gpu=host.device.name,
        compute_capability=host.device.compute_capability,
        precision=options.precision,
        onnx_sha256=_onnx_sha256(bundle, spec),
        built=datetime.now(UTC).isoformat(timespec="seconds"),
        parity=parity,
    )
    if path in bundle.files:
        bundle = _without(bundle, path)
        _write_manifest(repository, bundle)
    target = repository / path
    _replace(target, plan)
    file = FileRecord(sha256=file_sha256(target), bytes=len(plan))
    bundle = bundle.model_copy(update={"files": {**bundle.files, path: file}, "plans": {**bundle.plans, path: record}})
    _write_manifest(repository, bundle)
    return bundle


def _onnx_sha256(bundle: Bundle, spec: ModelSpec) -> str:
    return bundle.files[f"{spec.name}/{bundle.version}/model.onnx"].sha256


def _without(bundle: Bundle, *paths: str) -> Bundle:
    """Return the manifest without these plans."""
    return bundle.model_copy(
        update={
            "files": {path: file for path, file in bundle.files.items() if path not in paths},
            "plans": {path: plan for path, plan in bundle.plans.items() if path not in paths},
        }
    )


def _manifest_path(repository: Path, name: str, version: int) -> Path:
    return repository / name / str(version) / MANIFEST_NAME


def _write_manifest(repository: Path, bundle: Bundle) -> None:
    path = _manifest_path(repository, bundle.name, bundle.version)
    _replace(path, (bundle.model_dump_json(indent=2) + "\n").encode())


def _replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: readers see the one before or this one."""
    try:
        write_atomically(path, data, durable=True)
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror}") from error
