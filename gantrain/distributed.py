"""Several processes train one GAN: each takes its share of every batch, and sums are over all.

Under torchrun a run gives, but for rounding, the weights that one process gives at the same global
batch: random numbers are drawn for the whole batch, batch norm takes the whole batch's statistics,
and gradients are averaged. Only dropout, the noise inside mlp's D and stylegan2's G, the mixed
styles, and the layers that compare a minibatch's images with each other are each process's own.
Without torchrun every function here does nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started; with one process, or none of it, do nothing."""
    if not several_processes() or distributed.is_initialized():
        yield
        return
    on_gpu = device.type == "cuda"
    # Long enough for the first process to measure a generator while the others wait. A barrier,
    # which has no tensor, would have to guess at the GPU.
    distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        timeout=timedelta(hours=2),
        device_id=device if on_gpu else None,
    )
    try:
        yield
        distributed.barrier()  # nobody leaves while another still speaks with it
    finally:
        distributed.destroy_process_group()


def several_processes() -> bool:
    """Has torchrun started more than this process?"""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """This process's number on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def processes_here() -> int:
    """How many of them torchrun started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def leads() -> bool:
    """Is this the process that speaks and writes, also before the group is joined?"""
    return int(os.environ.get("RANK", "0")) == 0


_alone: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Within it this process does not share its batches."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def world_size() -> int:
    """How many processes share the batch."""
    shared = distributed.is_initialized() and not _alone.get()
    return distributed.get_world_size() if shared else 1


def rank() -> int:
    """This process's number; 0 writes the run folder."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def barrier() -> None:
    """Wait until every process has come here."""
    if world_size() > 1:
        distributed.barrier()


class _AllMean(torch.autograd.Function):
    """y = mean over processes of x; every process's y depends on every x."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:  # noqa: ARG004
        y = x.clone()
        distributed.all_reduce(y)
        return y / world_size()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        # Gradients are averaged over the processes later, so each contributes its sum here.
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total / world_size()


def all_mean(x: Tensor) -> Tensor:
    """The mean of x over the processes; differentiable once."""
    if world_size() == 1:
        return x
    mean: Tensor = _AllMean.apply(x)  # type: ignore[no-untyped-call]
    return mean


class AnyProcess:
    """Has any process raised its flag? All hear it in the same step, one after it was raised.

    By then the answer is there, and no GPU stands still for it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._raised: Tensor | None = None

    def __call__(self, flag: bool) -> bool:
        """Raise it or not; every process calls this in every step."""
        if world_size() == 1:
            return flag
        before, self._raised = self._raised, torch.tensor(float(flag), device=self._device)
        distributed.all_reduce(self._raised)
        return before is not None and bool(before > 0)


def average_gradients(network: nn.Module) -> None:
    """Replace every gradient by its mean over the processes."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    flat /= world_size()
    sizes = [g.numel() for g in gradients]
    parts = [part.view_as(g) for part, g in zip(torch.split(flat, sizes), gradients, strict=True)]
    torch._foreach_copy_(gradients, parts)


def my_share(rows: Tensor) -> Tensor:
    """This process's rows of a whole batch's."""
    return rows.chunk(world_size())[rank()] if world_size() > 1 else rows
