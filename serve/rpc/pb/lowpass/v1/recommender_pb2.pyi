from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SOURCE_UNSPECIFIED: _ClassVar[Source]
    SOURCE_PERSONAL: _ClassVar[Source]
    SOURCE_FOLD_IN: _ClassVar[Source]
    SOURCE_POPULAR: _ClassVar[Source]
    SOURCE_SIMILAR: _ClassVar[Source]
    SOURCE_UPDATED: _ClassVar[Source]

class Shortfall(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHORTFALL_UNSPECIFIED: _ClassVar[Shortfall]
    SHORTFALL_EXHAUSTED: _ClassVar[Shortfall]
    SHORTFALL_BELOW_MIN_SCORE: _ClassVar[Shortfall]
SOURCE_UNSPECIFIED: Source
SOURCE_PERSONAL: Source
SOURCE_FOLD_IN: Source
SOURCE_POPULAR: Source
SOURCE_SIMILAR: Source
SOURCE_UPDATED: Source
SHORTFALL_UNSPECIFIED: Shortfall
SHORTFALL_EXHAUSTED: Shortfall
SHORTFALL_BELOW_MIN_SCORE: Shortfall

class ModelSelector(_message.Message):
    __slots__ = ("name", "version", "label")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    label: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., label: _Optional[str] = ...) -> None: ...

class History(_message.Message):
    __slots__ = ("item_ids",)
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class RecommendRequest(_message.Message):
    __slots__ = ("user_id", "history", "k", "model", "include_seen", "exclude_item_ids", "allow_item_ids", "allow_categories", "min_score", "offset", "exact", "allow_fallback", "include_titles", "recent_item_ids", "diversity", "popularity_discount")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_SEEN_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    ALLOW_FALLBACK_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_TITLES_FIELD_NUMBER: _ClassVar[int]
    RECENT_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    POPULARITY_DISCOUNT_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    history: History
    k: int
    model: ModelSelector
    include_seen: bool
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    allow_item_ids: _containers.RepeatedScalarFieldContainer[str]
    allow_categories: _containers.RepeatedScalarFieldContainer[str]
    min_score: float
    offset: int
    exact: bool
    allow_fallback: bool
    include_titles: bool
    recent_item_ids: _containers.RepeatedScalarFieldContainer[str]
    diversity: float
    popularity_discount: float
    def __init__(self, user_id: _Optional[str] = ..., history: _Optional[_Union[History, _Mapping]] = ..., k: _Optional[int] = ..., model: _Optional[_Union[ModelSelector, _Mapping]] = ..., include_seen: _Optional[bool] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ..., allow_item_ids: _Optional[_Iterable[str]] = ..., allow_categories: _Optional[_Iterable[str]] = ..., min_score: _Optional[float] = ..., offset: _Optional[int] = ..., exact: _Optional[bool] = ..., allow_fallback: _Optional[bool] = ..., include_titles: _Optional[bool] = ..., recent_item_ids: _Optional[_Iterable[str]] = ..., diversity: _Optional[float] = ..., popularity_discount: _Optional[float] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queue_us", "encode_us", "search_us", "filter_us", "total_us")
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    ENCODE_US_FIELD_NUMBER: _ClassVar[int]
    SEARCH_US_FIELD_NUMBER: _ClassVar[int]
    FILTER_US_FIELD_NUMBER: _ClassVar[int]
    TOTAL_US_FIELD_NUMBER: _ClassVar[int]
    queue_us: int
    encode_us: int
    search_us: int
    filter_us: int
    total_us: int
    def __init__(self, queue_us: _Optional[int] = ..., encode_us: _Optional[int] = ..., search_us: _Optional[int] = ..., filter_us: _Optional[int] = ..., total_us: _Optional[int] = ...) -> None: ...

class RecommendResponse(_message.Message):
    __slots__ = ("item_ids", "scores", "titles", "model", "version", "source", "shortfall", "unknown_item_ids", "timings")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    TITLES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SHORTFALL_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.RepeatedScalarFieldContainer[float]
    titles: _containers.RepeatedScalarFieldContainer[str]
    model: str
    version: str
    source: Source
    shortfall: Shortfall
    unknown_item_ids: _containers.RepeatedScalarFieldContainer[str]
    timings: Timings
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ..., scores: _Optional[_Iterable[float]] = ..., titles: _Optional[_Iterable[str]] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., source: _Optional[_Union[Source, str]] = ..., shortfall: _Optional[_Union[Shortfall, str]] = ..., unknown_item_ids: _Optional[_Iterable[str]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ...) -> None: ...

class BatchRecommendRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RecommendRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[RecommendRequest, _Mapping]]] = ...) -> None: ...

