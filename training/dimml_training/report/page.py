"""The report as one HTML file: styles and charts inside, no script, and nothing fetched from anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dimml.errors import SetupError
from dimml.look.palette import style_sheet
from dimml.system.files import StrPath, write_atomically
from dimml_training.report import robustness, sections
from dimml_training.report.reading import COMPARISON_FILE, RunFiles, read_run_files

REPORT_FILE = "report.html"
TEMPLATES = Path(__file__).parent / "templates"


def write_report(run: StrPath, results: Path | None = None) -> Path:
    """Write ``report.html`` into a run directory, from its files alone; return its path.

    ``results`` is an output folder of ``dimml compare``: its methods on the same data are added to the report, and kept
    in ``comparison.json``. The report of an unfinished run has what exists so far. Raises SetupError if ``run`` is not
    a run, a file of it is damaged, or the report cannot be written, ConfigurationError if ``results`` has no comparison
    for it.
    """
    run = Path(run)
    files = read_run_files(run, comparison=results is None)
    if results is not None:
        compared = robustness.comparison(files, results)
        files = replace(files, comparison=compared)
        _write(run / COMPARISON_FILE, compared.model_dump_json(indent=1) + "\n")
    return _write(run / REPORT_FILE, render(files))


def _write(path: Path, text: str) -> Path:
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror}") from error
    return path


def render(files: RunFiles) -> str:
    """Render the page. Everything that comes from the run is escaped: labels and paths are untrusted data."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    heads = sections.tested(files)
    return environment.get_template(
        "report.html.j2"
    ).render(
        style=Markup(style_sheet()),  # noqa: S704  # not a caller's text
        name=files.config.name,
        finished=files.record is not None,
        date=str(files.training.get("finished", ""))[:10],
        data=sections.data_name(files),
        modalities=files.config.inputs,
        warnings=files.training.get("warnings", []),
        remarks=sections.remarks(files),
        tiles=sections.summary(files, heads),
        presence=sections.presence(files),
        heads=sections.heads_table(files, heads),
        curves=sections.learning_curves(files),
        confusions=sections.confusion_matrices(files, heads),
        confused=sections.worst_confusions(files, heads),
        reliability=sections.reliability_diagrams(files, heads),
        dimensions=sections.effective_dimensions(files),
        fusion=robustness.fusion_table(files),
        fusion_rivals=robustness.fusion_rivals(files),
        outdated=robustness.outdated(files),
        comparison=files.comparison,
        corruption_scope=robustness.corruption_scope(files),
        corruption=robustness.corruption_overview(files),
        corruption_curves=robustness.corruption_curves(files),
        corruption_table=robustness.corruption_table(files),
        config=files.config_text,
        versions=files.training.get("versions", {}),
        seed=files.config.seed,
    )
