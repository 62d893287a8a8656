import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, draw_shapes
from torch import Tensor, nn

from ganexport.bundling.discriminator import calibrate, normalisers, ship_discriminator
from ganexport.graph.tracing import discriminator_to_onnx
from ganexport.options import ExportOptions
from ganexport.pipeline import Exported, export_run, export_subject
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import Subject, of_module, of_run
from ganinfer.backends.onnxruntime import FeatureNetwork, OnnxRuntimeBackend
from ganinfer.bundle.archive import Bundle
from ganinfer.errors import ExportError
from gantrain.data.dataset import Dataset, to_floats
from gantrain.data.prepare import prepare
from gantrain.models._base import DiscriminatorModule
from gantrain.runs.checkpoint import load_discriminator, load_generator


@pytest.fixture(scope="module")
def subject(run: Path) -> Subject:
    return of_run(load_generator(run))


# StyleGAN2's looks at the whole batch, and ships with no bundle.
@pytest.mark.parametrize(
    ("name", "num_classes"), [*((name, 3) for name in SMALL if name != "stylegan2"), ("mlp", 0)]
)
def test_every_discriminator_gives_its_logits_as_onnx(name: str, num_classes: int) -> None:
    torch.manual_seed(0)
    module = importlib.import_module(f"gantrain.models.{name}")
    network = module.Discriminator(16, 3, num_classes, **SMALL[name][1]).eval()
    file = discriminator_to_onnx(network, (16, 16, 3), conditional=num_classes > 0)
    images, labels = draw_shapes(8, seed=1)
    y = labels if num_classes else None
    with torch.no_grad():
        expected = network(to_floats(torch.from_numpy(images)), y if y is None else torch.tensor(y))
    np.testing.assert_allclose(FeatureNetwork(file)(images, y), expected, atol=1e-5)


def test_calibrated_logits_are_the_log_density_ratio() -> None:
    """Of N(1, 1) over N(-1, 1) it is 2 x, whatever scale a critic gives to x."""
    rng = np.random.default_rng(0)
    real, fake = rng.normal(1, 1, 50_000), rng.normal(-1, 1, 50_000)
    assert calibrate(10 * real - 300, 10 * fake - 300) == pytest.approx(0.2, rel=0.03)


def test_logits_that_separate_all_images_still_have_a_finite_scale() -> None:
    assert 0 < calibrate(np.linspace(5, 6, 100), np.linspace(-6, -5, 100)) < 10


def test_ratios_are_one_on_average_over_each_class() -> None:
    scores, y = np.random.default_rng(0).normal(size=300), np.arange(300) % 3
    scores += y
    ratios = np.exp(scores + normalisers(scores, y, 4)[y])
    assert [ratios[y == k].mean() for k in range(3)] == pytest.approx([1, 1, 1])
    assert np.exp(scores + normalisers(scores, None, 0)).mean() == pytest.approx(1)


def test_a_bundle_holds_the_runs_discriminator(judged: Exported, run: Path) -> None:
    assert "discriminator" in {gate.artifact for gate in judged.gates}
    with Bundle(judged.path) as bundle:
        entry = bundle.manifest.discriminator
        assert entry is not None
        file = bundle.read_onnx(entry.path)
    assert (entry.objective, entry.held_out, len(entry.quantiles)) == ("hinge", False, 101)
    assert entry.quantiles == sorted(entry.quantiles)
    images, labels = draw_shapes(60, seed=2)
    with torch.no_grad():
        expected = load_discriminator(run)(
            to_floats(torch.from_numpy(images)), torch.from_numpy(labels)
        )
    np.testing.assert_allclose(FeatureNetwork(file)(images, labels), expected, atol=1e-4)


class Changed(DiscriminatorModule):
    """A run's discriminator, its logits (N,) changed."""

    def __init__(self, run: Path, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self._change = load_discriminator(run), change

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        return self._change(self.network(images, y))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: logits + 0.5 * logits.mean(), "judges an image by the others of its batch"),
        (lambda logits: -logits, "does not give real images higher logits"),
    ],
)
def test_a_discriminator_that_cannot_judge_images_is_refused(
    subject: Subject, shapes: Path, run: Path, change: Callable[[Tensor], Tensor], message: str
) -> None:
    changed = dataclasses.replace(
        subject, open_discriminator=lambda: Changed(run, change).eval().requires_grad_(False)
    )
    backend = OnnxRuntimeBackend(subject.to_onnx(subject.twin()), "cpu", "fp32")
    with pytest.raises(ExportError, match=message):
        ship_discriminator(changed, backend, Dataset(shapes), held_out=False, num_images=300)


def test_held_out_images_are_of_the_generators_kind(run: Path, tmp_path: Path) -> None:
    images, labels = draw_shapes(60, seed=3)
    np.savez(tmp_path / "other.npz", images=images[:, :8, :8], labels=labels)
    other = prepare(str(tmp_path / "other.npz"), tmp_path / "other").path
    with pytest.raises(
        ExportError, match="8x8x3 of 3 classes, and the discriminator takes 16x16x3"
    ):
        export_run(
            run,
            tmp_path / "x.gan",
            ExportOptions(with_discriminator=True, held_out=other, verify=False),
        )
    np.savez(tmp_path / "held.npz", images=images, labels=labels)
    held = prepare(str(tmp_path / "held.npz"), tmp_path / "held").path
    made = export_run(
        run,
        tmp_path / "x.gan",
        ExportOptions(
            with_discriminator=True,
            held_out=held,
            verify=False,
            num_images=100,
            precisions=["fp32"],
        ),
    )
    with Bundle(made.path) as bundle:
        assert bundle.manifest.discriminator is not None
        assert bundle.manifest.discriminator.held_out


def test_a_generator_without_a_run_has_none(tmp_path: Path) -> None:
    class Plain(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return z.reshape(-1, 1, 2, 2).clamp(-1, 1)

    with pytest.raises(ExportError, match="Plain: --with-discriminator goes with a run"):
        export_subject(
            of_module(Plain(), Spec(4)), tmp_path / "x.gan", ExportOptions(with_discriminator=True)
        )


def test_a_bundle_that_is_not_verified_says_so_beside_a_proven_discriminator(
    gan, run: Path, tmp_path: Path
) -> None:
    options = ("--with-discriminator", "--num", 100, "--precision", "fp32", "-o", "x.gan")
    done = gan("export", run, "--no-verify", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "unverified: parity was not checked" in done.stdout