class BatchRecommendEntry(_message.Message):
    __slots__ = ("response", "status")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    response: RecommendResponse
    status: _status_pb2.Status
    def __init__(self, response: _Optional[_Union[RecommendResponse, _Mapping]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class BatchRecommendResponse(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[BatchRecommendEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[BatchRecommendEntry, _Mapping]]] = ...) -> None: ...

class StreamRecommendRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RecommendRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[RecommendRequest, _Mapping]]] = ...) -> None: ...

class StreamRecommendResponse(_message.Message):
    __slots__ = ("first_position", "entries")
    FIRST_POSITION_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    first_position: int
    entries: _containers.RepeatedCompositeFieldContainer[BatchRecommendEntry]
    def __init__(self, first_position: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[BatchRecommendEntry, _Mapping]]] = ...) -> None: ...

class SimilarItemsRequest(_message.Message):
    __slots__ = ("item_id", "k", "model", "exclude_item_ids", "allow_item_ids", "allow_categories", "min_score", "offset", "include_titles")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_TITLES_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    k: int
    model: ModelSelector
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    allow_item_ids: _containers.RepeatedScalarFieldContainer[str]
    allow_categories: _containers.RepeatedScalarFieldContainer[str]
    min_score: float
    offset: int
    include_titles: bool
    def __init__(self, item_id: _Optional[str] = ..., k: _Optional[int] = ..., model: _Optional[_Union[ModelSelector, _Mapping]] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ..., allow_item_ids: _Optional[_Iterable[str]] = ..., allow_categories: _Optional[_Iterable[str]] = ..., min_score: _Optional[float] = ..., offset: _Optional[int] = ..., include_titles: _Optional[bool] = ...) -> None: ...

class SimilarItemsResponse(_message.Message):
    __slots__ = ("item_ids", "scores", "titles", "model", "version", "source", "shortfall", "unknown_item_ids", "timings")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    TITLES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SHORTFALL_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.RepeatedScalarFieldContainer[float]
    titles: _containers.RepeatedScalarFieldContainer[str]
    model: str
    version: str
    source: Source
    shortfall: Shortfall
    unknown_item_ids: _containers.RepeatedScalarFieldContainer[str]
    timings: Timings
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ..., scores: _Optional[_Iterable[float]] = ..., titles: _Optional[_Iterable[str]] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., source: _Optional[_Union[Source, str]] = ..., shortfall: _Optional[_Union[Shortfall, str]] = ..., unknown_item_ids: _Optional[_Iterable[str]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ...) -> None: ...

class GetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IndexInfo(_message.Message):
    __slots__ = ("factory", "search", "ann_recall", "ann_recall_k", "bytes_per_item")
    class SearchEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    FACTORY_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    ANN_RECALL_FIELD_NUMBER: _ClassVar[int]
    ANN_RECALL_K_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_ITEM_FIELD_NUMBER: _ClassVar[int]
    factory: str
    search: _containers.ScalarMap[str, int]
    ann_recall: float
    ann_recall_k: int
    bytes_per_item: float
    def __init__(self, factory: _Optional[str] = ..., search: _Optional[_Mapping[str, int]] = ..., ann_recall: _Optional[float] = ..., ann_recall_k: _Optional[int] = ..., bytes_per_item: _Optional[float] = ...) -> None: ...

