"""The OpenAPI 3.1 document of the JSON gateway, from the .proto files and their comments.

protoc's source info carries the comments; the names and the JSON mapping are protobuf's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf import descriptor_pb2

Field = descriptor_pb2.FieldDescriptorProto
FILE = "lowpass/v1/recommender.proto"
NUMBERS: dict[int, dict[str, Any]] = {
    Field.TYPE_STRING: {"type": "string"},
    Field.TYPE_BOOL: {"type": "boolean"},
    Field.TYPE_FLOAT: {"type": "number", "format": "float"},
    Field.TYPE_DOUBLE: {"type": "number", "format": "double"},
    Field.TYPE_UINT32: {"type": "integer", "format": "uint32", "minimum": 0},
    # The JSON mapping writes 64-bit integers as strings.
    Field.TYPE_UINT64: {"type": "string", "format": "uint64"},
    Field.TYPE_INT64: {"type": "string", "format": "int64"},
    Field.TYPE_INT32: {"type": "integer", "format": "int32"},
    Field.TYPE_BYTES: {"type": "string", "format": "byte"},
}
ERROR = {
    "type": "object",
    "description": "A failure: a google.rpc.Status, its code as HTTP's.",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "integer"},
                "status": {"type": "string"},
                "message": {"type": "string"},
                "details": {"type": "array", "items": {"type": "object"}},
            },
        }
    },
}


def build_openapi(files: descriptor_pb2.FileDescriptorSet, version: str) -> str:
    """The document as JSON text.

    Args:
        files: Descriptors with source info.
        version: Of the interface.
    """
    schemas: dict[str, Any] = {"Error": ERROR}
    (main,) = (file for file in files.file if file.name == FILE)
    comments = {tuple(place.path): _clean(place.leading_comments) for place in main.source_code_info.location}
    for file in files.file:
        own = comments if file is main else {}
        for number, message in enumerate(file.message_type):
            if file is main or message.name in {"Status"}:
                schemas[message.name] = _schema(message, own, (4, number))
        for number, enum in enumerate(file.enum_type if file is main else ()):
            schemas[enum.name] = {
                "type": "string",
                "enum": [value.name for value in enum.value],
                "description": own.get((5, number), ""),
            }
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Lowpass", "version": version, "description": comments.get((6, 0), "")},
        "paths": dict(_paths(main, comments)),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _paths(
    file: descriptor_pb2.FileDescriptorProto, comments: Mapping[tuple[int, ...], str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, method in enumerate(file.service[0].method):
        if method.server_streaming:
            continue  # the gateway sends whole answers
        name = method.name
        operation = {
            "operationId": name,
            "description": comments.get((6, 0, 2, number), ""),
            "security": [{}, {"key": []}],
            "requestBody": {"required": True, "content": _content(method.input_type)},
            "responses": {
                "200": {"description": "The answer.", "content": _content(method.output_type)},
                "default": {"description": "Why there is none.", "content": _content("Error")},
            },
        }
        yield f"/v1/{name[0].lower()}{name[1:]}", {"post": operation}


def _content(type_name: str) -> dict[str, Any]:
    return {"application/json": {"schema": _reference(type_name)}}


def _reference(type_name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{type_name.rpartition('.')[2]}"}


def _schema(
    message: descriptor_pb2.DescriptorProto, comments: Mapping[tuple[int, ...], str], path: tuple[int, ...]
) -> dict[str, Any]:
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    properties = {}
    for number, field in enumerate(message.field):
        described = comments.get((*path, 2, number), "")
        properties[field.name] = {**_field(field, maps), **({"description": described} if described else {})}
    return {"type": "object", "description": comments.get(path, ""), "properties": properties}


def _field(field: Field, maps: Mapping[str, descriptor_pb2.DescriptorProto]) -> dict[str, Any]:
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        return {"type": "object", "additionalProperties": _field(entry.field[1], {})}
    one = NUMBERS.get(field.type)
    if one is None:
        one = {"type": "object"} if field.type_name == ".google.protobuf.Any" else _reference(field.type_name)
    return {"type": "array", "items": one} if field.label == Field.LABEL_REPEATED else dict(one)


def _clean(comment: str) -> str:
    return re.sub(r"\s+", " ", comment).strip()
