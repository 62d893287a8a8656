import copy

import torch

from gantrain.models import dcgan
from gantrain.training.standing import standing_statistics


def test_standing_statistics_are_those_of_the_latents_that_are_asked_for() -> None:
    torch.manual_seed(0)
    network = dcgan.Generator(16, 1, 3, width=8, z_dim=16)
    whole, truncated = copy.deepcopy(network), copy.deepcopy(network)
    standing_statistics(whole, num_batches=40)
    standing_statistics(truncated, num_batches=40, truncation=0.5)
    assert not whole.training
    first = whole.norms[0].norm
    maps = whole.project(torch.randn(20_000, 16)[:, :, None, None])
    assert torch.allclose(first.running_var, maps.var((0, 2, 3)), rtol=0.05)
    assert first.momentum == 0.1
    # Var of N(0, 1) given |z| <= 0.5 is 0.0806.
    ratio = truncated.norms[0].norm.running_var / first.running_var
    assert torch.allclose(ratio, torch.full_like(ratio, 0.0806), rtol=0.1)


def test_the_same_weights_give_the_same_statistics() -> None:
    torch.manual_seed(0)
    network = dcgan.Generator(16, 1, 0, width=8, z_dim=16)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for _ in range(3):
            other(torch.randn(8, 16))  # leaves statistics of its own behind
    standing_statistics(network)
    standing_statistics(other)
    for a, b in zip(network.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)
