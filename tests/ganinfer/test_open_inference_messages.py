"""The table of messages says what clients' generated code says."""

from typing import Any

import pytest

pytest.importorskip("grpc", reason="pip install 'ganpipe[serve-grpc]'")

from google.protobuf import descriptor_pool

from ganinfer.open_inference.messages import (
    ENUMS,
    HEALTH_ENUMS,
    HEALTH_MESSAGES,
    MESSAGES,
    health,
    inference,
)


def fields(message: Any) -> dict[str, tuple[object, ...]]:
    """Number, kind, what it holds, list or not, and its oneof."""
    return {
        field.name: (
            field.number,
            field.type,
            (field.message_type or field.enum_type or field).name,
            field.is_repeated,
            field.containing_oneof and field.containing_oneof.name,
            field.message_type and field.message_type.GetOptions().map_entry,
        )
        for field in message.fields
    }


def by_name(file: Any) -> dict[str, Any]:
    """All messages of a file, also those within others."""
    found, left = {}, list(file.message_types_by_name.values())
    while left:
        message = left.pop()
        found[message.name] = message
        left += message.nested_types
    return found


def check(ours: Any, names: dict[str, str], theirs: dict[str, Any]) -> None:
    for name in names:
        mine, its = getattr(ours, name).DESCRIPTOR, fields(theirs[name])
        assert fields(mine).items() <= its.items(), name
        for entry in mine.nested_types:  # pairs of a map
            (same,) = [one for one in theirs[name].nested_types if one.name == entry.name]
            assert fields(entry) == fields(same)


def check_enum(numbers: dict[str, int], enum: Any) -> None:
    assert numbers.items() <= {value.name: value.number for value in enum.values}.items()


def test_messages_are_those_of_tritons_client() -> None:
    service = pytest.importorskip("tritonclient.grpc.service_pb2", reason="ganpipe[dev]").DESCRIPTOR
    config = pytest.importorskip("tritonclient.grpc.model_config_pb2").DESCRIPTOR
    check(inference, MESSAGES, by_name(service) | by_name(config))
    check_enum(ENUMS["DataType"], config.enum_types_by_name["DataType"])
    methods = service.services_by_name["GRPCInferenceService"].methods
    answers = {m.name: m.output_type.name for m in methods if m.input_type.name in MESSAGES}
    assert len(answers) == 10
    assert set(answers.values()) <= set(MESSAGES)


def test_messages_of_health_checks_are_those_of_grpcs_client() -> None:
    theirs = pytest.importorskip("grpc_health.v1.health_pb2", reason="ganpipe[dev]").DESCRIPTOR
    messages = by_name(theirs)
    check(health, HEALTH_MESSAGES, messages)
    check_enum(
        HEALTH_ENUMS["ServingStatus"],
        messages["HealthCheckResponse"].enum_types_by_name["ServingStatus"],
    )


def test_the_pool_of_the_process_is_left_alone() -> None:
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindFileByName(inference.ServerLiveRequest.DESCRIPTOR.file.name)
