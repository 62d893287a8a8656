import math

import numpy as np
import onnx
import pytest

from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.bench import rates
from ganinfer.bench.product import product
from ganinfer.bench.rates import Rates, best, rates_of
from ganinfer.drawing.inputs import Inputs


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-5), ("fp16", 0.05), ("int8", 1.0)])
def test_a_product_is_one(precision: str, most: float) -> None:
    z, weight = np.random.default_rng(0).standard_normal((2, 64, 64), np.float32)
    file = product(precision, weight)
    onnx.checker.check_model(onnx.load_from_string(file), full_check=True)
    backend = OnnxRuntimeBackend(file, "cpu", precision)
    found = backend.run(Inputs(z.astype(np.float16) if precision == "fp16" else z))
    assert np.abs(found - z @ weight).max() <= most


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MATRIX_SIZE", 64)
    monkeypatch.setattr(rates, "_COPIED_BYTES", 1 << 20)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_machine_has_rates(small: None, backend: str, precision: str) -> None:
    pytest.importorskip(backend)
    found = rates_of(backend, precision, 0.0)
    assert found is not None
    assert 0 < found.gmacs_per_s < math.inf
    assert 0 < found.gb_per_s < math.inf


def test_a_backend_without_products_has_none() -> None:
    assert rates_of("mine.backend", "fp32", 0.0) is None


def test_work_takes_as_long_as_the_slower_of_arithmetic_and_memory() -> None:
    machine = Rates(gmacs_per_s=2.0, gb_per_s=4.0)
    assert machine.least_seconds(6_000_000_000, 0) == 3.0
    assert machine.least_seconds(0, 20_000_000_000) == 5.0
    assert machine.least_seconds(6_000_000_000, 20_000_000_000) == 5.0


def test_the_best_of_several_is_taken_each_by_itself() -> None:
    assert best([Rates(1.0, 5.0), Rates(2.0, 4.0)]) == Rates(2.0, 5.0)
    assert best([None, None]) is None
