"""A trained generator -> one ONNX file that takes latents and gives pixels.

What is trained is not what should run: spectral norm is baked into the weights, layers are
rewritten (see ganexport.subjects.rewrites), and the quantisation to uint8 is part of the graph.
"""

import contextlib
import gc
import io
import logging
import warnings

import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ganexport.graph.large import check, split
from ganexport.graph.refusals import FixedBatch, check_batch, explain
from ganexport.graph.simplify import simplify
from ganinfer.bundle.large_onnx import LargeOnnx
from ganinfer.drawing.model import StyleInput
from ganinfer.errors import ExportError
from gantrain.data.dataset import to_floats
from gantrain.extractors.classifier import (
    ClassifierExtractor,
    RandomExtractor,
    Shape,
    StackedExtractor,
)
from gantrain.game.build import build_generator
from gantrain.models._derived import settle
from gantrain.runs.checkpoint import TrainedGenerator

NetworkExtractor = ClassifierExtractor | RandomExtractor | StackedExtractor

# Of 19 and 20, onnxruntime before 1.27 lacks Resize, Pad, AveragePool and ReduceMax on CUDA, and
# puts them on the CPU. From 23 on, attention is exported as one node, which TensorRT refuses for
# SAGAN's shapes.
OPSET = 18
_SHUFFLES = ("DepthToSpace", "Slice")
_WEIGHTS = (".weight", ".kernel")  # endings of what a layer multiplies by


