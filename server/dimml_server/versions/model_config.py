"""A model's Triton configuration: the repository's own ``config.pbtxt``, as protobuf and as Triton's JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from tritonclient.grpc import model_config_pb2

from dimml.errors import BundleError, RequestError
from dimml_server.versions.policy import NEWEST, VersionPolicy

CONFIG_NAME = "config.pbtxt"
_INT64 = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)


def read_config(repository: Path, model: str) -> model_config_pb2.ModelConfig:
    """Parse ``<repository>/<model>/config.pbtxt``. Raises BundleError naming the file."""
    relative = f"{model}/{CONFIG_NAME}"
    try:
        config = text_format.Parse((repository / relative).read_text("utf-8"), model_config_pb2.ModelConfig())
    except OSError as error:
        raise BundleError(f"cannot read {relative}: {error.strerror}", field=relative) from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise BundleError(f"{relative} is not a model configuration: {error}", field=relative) from error
    # Triton uses the folder's name if the file gives none.
    config.name = config.name or model
    return config


def parse_config_json(text: str, model: str) -> model_config_pb2.ModelConfig:
    """Parse the ``config`` of a load call: JSON, as ``config_json`` writes it. Raises RequestError."""
    try:
        return json_format.Parse(text, model_config_pb2.ModelConfig())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise RequestError(f"the config given for '{model}' is not a model configuration: {error}") from error


def version_policy_of(config: model_config_pb2.ModelConfig) -> VersionPolicy:
    """Return the version policy of a configuration; by default only the newest version."""
    choice = config.version_policy.WhichOneof("policy_choice")
    if choice == "all":
        return VersionPolicy()
    if choice == "specific" and config.version_policy.specific.versions:
        return VersionPolicy(specific=tuple(config.version_policy.specific.versions))
    if choice == "latest" and config.version_policy.latest.num_versions > 0:
        return VersionPolicy(latest=config.version_policy.latest.num_versions)
    return NEWEST


def platform_of(config: model_config_pb2.ModelConfig) -> str:
    """Return the ``platform`` of model metadata."""
    return str(config.platform or config.backend)


def config_json(config: model_config_pb2.ModelConfig) -> dict[str, Any]:
    """Convert a configuration as Triton's HTTP endpoint does: every field, and 64-bit integers as numbers."""
    document = json_format.MessageToDict(
        config, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    _restore_int64(document, config.DESCRIPTOR)
    return document


def _restore_int64(document: dict[str, Any], descriptor: Descriptor) -> None:
    # Protobuf's JSON mapping writes 64-bit integers as strings.
    for name, value in document.items():
        field = descriptor.fields_by_name[name]
        if field.cpp_type in _INT64:
            document[name] = [int(item) for item in value] if isinstance(value, list) else int(value)
        elif field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        else:
            for item in value if isinstance(value, list) else [value]:
                _restore_int64(item, field.message_type)
