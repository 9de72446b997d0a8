"""What ``dimml export`` prints of an export."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from dimml.bundle import Bundle, ReducedPrecision
from dimml.contract import LOGITS
from dimml.system.cpu import int8_instructions
from dimml_export.export import Exported


def show_exported(exported: Exported) -> None:
    """Print the models, how closely they match the trained ones, what reduced precision costs, and the warnings."""
    console = Console(highlight=False)
    bundle = exported.bundle
    onnx = {path: record for path, record in bundle.files.items() if path.endswith(".onnx")}
    megabytes = {path.split("/")[0]: record.bytes / 1e6 for path, record in onnx.items()}
    table = Table("model", "MB", "compared with", "at batch", "largest logit difference", box=None, pad_edge=False)
    for model, against in dict.fromkeys((parity.model, parity.against) for parity in exported.parity):
        compared = [parity for parity in exported.parity if (parity.model, parity.against) == (model, against)]
        batches = ", ".join(str(parity.batch) for parity in compared)
        largest = max(parity.differences[LOGITS] for parity in compared)
        size = f"{megabytes[model]:.2f}" if model in megabytes else ""
        table.add_row(model if size else f"{model} (all)", size, against, batches, f"{largest:.1e}")
    console.print(f"[bold]{bundle.name}[/bold] version {bundle.version} in {exported.repository}", soft_wrap=True)
    console.print(table)
    if bundle.reduced_precision is None:
        clips = exported.parity[0].clips
        console.print(
            f"on {clips} clips every label equals the trained model's; "
            f"{bundle.classes} labels, heads: {', '.join(bundle.heads)}"
        )
    else:
        _show_reduced(console, bundle, bundle.reduced_precision)
    for warning in exported.warnings:
        console.print(f"[yellow]warning:[/yellow] {warning}", soft_wrap=True)
    console.print(f"serve it: dimml serve --repository {exported.repository}", soft_wrap=True)


def processor_remark(there: tuple[str, ...] | None) -> str:
    """Say whether a processor with these instructions is one for int8; None: they cannot be read."""
    if there is None:
        return "whether this processor has VNNI or AMX, which int8 is for, cannot be read here"
    if there:
        return f"this processor has {', '.join(there)}: int8 is for such ones"
    return (
        "this processor has neither VNNI nor AMX: int8 may be slower than fp32 here; serve it on one that has, or "
        "measure"
    )


def _show_reduced(console: Console, bundle: Bundle, reduced: ReducedPrecision) -> None:
    kept = ", ".join(
        f"{modality} {len(left)} of {reduced.layers[modality] + len(left)}"
        for modality, left in reduced.left_in_float.items()
    )
    beside = f"; layers left in fp32: {kept}" if kept else ""
    console.print(
        f"encoders in {reduced.precision}, judged on {reduced.clips} validation clips{beside}", soft_wrap=True
    )
    table = Table("", "accuracy in fp32", reduced.precision, "ECE in fp32", reduced.precision, "same label")
    agreement = reduced.after["agreement"]
    for name, before, after in (
        *((head, own, reduced.after["heads"][head]) for head, own in reduced.before["heads"].items()),
        ("answer", reduced.before, reduced.after),
    ):
        table.add_row(name, *_row(before, after), f"{agreement[name]:.1%}")
    console.print(table)
    if reduced.precision == "int8":
        console.print(processor_remark(int8_instructions()), soft_wrap=True)
    else:
        console.print("fp16 is for GPUs; it was judged on the processor, which computes it in fp32", soft_wrap=True)
    console.print(
        f"version {reduced.float_version} is the same in fp32. Without a default set, version {bundle.version} answers "
        f"as soon as it is loaded: `dimml models default {bundle.name} {reduced.float_version}` before, and `dimml "
        "models split` or `shadow` after",
        soft_wrap=True,
    )


def _row(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    if before["accuracy"] is None:
        return ["–"] * 4
    return [
        f"{before['accuracy']:.1%}",
        f"{after['accuracy']:.1%}",
        f"{before['ece']:.3f}",
        f"{after['ece']:.3f}",
    ]