class UserShard(_message.Message):
    __slots__ = ("shard", "of")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    OF_FIELD_NUMBER: _ClassVar[int]
    shard: int
    of: int
    def __init__(self, shard: _Optional[int] = ..., of: _Optional[int] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "labels", "bundle_id", "backbone", "method", "teacher", "dim", "num_parameters", "users", "items", "quality", "index", "has_fold_in", "has_titles", "categories", "is_default_version", "is_default", "ready_answers", "user_shard")
    class QualityEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    BACKBONE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    TEACHER_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    NUM_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    HAS_FOLD_IN_FIELD_NUMBER: _ClassVar[int]
    HAS_TITLES_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_VERSION_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    READY_ANSWERS_FIELD_NUMBER: _ClassVar[int]
    USER_SHARD_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    bundle_id: str
    backbone: str
    method: str
    teacher: str
    dim: int
    num_parameters: int
    users: int
    items: int
    quality: _containers.ScalarMap[str, float]
    index: IndexInfo
    has_fold_in: bool
    has_titles: bool
    categories: _containers.RepeatedScalarFieldContainer[str]
    is_default_version: bool
    is_default: bool
    ready_answers: int
    user_shard: UserShard
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., bundle_id: _Optional[str] = ..., backbone: _Optional[str] = ..., method: _Optional[str] = ..., teacher: _Optional[str] = ..., dim: _Optional[int] = ..., num_parameters: _Optional[int] = ..., users: _Optional[int] = ..., items: _Optional[int] = ..., quality: _Optional[_Mapping[str, float]] = ..., index: _Optional[_Union[IndexInfo, _Mapping]] = ..., has_fold_in: _Optional[bool] = ..., has_titles: _Optional[bool] = ..., categories: _Optional[_Iterable[str]] = ..., is_default_version: _Optional[bool] = ..., is_default: _Optional[bool] = ..., ready_answers: _Optional[int] = ..., user_shard: _Optional[_Union[UserShard, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_k", "default_k", "max_offset", "max_batch", "max_history", "max_exclude", "max_allow", "max_categories", "max_id_bytes", "max_message_bytes", "max_in_flight", "max_deadline_ms", "max_wait_ms", "max_stream", "max_stream_deadline_ms", "max_concurrent_streams", "max_connection_age_ms", "max_batch_cost")
    MAX_K_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_K_FIELD_NUMBER: _ClassVar[int]
    MAX_OFFSET_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    MAX_HISTORY_FIELD_NUMBER: _ClassVar[int]
    MAX_EXCLUDE_FIELD_NUMBER: _ClassVar[int]
    MAX_ALLOW_FIELD_NUMBER: _ClassVar[int]
    MAX_CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    MAX_ID_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAM_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAM_DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENT_STREAMS_FIELD_NUMBER: _ClassVar[int]
    MAX_CONNECTION_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_COST_FIELD_NUMBER: _ClassVar[int]
    max_k: int
    default_k: int
    max_offset: int
    max_batch: int
    max_history: int
    max_exclude: int
    max_allow: int
    max_categories: int
    max_id_bytes: int
    max_message_bytes: int
    max_in_flight: int
    max_deadline_ms: int
    max_wait_ms: int
    max_stream: int
    max_stream_deadline_ms: int
    max_concurrent_streams: int
    max_connection_age_ms: int
    max_batch_cost: int
    def __init__(self, max_k: _Optional[int] = ..., default_k: _Optional[int] = ..., max_offset: _Optional[int] = ..., max_batch: _Optional[int] = ..., max_history: _Optional[int] = ..., max_exclude: _Optional[int] = ..., max_allow: _Optional[int] = ..., max_categories: _Optional[int] = ..., max_id_bytes: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_in_flight: _Optional[int] = ..., max_deadline_ms: _Optional[int] = ..., max_wait_ms: _Optional[int] = ..., max_stream: _Optional[int] = ..., max_stream_deadline_ms: _Optional[int] = ..., max_concurrent_streams: _Optional[int] = ..., max_connection_age_ms: _Optional[int] = ..., max_batch_cost: _Optional[int] = ...) -> None: ...

class GetInfoResponse(_message.Message):
    __slots__ = ("server_version", "models", "limits")
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    models: _containers.RepeatedCompositeFieldContainer[Model]
    limits: Limits
    def __init__(self, server_version: _Optional[str] = ..., models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...
