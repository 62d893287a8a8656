"""Networks that no graph can hold are refused in two lines, which name the user's own line."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import of_module
from ganinfer.errors import ExportError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 48)
        self.kernel = nn.Parameter(torch.randn(1, 3, 3, 3, 3))

    def forward(self, z):
        return torch.tanh(self.middle(self.layer(z).reshape(-1, 3, 4, 4), z))

    def middle(self, x, z):
        raise NotImplementedError


class Branching(Net):
    def middle(self, x, z):
        if z.abs().max() > 3:
            x = x.clamp(-1, 1)
        return x


class Looping(Net):
    def middle(self, x, z):
        return torch.stack([x[n] / x[n].std() for n in range(z.shape[0])])


class Counted(Net):
    def middle(self, x, z):
        return x.reshape(int(z.size(0)), 3, 4, 4)


class Fused(Net):
    def middle(self, x, z):
        kernel = (self.kernel * z[:, :3].reshape(-1, 1, 3, 1, 1)).reshape(-1, 3, 3, 3)
        images = x.reshape(1, -1, 4, 4)
        return nn.functional.conv2d(images, kernel, padding=1, groups=len(x)).reshape(-1, 3, 4, 4)


class Headless(Net):
    def middle(self, x, z):
        tokens = x.flatten(2)
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).view_as(x)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            Branching(),
            r"the values of its tensors, in test_untraceable.py, line \d+: `if z",
        ),
        (Looping(), "takes batches of 2 alone: .*a loop over range"),
        (Counted(), "takes batches of 2 alone"),
        (Fused(), "Fused: .*groups are the batch|takes batches of 2 alone"),
        (Headless(), r"has no heads; give it one, as by q\[:, None\]"),
    ],
)
def test_what_no_graph_can_hold_is_said_in_two_lines(module: Net, message: str) -> None:
    subject = of_module(module, Spec(z_dim=4))
    with pytest.raises(ExportError, match=message) as refused:
        subject.to_onnx(subject.twin())
    assert len(str(refused.value)) < 400
    if report := re.search(r"report: (\S+\.log)$", str(refused.value)):
        file = Path(report[1])
        assert "Traceback" in file.read_text()
        file.unlink()
