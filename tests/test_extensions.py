"""Parts of the user's own, beside him and in no package of ours, through the real command."""

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import rewrite_manifest, tiny_recipe
from safetensors.torch import save_file
from test_cli import assert_a_users_mistake, write_toml

from ganinfer import Sampler
from ganinfer.bench import Report, bench, tune
from ganinfer.errors import ConfigError, RequestError
from ganinfer.host.machine import this_host
from ganinfer.host.tuned import Choice, remember
from ganinfer.shards import write_shards
from gantrain.evaluation.evaluate import evaluate
from gantrain.game.build import build_generator
from gantrain.game.config import parse_config

MYLAB = {
    "losses.py": """
from torch import Tensor, relu
from gantrain import Objective

class MyHinge(Objective):
    def __init__(self, *, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return relu(self.margin - real_logits).mean() + relu(self.margin + fake_logits).mean()

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()
""",
    "small_logits.py": """
from gantrain import Hooks, Step

class Regularizer(Hooks):
    def __init__(self, *, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def discriminator_penalty(self, step: Step):
        return self.weight * step.real.logits.square().mean()

    def stats(self):
        return {"small_logits_weight": self.weight}
""",
    "nets.py": """
import torch
from torch import nn
from gantrain import DiscriminatorModule, GeneratorModule
from gantrain.models._layers import Head
from mylab.blocks import SCALE

class Generator(GeneratorModule):
    def __init__(self, resolution, channels, num_classes, *, z_dim: int = 8) -> None:
        super().__init__()
        self.z_dim, self.num_classes, self.z_distribution = z_dim, num_classes, "normal"
        self.embed = nn.Embedding(num_classes, z_dim)
        self.shape = (channels, resolution, resolution)
        self.linear = nn.Linear(z_dim, channels * resolution**2)

    def forward(self, z, y=None):
        return torch.tanh(SCALE * self.linear(z + self.embed(y))).reshape(-1, *self.shape)

class Discriminator(DiscriminatorModule):
    def __init__(self, resolution, channels, num_classes) -> None:
        super().__init__()
        self.linear = nn.Linear(channels * resolution**2, 8)
        self.head = Head(8, num_classes)

    def features(self, images):
        return self.linear(images.flatten(1)).relu()
""",
    "blocks.py": "SCALE = 1.0\n",
    "brightness.py": """
from gantrain import Score

class Brightness:
    NEEDS, BETTER = ("images",), {"brightness": None}

    @staticmethod
    def scores(reference, fake):
        return {"brightness": Score(float(fake.images.mean()))}
""",
    "linear.py": """
from torch import nn
from ganexport import Spec
from ganinfer.errors import ExportError

def read(state, *, gain: float = 1.0):
    if set(state) != {"weight", "bias"}:
        raise ExportError("mylab: expected weight and bias")
    linear = nn.Linear(state["weight"].shape[1], state["weight"].shape[0])
    linear.load_state_dict({name: gain * value for name, value in state.items()})
    return nn.Sequential(linear, nn.Tanh(), nn.Unflatten(1, (1, 4, 4))), Spec(z_dim=3)
""",
    "fast.py": """
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend, precisions

def open(bundle, device, precision):
    chosen = "fp32" if precision == "auto" else precision
    return OnnxRuntimeBackend(bundle.read_graph(chosen), "cpu", chosen)
""",
    "raw.py": """
def pack(batch):
    return batch.images.tobytes()

def write(sink, parts, count):
    for part in parts:
        sink.write(part)
""",
}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's folder, in which he is; mylab/ lies beside him."""
    folder = tmp_path / "lab"
    (folder / "mylab").mkdir(parents=True)
    for name, text in MYLAB.items():
        (folder / "mylab" / name).write_text(text)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(folder)
    before = list(sys.path)
    yield folder
    assert sys.path == before
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mylab", "evil")]:
        del sys.modules[name]


def own_recipe(shapes: Path) -> dict:
    recipe = tiny_recipe(shapes, total_kimg=0.1)
    recipe["model"] = {"name": "mylab.nets", "generator": {"z_dim": 6}}
    recipe["objective"] = {"name": "mylab.losses:MyHinge", "margin": 0.5}
    recipe["regularizers"] = [{"name": "mylab.small_logits", "weight": 0.1}]
    return recipe


