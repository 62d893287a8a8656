"""Each technique against its paper's formula, on networks that are small enough to check."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL
from torch import nn
from torch.nn import functional
from torch.nn.functional import softplus

from ganinfer.errors import ConfigError
from ganinfer.lookup import find_module
from gantrain.game.build import build_discriminator, build_game
from gantrain.game.config import load_config, parse_config
from gantrain.game.draws import Draws
from gantrain.game.parts import Game, Step
from gantrain.models import dcgan, mlp
from gantrain.models._base import StyledGenerator
from gantrain.models._mapping import Mapping
from gantrain.objectives import hinge, minimax, nonsaturating, relativistic, wgan
from gantrain.regularizers import (
    ada,
    diffaugment,
    image_consistency,
    minibatch_discrimination,
    minibatch_stddev,
    orthogonal,
    path_length,
    spectral_norm,
)
from gantrain.regularizers._head import WidenedHead

CPU = torch.device("cpu")
REAL, FAKE = torch.randn(2, 8, 3, 16, 16, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)


def make(
    regularizers: list[dict[str, Any]],
    objective: nn.Module | None = None,
    *,
    points: bool = False,
    **discriminator: Any,
) -> Game:
    """A small unconditional DCGAN's game."""
    torch.manual_seed(0)
    built = []
    for options in regularizers:
        rest = {key: value for key, value in options.items() if key != "name"}
        module = find_module("gantrain.regularizers", options["name"], where="test")
        built.append((options["name"], module.Regularizer(**rest)))
    generator = dcgan.Generator(16, 3, 0, **SMALL["dcgan"][0])
    d = dcgan.Discriminator(16, 3, 0, width=8, **discriminator)
    for _, hook in built:
        hook.change_generator(generator)
        hook.change_discriminator(d)
    played = objective or nonsaturating.Objective()
    return Game(generator, d, played, built, Draws(0, CPU), points=points)


def penalty(game: Game) -> float:
    """What the regularizers add to D's loss."""
    loss, step = game.discriminator_loss(REAL, FAKE, None)
    plain = game.objective.discriminator_loss(step.real.logits, step.fake.logits)
    return float((loss - plain).detach())


def slopes(game: Game, images: torch.Tensor) -> torch.Tensor:
    """||grad s|| at each image, by finite differences of every pixel along the gradient."""
    images = images.clone().requires_grad_()
    (gradients,) = torch.autograd.grad(game.discriminator(images).sum(), images)
    norms = gradients.flatten(1).norm(dim=1)
    direction = gradients / norms[:, None, None, None]
    eps = 1e-2
    with torch.no_grad():
        ahead, behind = (game.discriminator(images + s * eps * direction) for s in (1, -1))
    assert torch.allclose((ahead - behind) / (2 * eps), norms, rtol=0.05)
    return norms


@pytest.mark.parametrize(("name", "images"), [("r1", REAL), ("r2", FAKE)])
def test_r1_and_r2_are_half_gamma_times_the_squared_slope(name: str, images) -> None:
    game = make([{"name": name, "gamma": 3000.0}])
    expected = 1500 * slopes(game, images).square().mean().item()
    assert penalty(game) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["r1", "r2"])
def test_lazily_counted_they_are_worth_as_much(name: str) -> None:
    each, lazy = make([{"name": name}]), make([{"name": name, "interval": 4}])
    counted = []
    for lazy.rounds in range(8):
        counted.append(penalty(lazy))
    assert [value > 0 for value in counted] == [True, False, False, False] * 2
    assert sum(counted) / 8 == pytest.approx(penalty(each), rel=1e-3)


class LinearSynthesis(nn.Module):
    """Styles (N, L, D) -> images (N, 1, 4, 4), linear in the styles."""

    def __init__(self, num_styles: int, w_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, num_styles, w_dim))

    def forward(self, styles: torch.Tensor) -> torch.Tensor:
        return torch.einsum("pld,nld->np", self.weight, styles).view(-1, 1, 4, 4)


class Linear(StyledGenerator):
    z_dim, num_classes, z_distribution, num_styles, w_dim = 5, 0, "normal", 3, 6

    def __init__(self) -> None:
        super().__init__()
        self.mapping, self.synthesis = Mapping(5, 0, 0, [6]), LinearSynthesis(3, 6)


