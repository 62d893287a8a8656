"""What NCCL asks for and gloo does not is kept, as far as that shows without a GPU."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_distributed import tree
from torch import Tensor, distributed, nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from gantrain.distributed import (
    AnyProcess,
    all_mean,
    average_gradients,
    barrier,
    my_share,
    process_group,
)

# Beside torch's own checks of DETAIL, that all processes make the same calls with equal shapes and
# types: NCCL takes dense contiguous tensors of some types, and none of objects or of no values.
SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from torch import distributed

SEEN = set()
NAMES = (
    "all_reduce all_gather all_gather_into_tensor all_gather_object all_to_all all_to_all_single"
    " barrier broadcast broadcast_object_list gather gather_object irecv isend monitored_barrier"
    " recv reduce reduce_scatter reduce_scatter_tensor scatter scatter_object_list send"
)
TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.int64)

def watch(name):
    call = getattr(distributed, name)
    def watched(*arguments, **options):
        assert not options, options
        for tensor in arguments:
            assert tensor.dtype in TYPES, tensor.dtype
            assert tensor.layout == torch.strided and tensor.is_contiguous() and tensor.numel()
            assert not tensor.requires_grad
        SEEN.add(name)
        return call(*arguments)
    setattr(distributed, name, watched)

for name in NAMES.split():
    watch(name)
from gantrain.game.config import parse_config
from gantrain.training.train import train
train(parse_config(json.loads(sys.argv[1]), where="x.toml"), Path(sys.argv[2]))
os.write(1, f"seen: {' '.join(sorted(SEEN))}\\n".encode())  # of two processes, each in one piece
"""


def test_training_speaks_as_nccl_can(shapes: Path, tmp_path: Path) -> None:
    recipe = tree(shapes, total_kimg=0.1)
    recipe["regularizers"].append({"name": "ada"})
    script = tmp_path / "go.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--master-port", "29531", str(script), json.dumps(recipe), str(tmp_path / "run")),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"TORCH_DISTRIBUTED_DEBUG": "DETAIL"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines().count("seen: all_reduce barrier") == 2


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """The tensors of all_reduce, of a process that believes in a second one."""
    found: list[Tensor] = []
    distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    monkeypatch.setattr(distributed, "all_reduce", found.append)
    yield found
    distributed.destroy_process_group()


def test_tensors_are_sent_from_where_they_are(spoken: list[Tensor]) -> None:
    """NCCL sends from a process's GPU, for which "meta" stands; gloo would take the CPU's, too."""
    device = torch.device("meta")
    network = nn.Linear(3, 2, device=device)
    network(torch.ones(4, 3, device=device)).sum().backward()
    average_gradients(network)
    x = torch.ones(5, device=device, requires_grad=True)
    all_mean(x).sum().backward()
    any_process = AnyProcess(device)
    assert not any_process(True)  # nobody waits for the answer
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        any_process(False)  # what it sent before has no value to look at
    assert my_share(torch.ones(4, 2, device=device)).shape == (2, 2)
    assert [tensor.device for tensor in spoken] == [device] * 5


def test_a_barrier_knows_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL guesses at it otherwise, and hangs where the guess is wrong."""
    asked: list[tuple[str, object]] = []

    def init(backend: str, *, timeout: object, device_id: object) -> None:
        asked.append((backend, device_id))
        raise InterruptedError

    monkeypatch.setattr(distributed, "init_process_group", init)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("cuda:1", "cpu"):
        with pytest.raises(InterruptedError), process_group(torch.device(name)):
            barrier()
    assert asked == [("nccl", torch.device("cuda:1")), ("gloo", None)]