@pytest.mark.slow
def test_a_run_of_own_parts_goes_the_whole_road(gan, shapes: Path, lab: Path) -> None:
    config = write_toml(lab / "mine.toml", own_recipe(shapes))
    metrics = ("--num", 50, "--metrics", "parzen, mylab.brightness:Brightness")
    for arguments in (
        ("train", config, "-o", "run"),
        ("evaluate", "run", *metrics, "-o", "scores.json"),
        ("export", "run", "-o", "x.gan", "--no-verify", "--precision", "fp32"),
    ):
        result = gan(*arguments, cwd=lab)
        assert result.returncode == 0, (arguments, result.stdout + result.stderr)
    kept = json.loads((lab / "run" / "config.json").read_text())
    assert kept["model"]["name"] == "mylab.nets"
    assert kept["objective"] == {"name": "mylab.losses:MyHinge", "margin": 0.5}
    assert "small_logits_weight" in (lab / "run" / "stats.jsonl").read_text()
    assert json.loads((lab / "scores.json").read_text())["scores"]["brightness"]["value"] > 0

    # Its bundle needs none of it; the run does, and says so.
    (lab / "mylab").rename(lab.parent / "mylab")
    with Sampler(lab / "x.gan", allow_unverified=True) as sampler:
        assert sampler.sample(2).shape == (2, 16, 16, 3)
        assert sampler.info["family"] == "mylab.nets"
    elsewhere = lab.parent / "elsewhere"
    result = gan("evaluate", lab / "run", cwd=elsewhere)
    assert_a_users_mistake(
        result,
        ".safetensors [model] name: mylab.nets: there is no module 'mylab'; looked in the current"
        f" folder {elsewhere} and among the installed packages of {sys.prefix}; go to the folder",
    )


def test_an_own_importer_reads_weights(gan, lab: Path) -> None:
    save_file({"weight": torch.zeros(16, 3), "bias": torch.ones(16)}, lab / "w.safetensors")
    from_ = ("--from", "mylab.linear:read", "--weights", "w.safetensors", "--set", "gain=-20.0")
    result = gan(*("export", *from_, "--no-verify", "--precision", "fp32", "-o", "x.gan"), cwd=lab)
    assert result.returncode == 0, result.stdout + result.stderr
    with Sampler(lab / "x.gan", allow_unverified=True) as sampler:
        assert not sampler.sample(2).any()


def test_an_own_backend_fills_shards_of_an_own_format(gan, bundle: Path, lab: Path) -> None:
    own = ("--backend", "mylab.fast", "--format", "mylab.raw")
    result = gan("sample", bundle, "-n", 5, "-o", "shards", *own, cwd=lab)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "5 images by mylab.fast on cpu" in result.stdout
    with Sampler(bundle) as sampler:
        expected = sampler.sample(5).tobytes()
    assert (lab / "shards" / "shard-000000.raw").read_bytes() == expected

    result = gan("sample", bundle, "-n", 5, "-o", "shards", *own, cwd=lab.parent / "elsewhere")
    assert_a_users_mistake(result, "backend: mylab.fast: there is no module 'mylab'")


def test_shards_of_a_changed_format_are_not_mixed(bundle: Path, lab: Path) -> None:
    with Sampler(bundle) as sampler:
        write_shards(sampler, 5, lab / "shards", format="mylab.raw")
        assert write_shards(sampler, 5, lab / "shards", format="mylab.raw").num_kept == 1
        (lab / "mylab" / "raw.py").write_text(MYLAB["raw.py"] + "\n# as big-endian\n")
        with pytest.raises(RequestError, match="format 'mylab.raw@.*', now 'mylab.raw@"):
            write_shards(sampler, 5, lab / "shards", format="mylab.raw")


def test_a_sampler_of_an_own_backend_goes_to_another_process(bundle: Path, lab: Path) -> None:
    with (
        Sampler(bundle, backend="mylab.fast") as sampler,
        pickle.loads(pickle.dumps(sampler)) as again,
    ):
        assert again.info["backend"] == "mylab.fast"
        assert np.array_equal(again.sample(2), sampler.sample(2))