def test_path_length_is_that_of_a_linear_generators_matrix_and_so_is_its_gradient() -> None:
    torch.manual_seed(0)
    generator, d = Linear(), mlp.Discriminator(4, 1, 0, hidden=[8])
    hook = path_length.Regularizer(weight=2.0, interval=4, share=2, rate=0.01)
    game = Game(generator, d, hinge.Objective(), [("path_length", hook)], Draws(0, CPU))
    step, a = Step(game, None, None, None, torch.randn(8, 5)), generator.synthesis.weight  # type: ignore[arg-type]
    game.rounds = 3
    assert hook.generator_penalty(step) == 0.0
    game.rounds = 4
    torch.manual_seed(1)
    found = hook.generator_penalty(step)
    torch.manual_seed(1)
    noise = torch.randn(4, 16) / 4  # half of the latents, 4x4 pixels
    back = torch.einsum("pld,np->nld", a.detach(), noise)  # J^T e
    lengths = back.square().sum(2).mean(1).sqrt()
    mean = 0.01 * lengths.mean()
    assert hook.mean.item() == pytest.approx(mean.item(), rel=1e-5)
    assert found.item() == pytest.approx(4 * 2 * (lengths - mean).square().mean().item(), rel=1e-4)
    (gradient,) = torch.autograd.grad(found, a)
    factors = 4 * 2 * 2 / 4 * (lengths - mean) / lengths / 3  # of 4 images and 3 styles
    torch.testing.assert_close(gradient, torch.einsum("n,np,nld->pld", factors, noise, back))


def test_the_gradient_penalty_is_taken_between_real_and_generated_images() -> None:
    game = make([{"name": "gradient_penalty", "weight": 7.0}], wgan.Objective())
    found = penalty(game)
    share = Draws(0, CPU).uniform(8, 1, 1, 1)
    between = share * REAL + (1 - share) * FAKE
    expected = 7 * (slopes(game, between) - 1).square().mean().item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_penalty_changes_the_weights_gradients() -> None:
    for name in ("r1", "r2", "gradient_penalty"):
        game = make([{"name": name}])
        loss, step = game.discriminator_loss(REAL, FAKE, None)
        plain = game.objective.discriminator_loss(step.real.logits, step.fake.logits)
        weights = list(game.discriminator.parameters())
        gradients = torch.autograd.grad(loss - plain, weights, allow_unused=True)
        assert any(g is not None and g.abs().sum() > 0 for g in gradients)


def test_label_smoothing_is_the_cross_entropy_with_a_softer_target() -> None:
    game = make([{"name": "label_smoothing", "real_target": 0.9}], minimax.Objective())
    loss, step = game.discriminator_loss(REAL, FAKE, None)
    s = step.real.logits
    real = nn.functional.binary_cross_entropy_with_logits(s, torch.full_like(s, 0.9))
    expected = real + softplus(step.fake.logits).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_weights_are_clipped_after_ds_step_only() -> None:
    game = make([{"name": "weight_clipping", "clip": 0.01}], wgan.Objective())
    _, step = game.discriminator_loss(REAL, FAKE, None)
    assert max(p.abs().max() for p in game.discriminator.parameters()) > 0.01
    for _, hook in game.hooks:
        hook.after_discriminator_step(game, step.real.logits, step.fake.logits)
    assert max(p.abs().max() for p in game.discriminator.parameters()) <= 0.01


def test_spectral_norm_brings_the_largest_singular_value_of_every_layer_to_one() -> None:
    game = make([{"name": "spectral_norm", "networks": ["generator", "discriminator"]}])
    z = torch.randn(4, game.generator.z_dim)
    for _ in range(200):
        game.discriminator(game.generator(z))
    game.generator.eval()
    game.discriminator.eval()
    for network in (game.generator, game.discriminator):
        for layer in network.modules():
            if isinstance(layer, spectral_norm.LAYERS):
                out = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
                matrix = layer.weight.detach().transpose(0, out).flatten(1)
                sigma = torch.linalg.matrix_norm(matrix, 2).item()
                assert sigma == pytest.approx(1, abs=1e-2)


def test_orthogonal_regularisation_is_zero_for_orthogonal_filters_alone() -> None:
    layer = nn.Linear(10, 4)
    nn.init.orthogonal_(layer.weight, gain=3.0)
    assert orthogonal.non_orthogonality(layer).item() == pytest.approx(0, abs=1e-3)
    with torch.no_grad():
        layer.weight[1] = layer.weight[0]
    w = layer.weight.detach()
    products = w @ w.T * (1 - torch.eye(4))
    expected = products.square().sum().item()
    assert orthogonal.non_orthogonality(layer).item() == pytest.approx(expected, rel=1e-5)


