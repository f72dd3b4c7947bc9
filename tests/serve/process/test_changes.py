from __future__ import annotations

from google.protobuf.message import Message

from serve.live.shadow import ShadowRule
from serve.process.changes import Changes
from serve.rpc.pb.lowpass.v1 import admin_pb2 as pb


def changes() -> Changes:
    return Changes({"m": {"canary": 0.1}}, {"m": ShadowRule("teacher", "", 0.5)})


def load(revision: str) -> pb.LoadModelRequest:
    return pb.LoadModelRequest(model="m", revision=revision)


def unload(version: str) -> pb.UnloadModelRequest:
    return pb.UnloadModelRequest(model="m", version=version)


def test_splits_and_shadows_come_after_the_versions_that_they_need() -> None:
    made = changes()
    split, shadow = pb.SetSplitRequest(model="m"), pb.SetShadowRequest(model="m")
    made.set_shadow(shadow)
    made.set_split(split)
    made.load("m", "canary", "2")
    expected: list[Message] = [load("canary"), split, shadow]
    assert made.in_order() == expected


def test_what_a_later_change_made_void_is_forgotten() -> None:
    made = changes()
    made.load("m", "2", "2")
    made.load("m", "canary", "2")
    made.unload("m", "2", ["canary"])
    assert made.in_order() == [unload("2")]
    made.load("m", "stable", "2")
    assert made.in_order() == [load("stable")]
    for share in (0.1, 0.2):
        made.set_split(pb.SetSplitRequest(model="m", shares={"canary": share}))
    assert made.in_order()[1:] == [pb.SetSplitRequest(model="m", shares={"canary": 0.2})]


def test_what_is_in_effect_is_what_was_changed_last_or_given_at_the_start() -> None:
    made = changes()
    assert made.split_of("m") == pb.SetSplitRequest(model="m", shares={"canary": 0.1})
    assert made.shadow_of("m") == pb.SetShadowRequest(model="m", shadow_model="teacher", share=0.5)
    assert made.split_of("other") == pb.SetSplitRequest(model="other")
    assert made.shadow_of("other") == pb.SetShadowRequest(model="other")
    ended = pb.SetSplitRequest(model="m")
    made.set_split(ended)
    assert made.split_of("m") == ended
