import math

import pytest
import torch

from ganinfer.lookup import find_module, module_names
from gantrain.objectives import hinge, minimax, nonsaturating

OBJECTIVES = module_names("gantrain.objectives")
REAL = torch.tensor([2.0, -0.5, 0.3])
FAKE = torch.tensor([-1.5, 0.7, 0.1])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_discriminator_that_is_right_has_the_smaller_loss(name: str) -> None:
    objective = find_module("gantrain.objectives", name, where="test").Objective()
    right = objective.discriminator_loss(REAL + 2, FAKE - 2)
    wrong = objective.discriminator_loss(REAL - 2, FAKE + 2)
    assert right < wrong
    assert objective.generator_loss(FAKE + 1) < objective.generator_loss(FAKE)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("scale", [1e-3, 1e2])
def test_losses_and_gradients_stay_finite(name: str, scale: float) -> None:
    objective = find_module("gantrain.objectives", name, where="test").Objective()
    real, fake = (REAL * scale).requires_grad_(), (FAKE * scale).requires_grad_()
    loss = objective.discriminator_loss(real, fake) + objective.generator_loss(fake)
    loss.backward()
    assert loss.isfinite()
    assert real.grad.isfinite().all()
    assert fake.grad.isfinite().all()


def test_minimax_is_the_value_of_the_game() -> None:
    value = torch.sigmoid(REAL).log().mean() + (1 - torch.sigmoid(FAKE)).log().mean()
    assert minimax.Objective().discriminator_loss(REAL, FAKE).item() == pytest.approx(-value.item())
    expected = (1 - torch.sigmoid(FAKE)).log().mean().item()
    assert minimax.Objective().generator_loss(FAKE).item() == pytest.approx(expected)


def test_an_undecided_discriminator_gives_minus_log_four() -> None:
    loss = minimax.Objective().discriminator_loss(torch.zeros(5), torch.zeros(5))
    assert loss.item() == pytest.approx(math.log(4))


def test_the_saturating_gradient_vanishes_where_the_other_does_not() -> None:
    gradients = []
    for objective in (minimax.Objective(), nonsaturating.Objective()):
        logits = torch.full((4,), -12.0, requires_grad=True)
        objective.generator_loss(logits).backward()
        gradients.append(logits.grad.norm().item())
    assert gradients[0] < 1e-4 * gradients[1]


def test_hinge_is_the_formula() -> None:
    expected = (0 + 1.5 + 0.7) / 3 + (0 + 1.7 + 1.1) / 3
    assert hinge.Objective().discriminator_loss(REAL, FAKE).item() == pytest.approx(expected)
    assert hinge.Objective().generator_loss(FAKE).item() == pytest.approx(-FAKE.mean().item())