def test_feature_matching_compares_mean_features_and_stands_alone() -> None:
    game = make([{"name": "feature_matching", "weight": 2.0}])
    z = torch.randn(8, game.generator.z_dim)
    found = game.generator_loss(z, None, REAL).item()
    with torch.no_grad():
        features = (game.discriminator.features(x).mean(0) for x in (REAL, game.generator(z)))
    real, fake = features
    assert found == pytest.approx(2 * (real - fake).square().sum().item(), rel=1e-4)
    kept = make([{"name": "feature_matching", "weight": 2.0, "generator_loss": "kept"}])
    fooling = softplus(-kept.discriminator(kept.generator(z))).mean().item()
    assert kept.generator_loss(z, None, REAL).item() == pytest.approx(found + fooling, rel=1e-4)


def test_minibatch_discrimination_sees_a_collapsed_batch() -> None:
    torch.manual_seed(0)
    layer = minibatch_discrimination.MinibatchDiscrimination(6, 3, 2).requires_grad_(False)
    features = torch.randn(4, 6)
    found = layer(features)[:, 6:]
    m = torch.einsum("nf,fbc->nbc", features, layer.tensor)
    for i in range(4):
        for b in range(3):
            o = sum(math.exp(-float((m[i, b] - m[j, b]).abs().sum())) for j in range(4) if j != i)
            assert found[i, b].item() == pytest.approx(o, rel=1e-4)
    collapsed = layer(features[:1].expand(4, 6))[:, 6:]
    assert torch.allclose(collapsed, torch.full((4, 3), 3.0))


def test_minibatch_stddev_is_the_mean_spread_of_a_group() -> None:
    layer = minibatch_stddev.MinibatchStddev(4)
    features = torch.randn(8, 5)
    found = layer(features)[:, 5]
    for first in range(2):  # groups are interleaved, as in the paper's code
        group = features[first::2]
        expected = group.std(0, unbiased=False).mean()
        assert torch.allclose(found[first::2], expected.expand(4), atol=1e-5)
    assert layer(features[:1].expand(8, 5))[:, 5].max() < 1e-3


def test_heads_are_widened_one_after_the_other() -> None:
    game = make([{"name": "minibatch_discrimination"}, {"name": "minibatch_stddev"}])
    assert game.discriminator(REAL).shape == (8,)
    names = {type(m).__name__ for m in game.discriminator.modules()}
    assert {"MinibatchDiscrimination", "MinibatchStddev"} <= names


def test_historical_averaging_pulls_to_the_mean_of_the_past() -> None:
    game = make([{"name": "historical_averaging", "weight": 0.5}])
    hook = game.named("historical_averaging")
    past = []
    for n in range(3):
        with torch.no_grad():
            for p in game.discriminator.parameters():
                p.add_(0.1 * n)
        _, step = game.discriminator_loss(REAL, FAKE, None)
        hook.after_discriminator_step(game, step.real.logits, step.fake.logits)
        past.append([p.detach().clone() for p in game.discriminator.parameters()])
    means = [torch.stack(values).mean(0) for values in zip(*past, strict=True)]
    pairs = zip(past[-1], means, strict=True)
    expected = 0.5 * sum(float((p - m).square().sum()) for p, m in pairs)
    assert penalty(game) == pytest.approx(expected, rel=1e-3)
    fresh = make([{"name": "historical_averaging", "weight": 0.5}])
    fresh.named("historical_averaging").load_state_dict(hook.state_dict())
    assert torch.equal(
        fresh.named("historical_averaging").discriminator_mean.p0, hook.discriminator_mean.p0
    )


def test_under_virtual_batch_norm_an_image_does_not_depend_on_its_batch() -> None:
    game = make([{"name": "virtual_batch_norm", "reference_size": 16}])
    generator, z = game.generator, torch.randn(6, game.generator.z_dim)
    together = generator(z)
    assert together.shape[0] == 6
    alone = torch.cat([generator(z[n : n + 1]) for n in range(6)])
    assert torch.allclose(together, alone, atol=1e-5)
    generator.eval()  # the statistics of the reference batch are kept
    assert torch.allclose(generator(z), together, atol=1e-5)
    assert torch.allclose(generator(z[:1]), together[:1], atol=1e-5)


