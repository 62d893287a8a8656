import pytest
import torch

from gantrain.models.dcgan import Generator
from gantrain.training.ema import Ema


def set_all(network: Generator, value: float) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)


def test_half_life_is_counted_in_images() -> None:
    network = Generator(8, 1, 0, z_dim=4, width=4)
    set_all(network, 0.0)
    ema = Ema(network, half_life_kimg=1.0)
    set_all(network, 1.0)
    for _ in range(10):  # 1,000 images, late in a run: one half-life
        ema.update(network, batch_size=100, images_seen=10**9)
    assert next(ema.network.parameters()).mean().item() == pytest.approx(0.5, abs=1e-5)


def test_early_on_the_average_follows_closely() -> None:
    network = Generator(8, 1, 0, z_dim=4, width=4)
    set_all(network, 0.0)
    ema = Ema(network, half_life_kimg=1000.0)
    set_all(network, 1.0)
    ema.update(network, batch_size=100, images_seen=2000)  # half-life of 100 images
    assert next(ema.network.parameters()).mean().item() == pytest.approx(0.5, abs=1e-5)


def test_buffers_are_copied_and_the_average_is_in_eval_mode() -> None:
    network = Generator(8, 1, 0, z_dim=4, width=4)
    ema = Ema(network, half_life_kimg=10.0)
    network(torch.randn(16, 4))
    ema.update(network, batch_size=16, images_seen=16)
    for average, value in zip(ema.network.buffers(), network.buffers(), strict=True):
        assert torch.equal(average, value)
    assert not ema.network.training
    assert network.training
