"""What the papers prove, between distributions that are known.

Expectations are taken over a distribution's quantiles, so that the only error left is D's.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats
from torch import Tensor, nn

from gantrain.game.draws import Draws
from gantrain.game.parts import Game
from gantrain.models import mlp
from gantrain.objectives import adaptive_hinge, f_gan, hinge, minimax, nonsaturating, wgan
from gantrain.regularizers import gradient_penalty, spectral_norm, weight_clipping

CPU = torch.device("cpu")
NUM_POINTS = 1000

# f of each divergence (1606.00709, tables 1 and 5), D_f(P || Q) = integral of q f(p / q).
F: dict[str, Callable[[float], float]] = {
    "total_variation": lambda u: abs(u - 1) / 2,
    "kl": lambda u: u * math.log(u),
    "reverse_kl": lambda u: -math.log(u),
    "pearson": lambda u: (u - 1) ** 2,
    "neyman": lambda u: (1 - u) ** 2 / u,
    "squared_hellinger": lambda u: (math.sqrt(u) - 1) ** 2,
    "jensen_shannon": lambda u: u * math.log(u) - (u + 1) * math.log((1 + u) / 2),
    "gan": lambda u: u * math.log(u) - (u + 1) * math.log(1 + u),
}
# f'(1): the value of g_f(v) at which D cannot tell.
THRESHOLD = {"kl": 1.0, "reverse_kl": -1.0, "gan": -math.log(2)}


def quantiles(mean: float, std: float = 1.0) -> Tensor:
    """(NUM_POINTS, 1, 1, 1)."""
    levels = (np.arange(NUM_POINTS) + 0.5) / NUM_POINTS
    return torch.tensor(stats.norm.ppf(levels, mean, std), dtype=torch.float32)[:, None, None, None]


def game(objective: nn.Module, *regularizers: tuple[str, nn.Module], hidden: int = 64) -> Game:
    """An unconditional game of two small networks over numbers."""
    torch.manual_seed(0)
    generator = mlp.Generator(1, 1, 0, z_dim=2, hidden=[16])
    discriminator = mlp.Discriminator(1, 1, 0, hidden=[hidden, hidden], pieces=0)
    for _, regularizer in regularizers:
        regularizer.change_discriminator(discriminator)
    return Game(generator, discriminator, objective, regularizers, Draws(0, CPU))


def train_discriminator(
    played: Game, real: Tensor, fake: Tensor, *, steps: int, rate: float = 5e-3
) -> float:
    """D's best loss, penalties left out."""
    optimizer = torch.optim.Adam(played.discriminator.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss, step = played.discriminator_loss(real, fake, None)
        torch.autograd.backward(loss)
        optimizer.step()
        for _, hook in played.hooks:
            hook.after_discriminator_step(played, step.real.logits, step.fake.logits)
        schedule.step()
    with torch.no_grad():
        logits = played.discriminator(real), played.discriminator(fake)
        return float(played.objective.discriminator_loss(*logits))


def divergence(name: str, p: stats.rv_continuous, q: stats.rv_continuous) -> float:
    """D_f(P || Q) by numerical integration."""
    low, high = q.mean() - 7 * q.std(), q.mean() + 7 * q.std()
    return integrate.quad(lambda x: q.pdf(x) * F[name](p.pdf(x) / q.pdf(x)), low, high, limit=200)[
        0
    ]


def test_the_best_discriminator_makes_the_game_worth_twice_the_jsd_minus_log_4() -> None:
    value = -train_discriminator(game(minimax.Objective()), quantiles(0), quantiles(1.5), steps=400)
    # The table's Jensen-Shannon is twice the usual one.
    expected = divergence("jensen_shannon", stats.norm(0, 1), stats.norm(1.5, 1)) - math.log(4)
    assert value == pytest.approx(expected, rel=0.02)


def test_the_game_is_worth_minus_log_4_where_the_distributions_agree() -> None:
    played = game(minimax.Objective())
    value = -train_discriminator(played, quantiles(0), quantiles(0), steps=300)
    assert value == pytest.approx(-math.log(4), rel=0.001)
    with torch.no_grad():
        assert torch.sigmoid(played.discriminator(quantiles(0))).sub(0.5).abs().max() < 0.02


@pytest.mark.parametrize("name", list(F))
def test_the_f_gan_bound_is_tight(name: str) -> None:
    p, q = stats.norm(0, 1), stats.norm(0.5, 1)
    played = game(f_gan.Objective(divergence=name))
    bound = -train_discriminator(played, quantiles(0), quantiles(0.5), steps=500, rate=2e-3)
    assert bound == pytest.approx(divergence(name, p, q), rel=0.05)


@pytest.mark.parametrize("name", list(F))
def test_conjugates_and_activations_agree_with_f(name: str) -> None:
    v = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)
    t, conjugate = f_gan.ACTIVATION[name](v), f_gan.CONJUGATE[name](v)
    for value, found in zip(t.tolist(), conjugate.tolist(), strict=True):
        # f*(t) = sup over u > 0 of u t - f(u), over log u.
        best = optimize.minimize_scalar(
            lambda s, t=value: F[name](math.exp(s)) - t * math.exp(s),
            bounds=(-12, 12),
            method="bounded",
            options={"xatol": 1e-10},
        )
        # Pearson's f* in the table is that of f on all of R.
        if name == "pearson" and value < -2:
            continue
        assert found == pytest.approx(-best.fun, abs=1e-4)
    assert (t.diff() > 0).all(), "a large V means real"
    if name in THRESHOLD:
        assert f_gan.ACTIVATION[name](torch.tensor(_v_of(name))) == pytest.approx(THRESHOLD[name])