def test_instance_noise_falls_to_zero() -> None:
    game = make([{"name": "instance_noise", "sigma": 0.2, "decay_kimg": 1.0}])
    spread = []
    for images_seen in (0, 500, 1000, 2000):
        game.images_seen = images_seen
        spread.append(float((game.augment(REAL) - REAL).std()))
    assert spread[0] == pytest.approx(0.2, rel=0.1)
    assert spread[1] == pytest.approx(0.1, rel=0.1)
    assert spread[2:] == [0.0, 0.0]


def test_diffaugment_shifts_and_cuts_and_lets_gradients_through() -> None:
    draws = Draws(0, CPU)
    images = REAL.clone().requires_grad_()
    for change in (diffaugment.color, diffaugment.translate, diffaugment.cutout):
        changed = change(images, draws)
        assert changed.shape == images.shape
        assert not torch.equal(changed, images)
        (gradient,) = torch.autograd.grad(changed.sum(), images)
        assert gradient.abs().sum() > 0
    ramp = torch.arange(16.0).expand(64, 1, 16, 16) + 1
    moved = diffaugment.translate(ramp, draws)
    shifts = {int(row[row > 0][0] - (row > 0).nonzero()[0, 0]) for row in moved[:, 0, 8]}
    assert shifts == {-1, 0, 1, 2, 3} or shifts <= {-1, 0, 1, 2, 3}
    holes = (diffaugment.cutout(torch.ones(200, 1, 16, 16), draws) == 0).sum((1, 2, 3))
    assert holes.max() == 64
    assert holes.min() >= 16


def test_augmentations_know_the_height_and_the_width() -> None:
    draws = Draws(0, CPU)
    wide = torch.ones(200, 1, 16, 48)
    seen = diffaugment.translate(wide, draws)[:, 0] > 0  # zeros come in
    assert (seen.any(2).sum(1).min(), seen.any(1).sum(1).min()) == (16 - 2, 48 - 6)
    holes = diffaugment.cutout(wide, draws)[:, 0] == 0
    assert (holes.any(2).sum(1).max(), holes.any(1).sum(1).max()) == (8, 24)
    # A square in the middle stays one by a quarter turn.
    inner = torch.rand(1, 1, 8, 8)
    square, expected = (functional.pad(x, (20, 20, 4, 4)) for x in (inner, inner.rot90(1, (2, 3))))
    quarter = ada._rotate(torch.tensor([math.pi / 2]), 16 / 48)[:, :2]
    grid = functional.affine_grid(quarter, [1, 1, 16, 48], align_corners=False)
    assert torch.allclose(
        functional.grid_sample(square, grid, align_corners=False), expected, atol=1e-4
    )
    assert ada.warp(wide, torch.tensor(1.0), draws).shape == wide.shape


def test_ada_leaves_images_alone_at_p_0_and_changes_them_at_p_1() -> None:
    draws = Draws(0, CPU)
    for change in (ada.warp, ada.recolor):
        assert torch.allclose(change(REAL, torch.tensor(0.0), draws), REAL, atol=1e-4)
        changed = change(REAL, torch.tensor(1.0), draws)
        assert (changed - REAL).abs().flatten(1).max(1).values.min() > 0.05
        grey = change(REAL[:, :1], torch.tensor(1.0), draws)
        assert grey.shape == (8, 1, 16, 16)


def test_adas_flips_and_inversions_can_be_told_from_the_images() -> None:
    """Half of them change nothing even at p = 1: otherwise G could learn the mirrored world."""
    draws = Draws(0, CPU)
    ramp = torch.linspace(-1, 1, 16).expand(400, 3, 16, 16)
    grey = ada.recolor(ramp, torch.tensor(1.0), draws).mean(1)
    inverted = (grey[:, :, -1] < grey[:, :, 0]).all(1).float().mean()
    assert 0.4 < float(inverted) < 0.6


def test_spectral_norm_comes_last_whatever_the_order() -> None:
    config = load_config(Path("dcgan-digits")).as_dict()
    config["regularizers"] = [{"name": "spectral_norm"}, {"name": "minibatch_stddev"}]
    network = build_discriminator(parse_config(config, where="x"), 16, 1, 10)
    assert network(torch.randn(4, 1, 16, 16), torch.arange(4)).shape == (4,)
    assert "parametrizations" in "".join(network.head.state_dict())


