"""Benchmarks find in the packages what they import; nobody runs them each day."""

import ast
import importlib.util
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").rglob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_is_there(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gan"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                here = hasattr(module, alias.name)
                assert here or importlib.util.find_spec(f"{node.module}.{alias.name}"), alias.name