@pytest.fixture
def measured(bundle: Path, lab: Path) -> Report:
    return bench(bundle, backends=["mylab.fast"], precisions=["fp32"], seconds=0.01)


def test_an_own_backend_is_measured_and_not_tuned(measured: Report) -> None:
    assert [found.name for found in measured.measured] == ["mylab.fast fp32"]
    with pytest.raises(ConfigError, match='backend="mylab.fast", or measure ours'):
        tune(measured)


def test_what_is_no_backend_is_refused(bundle: Path, lab: Path) -> None:
    (lab / "mylab" / "none.py").write_text(
        "def precisions(bundle): return ['fp32']\ndef open(bundle, device, precision): return 3\n"
    )
    with pytest.raises(ConfigError, match="backend mylab.none: int has no name, device, precision"):
        Sampler(bundle, backend="mylab.none")


def test_what_is_no_generator_is_refused(shapes: Path, lab: Path) -> None:
    nets = lab / "mylab" / "nets.py"
    nets.write_text(nets.read_text().replace(', self.z_distribution = z_dim, num_classes, "normal"',
                                             " = z_dim, num_classes"))  # fmt: skip
    config = parse_config(own_recipe(shapes), where="x.toml")
    with pytest.raises(ConfigError, match=r"x.toml \[model\] mylab.nets: .* has no z_distribution"):
        build_generator(config, 16, 3, 3)


def test_a_metric_gives_scores_of_its_own(run: Path, lab: Path) -> None:
    metric = lab / "mylab" / "brightness.py"
    metric.write_text(metric.read_text() + "\nclass Bare(Brightness):\n"
        "    scores = staticmethod(lambda reference, fake: {'brightness': 1.0})\n")  # fmt: skip
    own = "mylab.brightness:Brightness", "mylab.brightness:Bare"
    with pytest.raises(ConfigError, match="mylab.brightness:Bare gives .* expected a dict"):
        evaluate(run, metrics=own[1:], num_images=2)
    metric.write_text(metric.read_text().replace("1.0}", "Score(1.0)}"))
    for name in [name for name in sys.modules if name.startswith("mylab")]:
        del sys.modules[name]
    with pytest.raises(ConfigError, match="Bare gives brightness, as another metric does"):
        evaluate(run, metrics=own, num_images=2)


def test_a_changed_network_is_measured_again(shapes: Path, lab: Path) -> None:
    config = parse_config(own_recipe(shapes), where="x.toml")
    (own,) = [part for part in config.own_parts if "nets" in part]
    (lab / "mylab" / "blocks.py").write_text("SCALE = 2.0\n")
    assert own.startswith("mylab.nets@")
    assert own not in config.own_parts
    assert parse_config(tiny_recipe(shapes), where="x.toml").own_parts == []


def test_no_file_of_a_stranger_makes_anything_be_imported(
    copied: Path, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a bundle, nor the request of shards, nor what was tuned."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(lab / "cache"))
    (lab / "evil").mkdir()
    for name in ("code", "raw"):
        (lab / "evil" / f"{name}.py").write_text(MYLAB["raw.py"] + MYLAB["fast.py"])

    def name_evil(manifest: dict) -> None:
        manifest["model"]["family"] = "evil.code"
        for part in ("model", "objective"):
            manifest["source"]["config"][part]["name"] = "evil.code"
        manifest["source"]["config"]["regularizers"] = [{"name": "evil.code"}]

    rewrite_manifest(copied, name_evil)
    with Sampler(copied) as sampler:
        sha256 = sampler.sha256
        write_shards(sampler, 2, lab / "shards")
        request = lab / "shards" / "request.json"
        request.write_text(request.read_text().replace('"tar"', '"evil.raw"'))
        with pytest.raises(RequestError, match="format 'evil.raw', now 'tar'"):
            write_shards(sampler, 2, lab / "shards")
    tuned = Choice(
        backend="evil.code", device="cpu", precision="fp32", images_per_s=9.0, compared=""
    )
    remember(sha256, this_host(), tuned)
    with Sampler(copied) as sampler:
        assert "tuned: there is no 'evil.code'" in sampler.info["reason"]
    evaluate(copied, metrics=["parzen"], num_images=10)
    assert not [name for name in sys.modules if name.partition(".")[0] == "evil"]
