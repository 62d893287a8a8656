"""One loaded generator for several samplers of a process."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ganinfer import Sampler
from ganinfer.errors import Closed
from ganinfer.host.limits import usable_cpus


def test_samplers_of_a_bundle_share_one_until_the_last_is_closed(bundle: Path) -> None:
    one, other = Sampler(bundle), Sampler(bundle, batch_size=8)
    (backend,) = one._runner.backends
    assert other._runner.backends == [backend]
    expected = one.sample(8)
    one.close()
    one.close()
    np.testing.assert_array_equal(other.sample(8), expected)
    with pytest.raises(Closed):
        one.sample(1)
    inputs = other._runner.asking.of_seeds(1)
    other.close()
    from ganinfer.drawing.inputs import draw_wanted

    with pytest.raises(Closed):
        backend.run(draw_wanted(other._model, [inputs.wanted]))


@pytest.mark.parametrize("options", [{"precision": "fp16"}, {"threads": 1}])
def test_what_is_opened_otherwise_is_another_one(bundle: Path, options: dict) -> None:
    if usable_cpus() == 1:
        pytest.skip("needs two threads")
    plain = {"backend": "onnxruntime", "precision": "fp32", "threads": 2}
    with Sampler(bundle, **plain) as one, Sampler(bundle, **(plain | options)) as other:
        assert one._runner.backends[0] is not other._runner.backends[0]


def test_a_sampler_that_nobody_closed_frees_it(bundle: Path) -> None:
    sampler = Sampler(bundle)
    held = weakref.ref(sampler._runner.backends[0])
    del sampler
    gc.collect()
    assert held() is None


def test_threads_that_open_at_once_get_one(bundle: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        samplers = list(pool.map(lambda _: Sampler(bundle), range(4)))
    (backend,) = {sampler._runner.backends[0] for sampler in samplers}
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda sampler: sampler.sample(16), samplers))
    assert all(np.array_equal(images[0], other) for other in images[1:])
    for sampler in samplers:
        sampler.close()
    assert backend._closed if hasattr(backend, "_closed") else backend._model is None