def test_ada_raises_p_while_d_is_sure_of_real_images() -> None:
    game = make([{"name": "ada", "adjust_kimg": 1.0}])
    hook = game.named("ada")
    for logit, direction in ((1.0, 1), (-1.0, -1)):
        logits = torch.full((8,), logit)
        before = float(hook.p)
        for _ in range(ada.INTERVAL):
            hook.after_discriminator_step(game, logits, -logits)
        assert float(hook.p) - before == pytest.approx(direction * 32 / 1000)
    assert hook.stats() == {"augment_p": pytest.approx(0.0, abs=1e-6)}


def test_lecam_pulls_logits_to_the_others_moving_average() -> None:
    game = make([{"name": "lecam", "weight": 2000.0, "decay": 0.5}], hinge.Objective())
    hook = game.named("lecam")
    _, step = game.discriminator_loss(REAL, FAKE, None)
    hook.after_discriminator_step(game, step.real.logits, step.fake.logits)
    anchors = (step.real.logits.mean() / 2, step.fake.logits.mean() / 2)
    assert torch.allclose(hook.anchors, torch.stack(anchors))
    real = (step.real.logits - anchors[1]).square().mean()
    fake = (step.fake.logits - anchors[0]).square().mean()
    assert penalty(game) == pytest.approx(2000 * float((real + fake).detach()), rel=1e-3)


