from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from serve.answers.errors import InvalidRequest
from serve.answers.fake import fake_model
from serve.answers.limits import Limits
from serve.answers.recommender import AnswerTable
from serve.answers.types import Query, Recommendation, Shortfall, SimilarQuery, Source
from serve.live.store import ModelStore, ServedModel
from serve.rpc.convert import to_info, to_limits, to_query, to_response, to_similar_query, to_timings
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb


def test_every_field_of_a_request_arrives() -> None:
    request = pb.RecommendRequest(
        history=pb.History(item_ids=["a", "b"]),
        k=3,
        include_seen=True,
        exclude_item_ids=["x"],
        allow_item_ids=["y"],
        allow_categories=["c"],
        min_score=0.0,
        offset=4,
        exact=True,
        allow_fallback=True,
        include_titles=True,
        diversity=0.5,
        popularity_discount=2.0,
    )
    assert to_query(request, Limits()) == Query(
        None, ("a", "b"), 3, True, ("x",), ("y",), ("c",), 0.0, 4, True, True, True, (), 0.5, 2.0
    )
    fresh = pb.RecommendRequest(user_id="ann", recent_item_ids=["a", "b"])
    assert to_query(fresh, Limits()) == Query("ann", recent=("a", "b"))


def test_what_is_not_said_has_its_default() -> None:
    assert to_query(pb.RecommendRequest(user_id="ann"), Limits(default_k=7)) == Query(user_id="ann", k=7)
    assert to_similar_query(pb.SimilarItemsRequest(item_id="i"), Limits()) == SimilarQuery("i", k=10)


def violations(request: pb.RecommendRequest, limits: Limits) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        to_query(request, limits)
    return [wrong.field for wrong in caught.value.violations]


def test_all_wrong_fields_are_named_at_once() -> None:
    limits = Limits(max_k=5, max_offset=5, max_exclude=1, max_allow=1, max_categories=1, max_history=1, max_id_bytes=4)
    request = pb.RecommendRequest(
        history=pb.History(item_ids=["a", "b"]),
        k=6,
        offset=6,
        min_score=float("nan"),
        exclude_item_ids=["a", "b"],
        allow_item_ids=["a", "b"],
        allow_categories=["a", "b"],
    )
    expected = ["k", "offset", "min_score", "exclude_item_ids", "allow_item_ids", "allow_categories"]
    assert violations(request, limits) == [*expected, "history.item_ids"]


def test_reranking_is_bounded() -> None:
    wrong = pb.RecommendRequest(user_id="ann", k=400, offset=101, diversity=1.5, popularity_discount=-1)
    assert violations(wrong, Limits()) == ["diversity", "popularity_discount", "k"]
    nan = pb.RecommendRequest(user_id="ann", diversity=float("nan"), popularity_discount=float("nan"))
    assert violations(nan, Limits()) == ["diversity", "popularity_discount"]
    recent = pb.RecommendRequest(history=pb.History(item_ids=["a"]), recent_item_ids=["b", "c"])
    assert violations(recent, Limits(max_history=1)) == ["recent_item_ids", "recent_item_ids"]


@pytest.mark.parametrize("user_id", ["", "fivec", "çççç"])
def test_user_ids_are_bounded_in_bytes(user_id: str) -> None:
    assert violations(pb.RecommendRequest(user_id=user_id), Limits(max_id_bytes=4)) == ["user_id"]
    assert to_query(pb.RecommendRequest(user_id="çç"), Limits(max_id_bytes=4)).user_id == "çç"


def test_a_subject_is_required() -> None:
    assert violations(pb.RecommendRequest(k=3), Limits()) == ["subject"]
    with pytest.raises(InvalidRequest, match="item_id: is empty"):
        to_similar_query(pb.SimilarItemsRequest(), Limits())


def test_an_answer_is_sent_in_parallel_arrays() -> None:
    summary, _ = fake_model("m", "3")
    answer = Recommendation(["a", "b"], [2.0, 1.0], Source.FOLD_IN, Shortfall.EXHAUSTED, ["A", "B"], ["z"])
    sent = to_response(answer, summary, to_timings((1_500, 2_000, 3_999, 4_000, 20_000)))
    assert (list(sent.item_ids), list(sent.scores), list(sent.titles)) == (["a", "b"], [2.0, 1.0], ["A", "B"])
    assert (sent.model, sent.version, list(sent.unknown_item_ids)) == ("m", "3", ["z"])
    assert (sent.source, sent.shortfall) == (pb.SOURCE_FOLD_IN, pb.SHORTFALL_EXHAUSTED)
    assert sent.timings == pb.Timings(queue_us=1, encode_us=2, search_us=3, filter_us=4, total_us=20)


def test_every_source_and_shortfall_can_be_sent() -> None:
    summary, _ = fake_model()
    for source in Source:
        for shortfall in Shortfall:
            empty = Recommendation([], [], source, shortfall)
            sent = to_response(empty, summary, pb.Timings())
            assert pb.Source.Name(sent.source) == f"SOURCE_{source.name}"
            assert (sent.shortfall == pb.SHORTFALL_UNSPECIFIED) == (shortfall is Shortfall.NONE)


def test_every_limit_is_reported() -> None:
    limits = Limits(max_connection_age=60.0)
    sent = to_limits(limits)
    for field in dataclasses.fields(limits):
        if field.name in {"max_deadline", "max_stream_deadline", "max_wait", "max_connection_age"}:
            assert getattr(sent, f"{field.name}_ms") == getattr(limits, field.name) * 1000 > 0
        else:
            assert getattr(sent, field.name) == getattr(limits, field.name) > 0


def test_info_marks_the_defaults() -> None:
    store = ModelStore()
    for which in (("a", "2"), ("a", "1"), ("b", "1")):
        store.add(ServedModel(*fake_model(*which)))
    store.point("a", {"stable": "2", "best": "2", "canary": "1"})
    sent = to_info(store, Limits(), "9.9")
    assert [list(model.labels) for model in sent.models] == [["best", "stable"], ["canary"], []]
    marks = [(model.name, model.version, model.is_default, model.is_default_version) for model in sent.models]
    assert marks == [("a", "2", True, True), ("a", "1", False, False), ("b", "1", False, True)]
    assert list(sent.models[0].categories) == ["even", "odd"]
    assert (sent.models[0].has_fold_in, sent.models[0].has_titles) == (True, True)
    assert [model.ready_answers for model in sent.models] == [0, 0, 0]
    table = AnswerTable(np.zeros((6, 4), np.int32), np.zeros((6, 4), np.float32), 9)
    store.models[0].recommender.answers = table
    assert to_info(store, Limits(), "9.9").models[0].ready_answers == 4
    assert to_info(ModelStore(), Limits(), "9.9").models == []
