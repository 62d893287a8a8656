"""How a bundle is served by Triton; light, so that `gan --help` may read it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ganinfer.bundle.signature import PublicKey
from ganinfer.drawing.arguments import checked_duration, checked_integer
from ganinfer.errors import ExportError
from ganinfer.options import Option

BACKENDS = ("onnxruntime", "onnxruntime_tensorrt", "tensorrt")
DEVICES = ("auto", "cpu", "cuda")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """Options of `write_repository`; those of `gan triton`, too.

    Attributes:
        name: of the model that clients ask; by default the bundle's file name, without .gan.
        backend: what runs the generator: "onnxruntime", "onnxruntime_tensorrt" (onnxruntime's
            TensorRT accelerator, which builds its engine as the server starts) or "tensorrt" (the
            bundle's own engine of that product).
        device: "auto" leaves the choice to Triton: a GPU if it sees one.
        precision: one that the bundle holds.
        target: of "tensorrt": which engine, if the bundle has several.
        batch_size: the most images of a request, and of what is merged.
        instances: generators at work at a time, on each GPU if there are several.
        max_queue: requests that wait at most; more are rejected.
        timeout_s: a request that waits longer is rejected.
        png: also serve a model NAME_png, which gives PNG files.
        allow_unverified: take a bundle that was exported with --no-verify.
        public_key: of whoever must have signed the bundle.

    Raises:
        ExportError, RequestError: one that no repository can have.
    """

    name: Annotated[
        str | None, Option(help="Name of the model; the bundle's file name by default.")
    ] = None
    backend: Annotated[
        str, Option(help="What runs it: onnxruntime, onnxruntime_tensorrt or tensorrt.")
    ] = "onnxruntime"
    device: Annotated[str, Option(help="Where it runs: auto, cpu or cuda.")] = "auto"
    precision: Annotated[str, Option(help="Precision that the bundle holds: fp32, ...")] = "fp32"
    target: Annotated[
        str | None, Option(help="With tensorrt: whose engine, if there are several.")
    ] = None
    batch_size: Annotated[int, Option(help="Images of a request, and of a batch, at most.")] = 64
    instances: Annotated[int, Option(help="Instances of the generator on each device.")] = 1
    max_queue: Annotated[int, Option(help="Requests that wait, at most.")] = 1024
    timeout_s: Annotated[
        float, Option(help="Seconds after which a request that waits is rejected.")
    ] = 30.0
    png: Annotated[bool, Option(help="Also serve PNG files, as a model of their own.")] = False
    allow_unverified: Annotated[
        bool, Option(help="Take a bundle that was exported with --no-verify.")
    ] = False
    public_key: Annotated[
        PublicKey | None,
        Option(
            parse=Path,
            metavar="<path>",
            help="Public key of whoever must have signed the bundle, a PEM file.",
        ),
    ] = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("backend", self.backend, BACKENDS),
            ("device", self.device, DEVICES),
        ):
            if value not in known:
                raise ExportError(f"{name} {value!r}: expected one of {', '.join(known)}")
        if self.backend != "onnxruntime" and self.device == "cpu":
            raise ExportError(
                f"backend {self.backend}: it runs on GPUs; device 'cpu' was asked for"
            )
        if self.target is not None and self.backend != "tensorrt":
            raise ExportError("target: it goes with backend tensorrt")
        if self.name is not None:
            check_name(self.name)
        for name in ("batch_size", "instances", "max_queue"):
            checked_integer(name, getattr(self, name), least=1)
        if checked_duration("timeout_s", self.timeout_s) == 0:
            raise ExportError("timeout_s: found 0; expected a positive number of seconds")


def check_name(name: str) -> None:
    """Refuse what is no name of a model.

    Raises:
        ExportError: it is a name that folders and addresses cannot have.
    """
    if not _NAME.fullmatch(name):
        raise ExportError(
            f"name {name!r}: expected letters, digits, '_', '-' and '.', as in digits; choose one"
            " with --name"
        )