def test_relativistic_pairing_compares_each_image_with_its_partner() -> None:
    game = make([], relativistic.Objective())
    loss, step = game.discriminator_loss(REAL, FAKE, None)
    gap = step.real.logits - step.fake.logits
    assert loss.item() == pytest.approx(softplus(-gap).mean().item(), rel=1e-5)
    z = torch.randn(8, game.generator.z_dim)
    fake = game.discriminator(game.generator(z))
    expected = softplus(game.discriminator(REAL) - fake).mean().item()
    assert game.generator_loss(z, None, REAL).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("regularizers", "objective", "options", "message"),
    [
        ([{"name": "r1"}], None, {"batch_norm": True}, r"r1: D's layer norms.1 is a batch norm"),
        ([{"name": "r2"}], None, {"batch_norm": True}, r"r2: D's layer norms.1 is a batch norm"),
        (
            [{"name": "gradient_penalty"}],
            wgan.Objective(),
            {"batch_norm": True},
            "gradient_penalty: D's layer norms.1 is a batch norm",
        ),
        ([], wgan.Objective(), {}, "a Wasserstein critic must be Lipschitz"),
        (
            [{"name": "spectral_norm"}, {"name": "weight_clipping"}],
            wgan.Objective(),
            {},
            "weight_clipping: D is under spectral_norm",
        ),
        ([{"name": "label_smoothing"}], hinge.Objective(), {}, r"D = sigmoid\(logit\)"),
        ([{"name": "ada"}], None, {"points": True}, "ada: points cannot be augmented"),
        ([{"name": "ada"}], relativistic.Objective(), {}, "ada: .* gives them no zero point"),
        (
            [{"name": "spectral_norm", "networks": ["generator"]}],
            wgan.Objective(),
            {},
            "a Wasserstein critic must be Lipschitz",
        ),
        ([{"name": "diffaugment"}], None, {"points": True}, "diffaugment: points cannot"),
        ([{"name": "path_length"}], None, {}, "path_length: G makes no styles .* use it with"),
        ([{"name": "style_mixing"}], None, {}, "style_mixing: G makes no styles that could be"),
    ],
)
def test_parts_that_exclude_each_other_are_refused_by_name(
    regularizers, objective, options: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(regularizers, objective, **options)


def test_virtual_batch_norm_needs_a_batch_norm() -> None:
    generator = mlp.Generator(16, 3, 0, hidden=[8])
    discriminator = mlp.Discriminator(16, 3, 0, hidden=[8])
    module = find_module("gantrain.regularizers", "virtual_batch_norm", where="test")
    hook = module.Regularizer()
    hook.change_generator(generator)
    with pytest.raises(ConfigError, match="G has no batch norm of maps to replace"):
        Game(
            generator,
            discriminator,
            hinge.Objective(),
            [("virtual_batch_norm", hook)],
            Draws(0, CPU),
        )


def test_top_k_leaves_the_worst_images_out_of_gs_loss_and_more_with_each_epoch() -> None:
    game = make([{"name": "top_k", "decay": 0.8, "final": 0.5}], hinge.Objective())
    top_k = game.named("top_k")
    top_k.open_data(range(100), CPU, 0)
    z = torch.randn(8, game.generator.z_dim)
    with torch.no_grad():
        logits = game.discriminator(game.generator(z)).sort(descending=True).values
    for epochs, k in ((0, 8), (1, 7), (2, 6), (3, 5), (9, 4)):
        game.images_seen = 100 * epochs + 50
        loss = game.generator_loss(z, None, REAL)
        assert loss.item() == pytest.approx(-logits[:k].mean().item(), rel=1e-4)
        assert top_k.stats() == {"top_k_share": pytest.approx(max(0.8**epochs, 0.5))}


def test_parts_that_both_make_gs_loss_are_refused() -> None:
    with pytest.raises(ConfigError, match="feature_matching makes G's loss already"):
        make([{"name": "feature_matching"}, {"name": "top_k"}])


def test_image_consistency_is_the_distance_of_ds_logits_under_augmentation() -> None:
    options = {"name": "image_consistency", "real_weight": 3.0, "fake_weight": 2.0, "flip": False}
    game = make([options])
    _, step = game.discriminator_loss(REAL, FAKE, None)
    game.draws.restart(0)
    found = game.named("image_consistency").discriminator_penalty(step).item()
    draws, d = Draws(0, CPU), game.discriminator
    expected = 0.0
    for weight, images in ((3, REAL), (2, FAKE)):
        moved = diffaugment.translate(images, draws)
        expected += weight * (d(images) - d(moved)).square().mean().item()
    assert found == pytest.approx(expected, rel=1e-4)
    assert expected > 0


def test_a_flip_mirrors_about_half_of_the_images() -> None:
    images = torch.arange(12.0).view(1, 1, 3, 4).expand(400, 1, 3, 4)
    flipped = image_consistency.flip(images, Draws(0, CPU))
    turned = [torch.equal(image, images[0].flip(2)) for image in flipped]
    kept = [torch.equal(image, images[0]) for image in flipped]
    assert sum(turned) + sum(kept) == 400
    assert 160 < sum(turned) < 240


def test_latent_consistency_holds_d_and_drives_g_apart() -> None:
    options = {"name": "latent_consistency", "sigma": 0.5}
    game = make([{**options, "discriminator_weight": 3.0, "generator_weight": 2.0}])
    z = torch.randn(8, game.generator.z_dim)
    near = z + 0.5 * Draws(0, CPU).normal(*z.shape)
    with torch.no_grad():
        fake, close = game.generator(z), game.generator(near)
        logits = game.discriminator(fake), game.discriminator(close)
        both = game.generator(torch.cat([z, near])).chunk(2)
    hook = game.named("latent_consistency")
    _, step = game.discriminator_loss(REAL, fake, None, z)
    game.draws.restart(0)
    expected = 3 * (logits[0] - logits[1]).square().mean().item()
    assert hook.discriminator_penalty(step).item() == pytest.approx(expected, rel=1e-3)
    game.draws.restart(0)
    expected = -2 * (both[0] - both[1]).square().mean().item()
    assert hook.generator_penalty(step).item() == pytest.approx(expected, rel=1e-3)
    assert game.generator_loss(z, None, REAL).isfinite()  # it is given z there, too


def test_the_auxiliary_classifier_finds_classes_and_d_is_not_told_them() -> None:
    config = load_config(Path("dcgan-digits")).as_dict()
    config["model"] |= {"generator": SMALL["dcgan"][0], "discriminator": {"width": 8}}
    config["regularizers"] = [
        {"name": "minibatch_discrimination"},
        {"name": "auxiliary_classifier", "discriminator_weight": 2.0, "generator_weight": 3.0},
        {"name": "minibatch_stddev"},
    ]
    torch.manual_seed(0)
    game = build_game(parse_config(config, where="x"), 16, 3, 10, CPU)
    y = torch.arange(8)
    loss, step = game.discriminator_loss(REAL, FAKE, y)
    other, _ = game.discriminator_loss(REAL, FAKE, (y + 1) % 10)
    assert torch.equal(game.discriminator(REAL, y), game.discriminator(REAL, (y + 1) % 10))
    assert loss.item() != other.item()
    plain = game.objective.discriminator_loss(step.real.logits, step.fake.logits)
    head, features = game.discriminator.head, [step.real.features, step.fake.features]
    while isinstance(head, WidenedHead):
        features, head = [head.more(f) for f in features], head.head
    lost = [nn.functional.cross_entropy(head.classify(f), y) for f in features]
    assert (loss - plain).item() == pytest.approx(2 * sum(lost).item(), rel=1e-4)
    loss.backward()
    assert head.to_classes.weight.grad.abs().sum() > 0
