from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2

from serve.answers import errors
from serve.rpc.status import CODES, REJECTIONS, reason_of, to_refusal, to_status
from tests.serve.answers.test_errors import leaves

EXAMPLES: dict[type[errors.RequestError], errors.RequestError] = {
    errors.InvalidRequest: errors.InvalidRequest(errors.FieldViolation("k", "too large")),
    errors.UnknownUser: errors.UnknownUser("ann"),
    errors.WrongShard: errors.WrongShard("ann", "student", 3, 1, 4),
    errors.UnknownItem: errors.UnknownItem("i1"),
    errors.UnknownHistory: errors.UnknownHistory("i1, i2"),
    errors.ModelNotServed: errors.ModelNotServed("m"),
    errors.VersionNotServed: errors.VersionNotServed("7"),
    errors.LabelNotServed: errors.LabelNotServed("canary"),
    errors.NotInRepository: errors.NotInRepository("student:9"),
    errors.ModelUnusable: errors.ModelUnusable("student/3/manifest.json: missing"),
    errors.ModelInUse: errors.ModelInUse("student", "2"),
    errors.FoldInUnavailable: errors.FoldInUnavailable("m"),
    errors.Unauthenticated: errors.Unauthenticated(),
    errors.Overloaded: errors.Overloaded(0.25),
    errors.IndexUnavailable: errors.IndexUnavailable("milvus://127.0.0.1:19530/items: UNAVAILABLE", 0.5),
    errors.DeadlineExpired: errors.DeadlineExpired("late"),
    errors.CallerLeft: errors.CallerLeft("gone"),
    errors.NotReady: errors.NotReady("loading"),
    errors.ShuttingDown: errors.ShuttingDown("bye"),
}


def details(error: errors.RequestError) -> dict[str, Any]:
    found: dict[str, Message] = {}
    for packed in to_status(error).details:
        name = packed.TypeName().rpartition(".")[2]
        found[name] = getattr(error_details_pb2, name)()
        packed.Unpack(found[name])
    return found


def test_the_table_is_complete_and_has_nothing_else() -> None:
    assert set(CODES) == set(leaves(errors.RequestError)) == set(EXAMPLES)
    assert set(REJECTIONS) <= set(CODES)
    assert code_pb2.OK not in CODES.values()


@pytest.mark.parametrize("kind", CODES, ids=lambda kind: kind.__name__)
def test_every_error_has_its_words_and_its_reason(kind: type[errors.RequestError]) -> None:
    status = to_status(EXAMPLES[kind])
    assert (status.code, status.message) == (CODES[kind], str(EXAMPLES[kind]))
    info = details(EXAMPLES[kind])["ErrorInfo"]
    assert (info.reason, info.domain) == (reason_of(kind), "lowpass")


def test_what_is_not_there_is_named() -> None:
    resource = details(errors.LabelNotServed("canary"))["ResourceInfo"]
    assert (resource.resource_type, resource.resource_name) == ("label", "canary")


TRAILERS = 8192
"""Bytes of trailing metadata that a gRPC client takes unless told otherwise, 32 a pair counted on top (RFC 9113)."""
REST = 1024
"""For the other trailers."""
LONG = ["x" * 6000, "ç" * 6000, "🙂" * 6000, "\x01" * 6000, "%" * 6000, "e\u0301" * 3000]


def trailer_bytes(error: errors.RequestError) -> int:
    """What the status takes there: its words percent-encoded, its details in base64."""
    refusal = to_refusal(error)
    words = sum(1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3 for byte in refusal.status.message.encode())
    name, content = refusal.details
    return words + len("grpc-message") + 32 + len(name) + -(-len(content) * 4 // 3) + 32


@pytest.mark.parametrize("text", LONG, ids=["ascii", "two bytes", "four bytes", "control", "percent", "combined"])
def test_no_name_is_so_long_that_a_client_refuses_the_error(text: str) -> None:
    plain = [kind for kind in CODES if issubclass(kind, errors.NotFound) and kind is not errors.WrongShard]
    made: list[errors.RequestError] = [kind(text) for kind in plain]
    made.append(errors.WrongShard(text, "m" * 128, 4094, 4095, 4096))
    made += [errors.ModelUnusable(text), errors.FoldInUnavailable(text), errors.ModelInUse(text, text)]
    made.append(errors.InvalidRequest(*[errors.FieldViolation("exclude_item_ids", text)] * 10))
    for error in made:
        assert trailer_bytes(error) < TRAILERS - REST
        to_status(error).message.encode()


def test_a_long_name_is_cut_where_it_is_told_and_the_remedy_is_not() -> None:
    status = to_status(errors.UnknownItem("x" * 6000))
    assert "x…': the model was trained without it" in status.message
    assert details(errors.UnknownItem("x" * 512))["ResourceInfo"].resource_name == "x" * 512
    assert details(errors.UnknownItem("x" * 600))["ResourceInfo"].resource_name == "x" * 509 + "…"


def test_the_right_shard_is_named_in_words_and_for_programs() -> None:
    error = EXAMPLES[errors.WrongShard]
    assert "'ann' is in shard 3 of 4 of model 'student'" in str(error)
    assert "x-lowpass-shard: 3" in str(error)
    assert details(error)["ErrorInfo"].metadata == {"model": "student", "shard": "3", "shards": "4"}
    assert details(error)["ResourceInfo"].resource_name == "ann"


def test_wrong_fields_are_listed() -> None:
    wrong = details(EXAMPLES[errors.InvalidRequest])["BadRequest"].field_violations
    assert [(one.field, one.description) for one in wrong] == [("k", "too large")]


def test_overload_and_an_engine_that_is_away_say_when_to_return() -> None:
    assert details(errors.Overloaded(0.25))["RetryInfo"].retry_delay.ToMilliseconds() == 250
    assert to_refusal(errors.Overloaded(0.25)).trailers == (("grpc-retry-pushback-ms", "250"),)
    assert to_refusal(errors.Overloaded(0.0)).trailers == (("grpc-retry-pushback-ms", "1"),)
    away = errors.IndexUnavailable("milvus://127.0.0.1:19530/items: UNAVAILABLE", 0.5)
    assert details(away)["RetryInfo"].retry_delay.ToMilliseconds() == 500
    assert to_refusal(away).trailers == (("grpc-retry-pushback-ms", "500"),)
    assert to_refusal(errors.ShuttingDown("bye")).trailers == ()


def test_reasons_are_upper_snake_case() -> None:
    assert reason_of(errors.FoldInUnavailable) == "FOLD_IN_UNAVAILABLE"