class SamplingGraph(nn.Module):
    """Latents z float32 (N, Z), and what else the generator takes -> images uint8 (N, H, W, C).

    That is, in this order, y int64 (N,), truncation float32 (N,), and styles w float32 (N, L, D)
    with takes_w float32 (N,); each only if the generator takes it.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self,
        z: Tensor,
        second: Tensor | None = None,
        third: Tensor | None = None,
        fourth: Tensor | None = None,
        fifth: Tensor | None = None,
    ) -> Tensor:
        more = (given for given in (second, third, fourth, fifth) if given is not None)
        images = self.generator(z, *more)
        # ganinfer.drawing.images.to_uint8, operation by operation. The cast stands last: TensorRT
        # takes uint8 only as the output of a network.
        scaled = (images.float().clamp(-1.0, 1.0) + 1.0) * 127.5
        pixels: Tensor = scaled.round().permute(0, 2, 3, 1).to(torch.uint8)
        return pixels


def bake(trained: TrainedGenerator) -> nn.Module:
    """A twin of the generator whose weights are plain: spectral norm is multiplied in, and so on.

    The twin is built anew; taking parametrizations off a deep copy would break the original.
    """
    twin = build_generator(
        trained.config, trained.resolution, trained.channels, len(trained.classes)
    )
    twin.load_state_dict(trained.network.state_dict())
    return plain(twin)


def plain(network: nn.Module) -> nn.Module:
    """The same network in eval mode, in place.

    Its spectral norms are multiplied into the weights, and what layers derive of them is constant.
    """
    network.eval().requires_grad_(False)
    for module in network.modules():
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    settle(network)
    return network


class ExtractorGraph(nn.Module):
    """images uint8 (N, H, W, C) -> features float32 (N, F)."""

    def __init__(self, extractor: NetworkExtractor) -> None:
        super().__init__()
        self.network = extractor.network  # a tracer looks for weights in modules only
        self._extractor = extractor

    def forward(self, images: Tensor) -> Tensor:
        return self._extractor(images.permute(0, 3, 1, 2).float()).features


def extractor_to_onnx(extractor: NetworkExtractor, shape: Shape) -> bytes:
    """Trace what sees the images of a witness, (H, W, C); input "images", output "features"."""
    example = (torch.zeros(2, *shape, dtype=torch.uint8),)
    return _to_onnx(ExtractorGraph(extractor).eval(), example, ["images"], "features")


class DiscriminatorGraph(nn.Module):
    """images uint8 (N, H, W, C), y int64 (N,) if there are classes -> logits float32 (N,)."""

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        logits: Tensor = self.discriminator(to_floats(images), y)
        return logits


def discriminator_to_onnx(discriminator: nn.Module, shape: Shape, *, conditional: bool) -> bytes:
    """Trace what tells real images, (H, W, C), from generated ones; output "logits"."""
    example = {"images": torch.zeros(2, *shape, dtype=torch.uint8)}
    if conditional:
        example["y"] = torch.zeros(2, dtype=torch.int64)
    graph = DiscriminatorGraph(discriminator).eval()
    return _to_onnx(graph, tuple(example.values()), list(example), "logits")


def to_onnx(
    generator: nn.Module,
    *,
    z_dim: int,
    num_classes: int,
    truncation: bool = False,
    styles: StyleInput | None = None,
) -> bytes:
    """Trace a generator into a checked ONNX file; the same weights give the same bytes.

    Args:
        generator: z, y, truncation, w and takes_w, or fewer -> images in [-1, 1]; in eval mode, on
            the CPU, float32.
        z_dim: length of a latent.
        num_classes: 0 if the generator takes no y.
        truncation: whether it takes one.
        styles: the shape of those that it takes, if any.

    Returns:
        The file, a `LargeOnnx` beyond 2 GB: inputs "z", "y" when conditional, "truncation" if it
        takes one, "w" and "takes_w" if it takes styles; output "images"; dynamic batch.

    Raises:
        ExportError: the network cannot be traced or checked.
    """
    # Two examples: a batch of one would be taken for a constant.
    example = {"z": torch.zeros(2, z_dim)}
    if num_classes:
        example["y"] = torch.zeros(2, dtype=torch.int64)
    if truncation:
        example["truncation"] = torch.ones(2)
    if styles is not None:
        example["w"] = torch.zeros(2, styles.num_styles, styles.w_dim)
        example["takes_w"] = torch.zeros(2)
    graph = SamplingGraph(generator).eval()
    given = tuple(example.values())
    return _to_onnx(graph, given, list(example), "images", weights_beside=True)


def _to_onnx(
    graph: nn.Module,
    example: tuple[Tensor, ...],
    inputs: list[str],
    output: str,
    *,
    weights_beside: bool = False,
) -> bytes:
    """The file of a graph; weights_beside: beyond 2 GB they may lie beside it."""
    name, said = _name_of(next(graph.children())), io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            program = _export(graph, example, inputs, output)
            beside = split(program.model) if weights_beside else None
            model = program.model_proto
            if beside:
                del program  # it holds the weights once more, in cycles
                gc.collect()
        _strip(model)
        _name_layers(model.graph)
        check(model)
        check_batch(model, name)
    except FixedBatch as error:
        raise ExportError(str(error)) from None
    except Exception as error:  # torch and onnx raise a dozen unrelated classes
        raise ExportError(explain(error, name, said.getvalue())) from error
    file = bytes(model.SerializeToString(deterministic=True))
    return LargeOnnx(file, *beside) if beside else file


def _name_of(network: nn.Module) -> str:
    """The class that its author wrote, whatever it was put into."""
    inner = network.network if type(network).__name__ == "Adapted" else network
    return type(inner).__name__


def _export(
    graph: nn.Module, example: tuple[Tensor, ...], inputs: list[str], output: str
) -> torch.onnx.ONNXProgram:
    batch = torch.export.Dim("batch", min=1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of optional packages
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)  # dozens of lines, whose sum an ExportError tells
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside the exporter
            program = torch.onnx.export(
                graph,
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=inputs,
                output_names=[output],
                dynamic_shapes=tuple({0: batch} for _ in example),
                external_data=False,
                optimize=False,
                verbose=False,
            )
    finally:
        logging.disable(disabled)
    assert program is not None
    simplify(program.model)
    return program


def float_images(model: onnx.ModelProto) -> str:
    """Name of the float (N, C, H, W) tensor in [-1, 1] that the tail of `SamplingGraph` clips.

    Where the tail clips before pixels are shuffled to their places (`ganexport.graph.subpixel`),
    nodes that shuffle that tensor, too, are added to the model, in place.

    Raises:
        ExportError: the graph does not end in such a tail.
    """
    tail = tail_of(model.graph)
    name: str = tail[-1].input[0]
    for node in reversed(tail):
        if node.op_type in _SHUFFLES:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name, copy.output[0] = f"{node.name}_floats", f"{node.output[0]}_floats"
            copy.input[0] = name
            model.graph.node.append(copy)
            name = copy.output[0]
    return name


def tail_of(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes of the tail of `SamplingGraph`, from the last one back to the one that clips.

    Raises:
        ExportError: the graph does not end in such a tail.
    """
    producers = {name: node for node in graph.node for name in node.output}
    found: list[onnx.NodeProto] = []
    name: str = graph.output[0].name
    while (node := producers.get(name)) is not None:
        found.append(node)
        if node.op_type == "Clip":
            return found
        name = node.input[0]
    raise ExportError("the graph has no tail that clips its images to [-1, 1]; export it again")


def _name_layers(graph: onnx.GraphProto) -> None:
    """Call a node that has a weight of its own as the generator's layer is called."""
    weights = {weight.name for weight in graph.initializer}
    taken = {node.name for node in graph.node}
    for node in graph.node:
        own = [name for name in node.input if name in weights and name.endswith(_WEIGHTS)]
        name = own[0].rpartition(".")[0].removeprefix("generator.") if own else ""
        if name and name not in taken:
            node.name = name
            taken.add(name)


def _strip(model: onnx.ModelProto) -> None:
    """Take out what the exporter leaves behind: source paths, stack traces, its own version."""
    del model.metadata_props[:]
    model.producer_version = ""
    graph = model.graph
    for part in (
        graph,
        *graph.node,
        *graph.value_info,
        *graph.input,
        *graph.output,
        *graph.initializer,
    ):
        del part.metadata_props[:]
        part.doc_string = ""
