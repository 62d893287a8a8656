"""What is inside an engine: its layers, their types and its sizes, as a bundle tells of them."""

from typing import Annotated, Literal

from pydantic import Field, ValidationError

from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.manifest import Engine
from ganinfer.errors import BundleError
from ganinfer.lookup import explain
from ganinfer.record import Record

Bytes = Annotated[int, Field(ge=0)]


class EngineLayer(Record):
    """One layer of an engine. inputs, outputs: types. layers: of the generator, that are in it."""

    name: str
    type: str
    inputs: list[str]
    outputs: list[str]
    layers: list[str]


class EngineReport(Record):
    """An engine's layers and sizes.

    read_from: "engine" where a GPU could open it; "network" is what the builder was given, before
        it fused anything.
    weights_bytes: of the ONNX file. device_memory_bytes: of one context at the largest batch, its
        activations and workspace; None if the builder did not tell and no GPU has opened it.
    """

    read_from: Literal["engine", "network"]
    weights_bytes: Bytes
    plan_bytes: Bytes
    device_memory_bytes: Bytes | None
    layers: list[EngineLayer]


def read_report(bundle: Bundle, engine: Engine) -> EngineReport:
    """The report of one of a bundle's engines.

    Raises:
        BundleError: it is not one.
    """
    try:
        return EngineReport.model_validate_json(bundle.read(engine.report))
    except ValidationError as error:
        raise BundleError(explain(error, where=f"{bundle.path}: {engine.report}")) from None