def _v_of(name: str) -> float:
    """Where g_f reaches f'(1)."""
    return {"kl": 1.0, "reverse_kl": 0.0, "gan": 0.0}[name]


@pytest.mark.parametrize(
    ("name", "regularizer"),
    [
        ("weight_clipping", weight_clipping.Regularizer(clip=0.2)),
        ("gradient_penalty", gradient_penalty.Regularizer(weight=100.0)),
    ],
)
@pytest.mark.parametrize("shift", [0.5, 3.0])
def test_wasserstein_critics_find_the_distance_of_shifted_distributions(
    name: str, regularizer: nn.Module, shift: float
) -> None:
    played = game(wgan.Objective(), (name, regularizer), hidden=32)
    # Right of 0, where a clipped critic of rectifiers can be steep everywhere.
    real, fake = quantiles(2 + shift, 0.3), quantiles(2, 0.3)
    distance = -train_discriminator(played, real, fake, steps=400)
    if name == "weight_clipping":  # a K-Lipschitz critic finds K W1
        grid = torch.linspace(1, 3 + shift, 1001)[:, None, None, None]
        with torch.no_grad():
            slope = played.discriminator(grid).diff().abs().max() / ((2 + shift) / 1000)
        distance /= float(slope)
    assert distance == pytest.approx(shift, rel=0.05)


def test_the_saturating_gradient_vanishes_under_a_perfect_discriminator() -> None:
    norms = []
    played = game(minimax.Objective())
    z = torch.randn(200, 2)
    with torch.no_grad():
        fake = played.generator(z)
    train_discriminator(played, fake + 4, fake, steps=300)
    for objective in (minimax.Objective(), nonsaturating.Objective()):
        played.objective = objective
        played.generator.zero_grad()
        torch.autograd.backward(played.generator_loss(z, None, fake))
        gradients = [p.grad.flatten() for p in played.generator.parameters()]
        norms.append(float(torch.cat(gradients).norm()))
    assert norms[0] / norms[1] < 1e-3
    assert norms[1] > 1e-3


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_a_network_under_spectral_norm_is_1_lipschitz(scale: float) -> None:
    torch.manual_seed(0)
    network = mlp.Discriminator(4, 3, 0, hidden=[32, 32, 32], pieces=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(scale)
    spectral_norm.Regularizer().change_discriminator(network)
    x = torch.randn(500, 3, 4, 4)
    for _ in range(20):
        network(x)
    network.eval()
    points = x.clone().requires_grad_()
    (gradients,) = torch.autograd.grad(network(points).sum(), points)
    near = x + 1e-2 * torch.randn_like(x)
    slopes = (network(near) - network(x)).abs() / (near - x).flatten(1).norm(dim=1)
    assert gradients.flatten(1).norm(dim=1).max() <= 1.001
    assert slopes.max() <= 1.001
    # The bound is no empty one: weights ten times or a tenth as large give the same network.
    assert gradients.flatten(1).norm(dim=1).max() > 0.01


def test_the_adaptive_margin_widens_when_most_samples_are_right_already() -> None:
    played = game(adaptive_hinge.Objective(target_share=0.75, rate=0.05))
    train_discriminator(played, quantiles(2.0), quantiles(-2.0), steps=200)
    assert float(played.objective.margin) > 1.5


def test_the_margin_widens_narrows_and_stays_in_its_bounds() -> None:
    for logit, bound in ((100.0, 10.0), (-100.0, 0.1)):
        objective = adaptive_hinge.Objective(rate=1.0)
        played = game(objective)
        logits = torch.full((8,), logit)
        margins = [1.0]
        for _ in range(30):
            objective.after_discriminator_step(played, logits, -logits)
            margins.append(float(objective.margin))
        direction = np.sign(bound - 1.0)
        assert direction * (margins[1] - margins[0]) > 0
        assert margins[-1] == pytest.approx(bound)


def test_a_constant_margin_of_one_is_the_plain_hinge() -> None:
    real, fake = torch.randn(50), torch.randn(50)
    adaptive = adaptive_hinge.Objective(rate=0.0)
    assert torch.equal(
        adaptive.discriminator_loss(real, fake), hinge.Objective().discriminator_loss(real, fake)
    )
