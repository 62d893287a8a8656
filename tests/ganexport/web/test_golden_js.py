"""golden.js judges images as ganinfer does."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_draw_mjs import NODE, run_node

import ganexport.web
from ganinfer.bundle.golden import pixel_differences, pixel_failure
from ganinfer.bundle.manifest import PixelLimits

GOLDEN = Path(ganexport.web.__file__).with_name("golden.js")

pytestmark = pytest.mark.skipif(NODE is None, reason="there is no Node.js (node)")


def test_pixels_steps_and_limits_are_those_of_ganinfer(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    expected = rng.integers(0, 200, (4, 5, 7, 3), np.uint8)
    found = expected.copy()
    found[2, :2, 3] += np.array([0, 3, 0], np.uint8)
    all_limits = [
        PixelLimits(max_steps=steps, max_share=share, min_psnr_db=psnr)
        for steps in (None, 2, 3)
        for share in (None, 1e-4, 5e-3)
        for psnr in (None, 50.0, 70.0)
    ]
    module = tmp_path / "golden.mjs"
    module.write_bytes(GOLDEN.read_bytes())
    program = f"""
const {{ compared, told }} = await import({json.dumps(module.as_uri())});
const [images, expected, limits] = given;
const all = limits.map((l) => compared(images, expected, 3, l));
process.stdout.write(JSON.stringify([all, told(all[0], "wasm")]));
"""
    given = [
        [image.ravel().tolist() for image in found],
        expected.ravel().tolist(),
        [limits.model_dump() for limits in all_limits],
    ]
    judged, words = json.loads(run_node(program, given))
    failures = [pixel_failure(found, expected, limits) for limits in all_limits]
    assert [one["isWithin"] for one in judged] == [failure is None for failure in failures]
    assert len(set(map(bool, failures))) == 2
    assert {one["steps"] for one in judged} == {pixel_differences(found, expected)[0]}
    assert "2 of 140 pixels differ, by 3 of 255 at most" in words
