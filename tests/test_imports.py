"""The doors of the house: who may import whom."""

import ast
import importlib
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ganinfer
from ganinfer.errors import Ending, missing_extra

ROOT = Path(ganinfer.__file__).parent.parent
PACKAGES = ("ganinfer", "gantrain", "ganexport")
HEAVY = {
    "torch",
    "onnx",
    "onnxscript",
    "sklearn",
    "scipy",
    "tensorboard",
    "safetensors",
    "wandb",
    "mlflow",
}


def imports_of(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            names.add(node.module or "")
    return names


def roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def files_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("file", files_of("ganinfer"), ids=str)
def test_ground_floor_imports_nothing_heavy_and_nothing_above(file: Path) -> None:
    found = roots(imports_of(file))
    assert not found & (HEAVY | {"gantrain", "ganexport"})
    if file.name != "onnxruntime.py":
        assert "onnxruntime" not in found
    if file != ROOT / "ganinfer/backends/tensorrt.py":
        assert not found & {"tensorrt", "tensorrt_rtx", "cuda"}


@pytest.mark.parametrize("file", files_of("gantrain"), ids=str)
def test_training_does_not_know_export(file: Path) -> None:
    found = roots(imports_of(file))
    assert not found & {"ganexport", "onnx", "onnxscript"}
    if file != ROOT / "gantrain/extractors/module.py":  # runs whatever feature network it is given
        assert "onnxruntime" not in found


# What the first floor may use of the ground floor: what both must do in the same way, and the
# public face that `gan evaluate` measures bundles through.
GROUND_FLOOR_DOORS = {
    "errors",
    "files",
    "lookup",
    "progress",
    "host.fetching",
    "host.limits",
    "host.telemetry",
    "drawing.images",
    "drawing.latents",
    "bundle.archive",
    "bundle.hub",
    "bundle.manifest",
    "sampler",
    "scheduler.opening",
    "engines.cluster",
    "engines.ray",
    "cli.console",
    "cli.options",
}


def test_training_uses_the_ground_floor_through_its_doors() -> None:
    used = {
        name.removeprefix("ganinfer.")
        for file in files_of("gantrain")
        for name in imports_of(file)
        if name.startswith("ganinfer.")
    }
    assert used <= GROUND_FLOOR_DOORS


# Suites of a floor, and files that stand beside them; each imports from those above it alone.
ORDER = {
    "ganinfer": [
        *(
            "errors",
            "api_keys",
            "files",
            "outside",
            "lookup",
            "options",
            "progress",
            "record",
            "stores",
        ),
        *("host", "drawing", "bundle", "backends", "scheduler", "sampler"),
        *(
            "rejection",
            "engines",
            "formats",
            "filters",
            "shards",
            "film",
            "styles",
            "prometheus",
            "open_inference",
            "verify",
            "doctor",
            "bench",
            "server",
            "cli",
        ),
    ],
    "gantrain": [
        *("distributed", "pickle_machine", "pickle_values", "pickle_networks"),
        *("data", "extractors", "models", "discriminators", "trackers", "game"),
        *("regularizers", "objectives", "runs"),
        *("metrics", "evaluation", "training", "report", "cli"),
    ],
    "ganexport": [
        *("graph", "subjects", "importers", "options", "engines", "proof", "bundling"),
        *("pipeline", "extraction", "web", "demo", "triton", "cli"),
    ],
}


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(file): file for package in PACKAGES for file in files_of(package)}


def modules_of(file: Path) -> set[str]:
    """The modules of this project that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name if name in MODULES else name.rpartition(".")[0] for name in names}
    return (found & set(MODULES)) - set(PACKAGES)


def suite(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("package", ORDER)
def test_suites_of_a_floor_import_one_way(package: str) -> None:
    order = ORDER[package]
    wrong = {
        (module, other)
        for module, file in MODULES.items()
        if module.startswith(f"{package}.")
        for other in modules_of(file)
        if other.startswith(f"{package}.")
        if order.index(suite(other)) > order.index(suite(module))
    }
    assert not wrong


def test_no_circle_of_files() -> None:
    TopologicalSorter({module: modules_of(file) for module, file in MODULES.items()}).prepare()


def test_only_cli_and_demo_print() -> None:
    printing = {
        file.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for file in files_of(package)
        if any(name.startswith("rich") for name in imports_of(file)) or "print(" in file.read_text()
    }
    rooms = {n.partition("/cli/")[0] + "/cli" if "/cli/" in n else n for n in printing}
    assert rooms == {"ganinfer/cli", "gantrain/cli", "ganexport/cli", "ganexport/demo.py"}


def test_importing_ganinfer_is_light() -> None:
    code = (
        "import sys, ganinfer; "
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'pydantic', 'PIL', 'typer', 'rich', 'scipy',"
        " 'cryptography', 'huggingface_hub', 'starlette', 'uvicorn', 'grpc'}"
        " & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_sampling_works_where_torch_onnx_and_sklearn_cannot_be_imported(bundle: Path) -> None:
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {HEAVY!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
from ganinfer import Sampler
with Sampler({str(bundle)!r}) as sampler:
    print(sampler.sample(64).shape, sampler.sample(2, output='pil')[0].size)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "(64, 16, 16, 3) (16, 16)", result.stderr


def test_missing_extra_names_its_pip_command() -> None:
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'torch':
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ['gan', 'train', 'dcgan-digits']
from ganexport.cli.gan import main
main()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == Ending.UNAVAILABLE
    assert "pip install 'ganpipe[train]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_what_an_optional_package_lacks_is_named() -> None:
    reason = ModuleNotFoundError("No module named 'httpx'", name="httpx")
    assert str(missing_extra("huggingface_hub", reason)) == (
        "httpx, which huggingface_hub needs, is not installed; run: pip install 'ganpipe[hub]'"
    )
    itself = ModuleNotFoundError("No module named 'cuda.bindings'", name="cuda.bindings")
    assert str(missing_extra("cuda", itself)).startswith("cuda.bindings is not installed; run")


def test_public_names_are_complete() -> None:
    public = {name for name in vars(ganinfer) if not name.startswith("_")}
    modules = {name for name in public if f"ganinfer.{name}" in sys.modules}
    assert public - modules == set(ganinfer.__all__) - {"__version__"}


@pytest.mark.parametrize("package", ["gantrain", "ganexport"])
def test_a_face_is_complete_and_opens_its_rooms_when_asked(package: str) -> None:
    code = (
        f"import sys, {package} as face; print('torch' in sys.modules);"
        " print(all(callable(getattr(face, name)) for name in face.__all__))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["False", "True"], result.stderr
    face = importlib.import_module(package)
    with pytest.raises(AttributeError, match=f"'{package}' has no attribute 'exprot'"):
        face.exprot  # noqa: B018
