"""Messages of protocol buffers, made of a table.

They live in a pool of their own. Generated code would register its names in that of the process,
where a client's generated code for the same protocol may have registered them before.
"""

from collections.abc import Mapping
from types import SimpleNamespace

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

Messages = Mapping[str, str]
Enums = Mapping[str, Mapping[str, int]]


def built(package: str, messages: Messages, enums: Enums) -> SimpleNamespace:
    """The classes of a package's messages, by their names.

    Args:
        package: its name.
        messages: the fields of each, as in "name string 1, shape [int64] 2, parameters {Kind} 3":
            [] is a list, {} a map by strings; choice/name puts a field into a oneof.
        enums: the names of each, and their numbers.
    """
    file = FileDescriptorProto(name=f"ganinfer/{package}", package=package, syntax="proto3")
    for name, numbers in enums.items():
        enum = file.enum_type.add(name=name)
        for value, number in numbers.items():
            enum.value.add(name=value, number=number)
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field in fields.split(", ") if fields else []:
            _add_field(message, field, package, enums)
    pool = DescriptorPool()
    pool.Add(file)
    kinds = {n: GetMessageClass(pool.FindMessageTypeByName(f"{package}.{n}")) for n in messages}
    return SimpleNamespace(**kinds)


def _add_field(message: DescriptorProto, text: str, package: str, enums: Enums) -> None:
    """Add what "name kind number" says."""
    name, kind, number = text.split()
    choice, _, name = name.rpartition("/")
    field = message.field.add(name=name, number=int(number))
    field.label = field.LABEL_REPEATED if kind[0] in "[{" else field.LABEL_OPTIONAL
    if choice:
        if choice not in [one.name for one in message.oneof_decl]:
            message.oneof_decl.add(name=choice)
        field.oneof_index = [one.name for one in message.oneof_decl].index(choice)
    if kind[0] == "{":  # a list of pairs, as it is on the wire
        pair = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        pair.options.map_entry = True
        _add_field(pair, "key string 1", package, enums)
        _add_field(pair, f"value {kind[1:-1]} 2", package, enums)
        field.type, field.type_name = field.TYPE_MESSAGE, f".{package}.{message.name}.{pair.name}"
    else:
        _set_type(field, kind.strip("[]"), package, enums)


def _set_type(field: FieldDescriptorProto, kind: str, package: str, enums: Enums) -> None:
    scalar = f"TYPE_{kind.upper()}"
    if hasattr(FieldDescriptorProto, scalar):
        field.type = getattr(FieldDescriptorProto, scalar)
    else:
        field.type = field.TYPE_ENUM if kind in enums else field.TYPE_MESSAGE
        field.type_name = f".{package}.{kind}"
