"""From a ModelInferRequest to images and its answer; one, or a stream of them.

Values are bytes in raw_input_contents, or typed contents; answers are bytes.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException

from ganinfer.open_inference.messages import inference
from ganinfer.server.answers import malformed, told
from ganinfer.server.bodies import refusing
from ganinfer.server.describing import VERSION, versioned
from ganinfer.server.inference import (
    aside,
    drawing,
    is_small,
    outputs_of,
    timeout_of,
    wanted_outputs,
)
from ganinfer.server.rpc.door import Call, parsed
from ganinfer.server.service import Service
from ganinfer.server.tensors import (
    DTYPES,
    LARGE,
    InferenceRequest,
    InputTensor,
    Output,
    OutputAsked,
    Tensor,
    Values,
    check_count,
    from_raw,
    read_tensors,
)

_CONTENTS = {  # where values of a type are
    "UINT64": "uint64_contents",
    "INT64": "int64_contents",
    "FP64": "fp64_contents",
    "FP32": "fp32_contents",
    "BYTES": "bytes_contents",
}
_AHEAD = 64  # requests of a stream that are begun before the first of them is answered


async def infer(service: Service, message: Any, call: Call) -> Any:
    """The ModelInferResponse of a ModelInferRequest.

    Raises:
        HTTPException: it is malformed, too large, or of another model.
        GanError: as of `Sampler.asample`.
    """
    name = message.model_name
    versioned(service, name, message.model_version or VERSION)
    with service.tallies[name].counted():
        small = message.ByteSize() <= LARGE
        asked, tensors = await aside(small, read_message, message)
        longest_s = timeout_of(asked, min(service.serving.timeout_s, call.left_s))
        async with service.shelf.lent(name, longest_s) as (sampler, rest_s):
            wanted = wanted_outputs(service, sampler, asked, tensors)
            images = await drawing(service, sampler, asked, tensors, longest_s=rest_s)

        def packed() -> Any:
            answer = inference.ModelInferResponse(
                model_name=name, model_version=VERSION, id=message.id
            )
            for output in outputs_of(wanted, images):
                _add(answer, output)
            return answer

        return await aside(is_small(wanted, images), packed)


async def infer_stream(
    service: Service, messages: AsyncIterator[bytes], call: Call, reading: "set[asyncio.Task[None]]"
) -> None:
    """Answer each ModelInferRequest of a stream, in their order, also those that are wrong.

    Args:
        service: the models.
        messages: the requests.
        call: takes the answers.
        reading: has the task that waits for requests meanwhile; who cancels it ends the stream
            once those that came are answered.
    """
    begun: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()
    room = asyncio.Semaphore(_AHEAD)

    async def read() -> None:
        try:
            async for data in messages:
                await room.acquire()
                begun.put_nowait(group.create_task(_answer_of(service, data, call)))
        finally:
            begun.put_nowait(None)

    async with asyncio.TaskGroup() as group:
        reader = group.create_task(read())
        reading.add(reader)
        reader.add_done_callback(reading.discard)
        while (answer := await begun.get()) is not None:
            await call.send(await answer)
            room.release()
    if reader.cancelled():
        raise HTTPException(503, "this server stops")


async def _answer_of(service: Service, data: bytes, call: Call) -> Any:
    """A ModelStreamInferResponse."""
    try:
        message = parsed(inference.ModelInferRequest, data)
        answer = await infer(service, message, call)
    except Exception as error:
        return inference.ModelStreamInferResponse(error_message=told(error, call.identity))
    return inference.ModelStreamInferResponse(infer_response=answer)


def read_message(message: Any) -> tuple[InferenceRequest, dict[str, Tensor]]:
    """A request and its inputs by name.

    Raises:
        HTTPException: 400 if it is malformed.
    """
    with refusing():
        request = InferenceRequest(
            id=message.id,
            inputs=[
                InputTensor(
                    name=one.name,
                    datatype=one.datatype,
                    shape=list(one.shape),
                    parameters=_plain(one.parameters),
                )
                for one in message.inputs
            ],
            outputs=[
                OutputAsked(
                    name=one.name, parameters={**_plain(one.parameters), "binary_data": True}
                )
                for one in message.outputs
            ],
            parameters={**_plain(message.parameters), "binary_data_output": True},
        )
    raw = message.raw_input_contents
    if len(raw) not in (0, len(message.inputs)):
        raise malformed(
            f"raw_input_contents: found {len(raw)} for {len(message.inputs)} inputs; expected one"
            " for each, or none"
        )
    places = iter(range(len(message.inputs)))

    def values_of(given: InputTensor) -> Values:
        place = next(places)
        contents = message.inputs[place].contents
        if not raw:
            return _typed(given, contents)
        if contents.ListFields():
            raise malformed(f"{given.name}: expected either contents or raw_input_contents")
        return from_raw(given, raw[place])

    return request, read_tensors(request, values_of)


def _typed(given: InputTensor, contents: Any) -> Values:
    """Values that are no bytes."""
    name, expected = given.name, _CONTENTS[given.datatype]
    for field, _ in contents.ListFields():
        if field.name != expected:
            raise malformed(f"{name}: found {field.name}; {given.datatype} is in {expected}")
    values = getattr(contents, expected)
    check_count(given, len(values))
    if given.datatype != "BYTES":
        return np.array(values, DTYPES[given.datatype])
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError:
        raise malformed(f"{name}: expected texts in UTF-8") from None


def _plain(parameters: Any) -> dict[str, Any]:
    """Parameters that have a value."""
    found = {}
    try:
        for name, parameter in parameters.items():
            choice = parameter.WhichOneof("parameter_choice")
            if choice is not None:
                found[name] = getattr(parameter, choice)
    except UnicodeDecodeError:  # older protobufs find it here, not when they read the message
        raise malformed("parameters: expected names in UTF-8") from None
    return found


def _add(answer: Any, output: Output) -> None:
    answer.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
    answer.raw_output_contents.append(bytes(output.raw))
