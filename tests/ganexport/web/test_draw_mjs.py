"""draw.mjs, in Node.js, gives ganinfer's bits."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ganexport.web
from ganinfer.drawing.inputs import draw_inputs, labels_of
from ganinfer.drawing.latents import draw_labels, draw_latents, seed_array
from ganinfer.drawing.model import Model, TruncationInput
from ganinfer.drawing.normal import central_mass

DRAW = Path(ganexport.web.__file__).with_name("draw.mjs")
NODE = shutil.which("node")
SEEDS = [0, 1, 2**31, 2**32 - 1, 2**53 + 1, 2**63, 2**64 - 1]

pytestmark = pytest.mark.skipif(NODE is None, reason="there is no Node.js (node)")


def run_node(program: str, given: Any = None) -> bytes:
    """What a program writes that has draw, mass and `given`; seeds are text in JSON."""
    head = f"import {{ draw, mass }} from {json.dumps(DRAW.as_uri())};\n"
    head += f"const given = {json.dumps(given)};\n"
    head += "const write = (numbers) => process.stdout.write(new Uint8Array(numbers.buffer));\n"
    assert NODE is not None
    done = subprocess.run(
        [NODE, "--input-type=module", "-"],
        input=(head + program).encode(),
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def model_of(z_dim: int, num_classes: int = 0, **fields: Any) -> Model:
    given = {"z_distribution": "normal", "truncation_modes": ["resample", "scale"], **fields}
    classes = [str(n) for n in range(num_classes)]
    return Model(family="x", resolution=8, channels=1, classes=classes, z_dim=z_dim, **given)


def drawn_by_node(
    model: Model, seeds: Any, truncation: float | None = None, mode: str | None = None
) -> np.ndarray:
    """float32 (N, Z): latents alone."""
    options = {} if truncation is None else {"truncation": truncation, "mode": mode}
    given = [model.model_dump(), [str(seed) for seed in seeds], options]
    program = """
const [model, seeds, options] = given;
const z = new Float32Array(seeds.length * model.z_dim);
seeds.forEach((seed, n) => z.set(draw(model, seed, options).z, n * model.z_dim));
write(z);
"""
    return np.frombuffer(run_node(program, given), np.float32).reshape(len(seeds), model.z_dim)


def test_it_is_short_enough_to_be_read() -> None:
    assert len(DRAW.read_text().splitlines()) < 80


@pytest.mark.parametrize(
    ("truncation", "mode"), [(None, None), (0.7, "resample"), (2.5, "resample"), (0.7, "scale")]
)
def test_none_of_a_hundred_thousand_latents_differs(  # a quarter in each case
    truncation: float | None, mode: str | None
) -> None:
    rng = np.random.default_rng(0)
    seeds = [*SEEDS, *rng.integers(0, 2**64, 250 - len(SEEDS), dtype=np.uint64).tolist()]
    z = draw_latents(seeds, 100, truncation=truncation, truncation_mode=mode or "resample")
    assert drawn_by_node(model_of(100), seeds, truncation, mode).tobytes() == z.tobytes()


def test_uniform_latents_and_the_default_truncation() -> None:
    uniform = model_of(5, z_distribution="uniform", truncation_modes=[])
    z = draw_latents(SEEDS, 5, distribution="uniform")
    assert drawn_by_node(uniform, SEEDS).tobytes() == z.tobytes()
    narrow = model_of(5, default_truncation=0.4)
    for truncation, mode in ((None, None), (0.8, "resample"), (0.8, "scale")):
        expected = draw_inputs(narrow, SEEDS, None, truncation, mode).z
        assert drawn_by_node(narrow, SEEDS, truncation, mode).tobytes() == expected.tobytes()


def test_masses_are_the_nearest_float64() -> None:
    t = np.arange(1, 8000, 37) / 1000
    program = "write(new Float64Array(given.map(mass)));"
    found = np.frombuffer(run_node(program, t.tolist()))
    assert found.tolist() == [central_mass(float(value)) for value in t]


def test_classes_and_the_truncation_of_the_generator() -> None:
    model = model_of(
        4,
        1000,
        class_input="weights",
        truncation_modes=["network"],
        truncation_input=TruncationInput(least=0, largest=1, untruncated=1),
    )
    program = """
const [model, seeds] = given;
const all = seeds.map((seed) => draw(model, seed));
const asked = draw(model, seeds[0], { label: 3, truncation: 0.7 });
const mixed = draw(model, seeds[0], { label: [0.5, 0.5] });
process.stdout.write(JSON.stringify([all.map((d) => d.label), all.map((d) => d.y.indexOf(1)),
  asked.label, asked.y.indexOf(1), asked.psi, asked.z[0] === all[0].z[0], mixed.y, all[0].psi]));
"""
    found = json.loads(run_node(program, [model.model_dump(), [str(seed) for seed in SEEDS]]))
    own = draw_labels(SEEDS, 1000).tolist()
    assert labels_of(model, seed_array(SEEDS), None).tolist() == own
    assert found == [own, own, 3, 3, float(np.float32(0.7)), True, [0.5, 0.5], 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("draw(given, -1)", "seed -1: expected 0 to"),
        ("draw(given, 2n ** 64n)", "seed 18446744073709551616: expected 0 to"),
        ("draw(given, 2 ** 60)", "beyond 2\\*\\*53 as a BigInt or digits"),
        (
            "draw(given, 1, { truncation: 0 })",
            "truncation 0, mode resample: this model has no such",
        ),
        ("draw(given, 1, { truncation: 1, mode: 'network' })", "mode network: this model has no"),
    ],
)
def test_what_sampler_refuses_is_refused(call: str, message: str) -> None:
    program = f"try {{ {call}; }} catch (error) {{ process.stdout.write(String(error)); }}"
    found = run_node(program, model_of(4).model_dump()).decode()
    assert found.startswith("RangeError: ")
    assert message.replace("\\", "") in found
