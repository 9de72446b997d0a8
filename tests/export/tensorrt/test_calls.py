"""Every call to TensorRT, type-checked against stubs made of its own Python bindings, versions 10 and 11.

The bindings (1 MB) come from PyPI without the libraries (gigabytes) that they are linked to. Nine empty functions in
their place let them be imported, so that their signatures can be read; nothing of TensorRT can run.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.data import REPOSITORY_ROOT, unavailable
from support.side_packages import side_packages

BUILDER = REPOSITORY_ROOT / "export" / "dimml_export" / "tensorrt" / "builder.py"
VERSIONS = {"10": "tensorrt-cu12-bindings==10.16.1.11", "11": "tensorrt-cu12-bindings==11.4.0.106"}
POLYGRAPHY = "polygraphy==0.53.6"
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
SYMBOLS = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion"),
    *("getBuilderPluginRegistry", "getPluginRegistry", "initLibNvInferPlugins"),
)
#: The stubs are made by machine and have faults of their own; the calls are what is checked, and nothing of torch.
MYPY = """
[mypy]
strict = true
warn_unused_ignores = false
disallow_untyped_calls = false
[mypy-onnx.*,polygraphy.*]
ignore_missing_imports = true
[mypy-dimml.*,dimml_export.*]
follow_imports = silent
[mypy-tensorrt.*,tensorrt_bindings.*]
follow_imports = silent
[mypy-dimml_training.*,torch.*,transformers.*,pytorch_lightning.*,ray.*,mlflow.*,onnxscript.*]
follow_imports = skip
"""
#: Calls as they are, and as a slip would have them.
WRONG = (
    ("set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)", "set_max_workspace(workspace_bytes)"),
    ("config.clear_flag(trt.BuilderFlag.TF32)", "config.clear_flag(trt.BuilderFlag.TF31)"),
    ("config.add_optimization_profile(shapes)", "config.add_optimization_profile(profile)"),
    ("trt.OnnxParser(network, self._logger)", "trt.OnnxParser(network)"),
    ("error.node_operator()", "error.node_kind()"),
    ("runtime.deserialize_cuda_engine(plan)", "runtime.deserialize_engine(plan)"),
)


def succeed(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=100, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=VERSIONS)
def stubs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stubs of ``tensorrt`` as the bindings of one version have it."""
    major: str = request.param
    compiler = shutil.which("cc")
    if compiler is None:
        unavailable("a C compiler is needed to stand in for TensorRT's libraries")
    bindings = side_packages(VERSIONS[major])
    work = tmp_path_factory.mktemp(f"tensorrt_{major}")
    (work / "empty.c").write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in SYMBOLS))
    for library in LIBRARIES:
        name = f"lib{library}.so.{major}"
        succeed(
            [str(compiler), "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(work / name), str(work / "empty.c")]
        )
    succeed(
        [
            str(Path(sys.executable).with_name("stubgen")),
            *("--inspect-mode", "--quiet", "--module", "tensorrt_bindings.tensorrt", "--output", str(work / "stubs")),
        ],
        PYTHONPATH=str(bindings),
        LD_LIBRARY_PATH=str(work),
    )
    (work / "stubs" / "tensorrt").mkdir()
    (work / "stubs" / "tensorrt" / "__init__.pyi").write_text(
        "from tensorrt_bindings.tensorrt import *\n__version__: str\n"
    )
    without_what_no_stub_can_say(work / "stubs" / "tensorrt_bindings" / "tensorrt.pyi")
    return work / "stubs"


def without_what_no_stub_can_say(path: Path) -> None:
    """Drop the few signatures that pybind11 writes and Python cannot parse; calling one would be an error then."""
    dropped = []
    while True:
        text = path.read_text()
        try:
            ast.parse(text)
        except SyntaxError as error:
            lines = text.splitlines(keepends=True)
            dropped.append(lines.pop((error.lineno or 1) - 1))
            path.write_text("".join(lines))
        else:
            break
    assert len(dropped) < 5, dropped


def errors_by_file(folder: Path, stubs: Path) -> dict[str, list[str]]:
    """What mypy has against each file of a folder, in lines."""
    config = folder / "mypy.ini"
    config.write_text(MYPY)
    files = sorted(folder.glob("*.py"))
    paths = [stubs, REPOSITORY_ROOT / "core", REPOSITORY_ROOT / "export"]
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", str(folder / "cache")]
    done = subprocess.run(
        [*command, *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        env={**os.environ, "MYPYPATH": os.pathsep.join(map(str, paths))},
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors: dict[str, list[str]] = {file.name: [] for file in files}
    for line in done.stdout.splitlines():
        # Others are faults of the stubs, whose makers did not see them.
        if ": error:" in line and (name := Path(line.split(":")[0]).name) in errors:
            errors[name].append(line)
    return errors


@pytest.mark.slow(reason="stubs of TensorRT, and mypy over them")
def test_calls_fit_tensorrts_own_signatures_and_wrong_ones_would_not(stubs: Path, tmp_path: Path) -> None:
    text = BUILDER.read_text()
    (tmp_path / "right.py").write_text(text)
    for index, (right, wrong) in enumerate(WRONG):
        assert text.count(right) == 1, right
        (tmp_path / f"wrong_{index}.py").write_text(text.replace(right, wrong))
    errors = errors_by_file(tmp_path, stubs)
    assert errors.pop("right.py") == []
    assert {name: len(found) for name, found in errors.items()} == dict.fromkeys(errors, 1)


def test_polygraphy_has_what_runs_a_plan() -> None:
    """It is untyped, but imports without TensorRT: its signatures can be asked."""
    code = (
        "import inspect\nfrom polygraphy.backend.trt import TrtRunner as R\n"
        "inspect.signature(R).bind('engine'); inspect.signature(R.infer).bind('self', {}); R.__enter__, R.__exit__"
    )
    succeed([sys.executable, "-c", code], PYTHONPATH=str(side_packages(POLYGRAPHY)))
    with pytest.raises(AssertionError, match="AttributeError"):
        succeed(
            [sys.executable, "-c", code.replace("R.infer)", "R.infers)")], PYTHONPATH=str(side_packages(POLYGRAPHY))
        )
