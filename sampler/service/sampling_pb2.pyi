from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Format(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PNG: _ClassVar[Format]
    RAW: _ClassVar[Format]
PNG: Format
RAW: Format

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Privacy(_message.Message):
    __slots__ = ("epsilon_secure_sum", "epsilon_site", "delta", "unit", "epsilon_release")
    EPSILON_SECURE_SUM_FIELD_NUMBER: _ClassVar[int]
    EPSILON_SITE_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    EPSILON_RELEASE_FIELD_NUMBER: _ClassVar[int]
    epsilon_secure_sum: float
    epsilon_site: float
    delta: float
    unit: str
    epsilon_release: float
    def __init__(self, epsilon_secure_sum: _Optional[float] = ..., epsilon_site: _Optional[float] = ..., delta: _Optional[float] = ..., unit: _Optional[str] = ..., epsilon_release: _Optional[float] = ...) -> None: ...

class Description(_message.Message):
    __slots__ = ("model", "classes", "channels", "height", "width", "privacy", "shard_size", "sampler", "limits", "images_left", "jobs_running")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_FIELD_NUMBER: _ClassVar[int]
    SHARD_SIZE_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_LEFT_FIELD_NUMBER: _ClassVar[int]
    JOBS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    model: str
    classes: int
    channels: int
    height: int
    width: int
    privacy: Privacy
    shard_size: int
    sampler: Sampler
    limits: Limits
    images_left: int
    jobs_running: int
    def __init__(self, model: _Optional[str] = ..., classes: _Optional[int] = ..., channels: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., privacy: _Optional[_Union[Privacy, _Mapping]] = ..., shard_size: _Optional[int] = ..., sampler: _Optional[_Union[Sampler, _Mapping]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., images_left: _Optional[int] = ..., jobs_running: _Optional[int] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("images_per_request", "images_per_hour", "jobs_per_client", "evaluations", "stall_seconds")
    IMAGES_PER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    IMAGES_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    JOBS_PER_CLIENT_FIELD_NUMBER: _ClassVar[int]
    EVALUATIONS_FIELD_NUMBER: _ClassVar[int]
    STALL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    images_per_request: int
    images_per_hour: int
    jobs_per_client: int
    evaluations: int
    stall_seconds: int
    def __init__(self, images_per_request: _Optional[int] = ..., images_per_hour: _Optional[int] = ..., jobs_per_client: _Optional[int] = ..., evaluations: _Optional[int] = ..., stall_seconds: _Optional[int] = ...) -> None: ...

class Sampler(_message.Message):
    __slots__ = ("method", "num_levels", "sigma_max", "sigma_min", "rho", "transitions_per_level", "num_integration_steps", "step_size", "momentum_persistence", "metropolis", "S_churn", "S_min", "S_max", "S_noise", "guidance", "stage_num_levels", "stage_sigma_max", "stage_step_size", "stage_metropolis")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    NUM_LEVELS_FIELD_NUMBER: _ClassVar[int]
    SIGMA_MAX_FIELD_NUMBER: _ClassVar[int]
    SIGMA_MIN_FIELD_NUMBER: _ClassVar[int]
    RHO_FIELD_NUMBER: _ClassVar[int]
    TRANSITIONS_PER_LEVEL_FIELD_NUMBER: _ClassVar[int]
    NUM_INTEGRATION_STEPS_FIELD_NUMBER: _ClassVar[int]
    STEP_SIZE_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_PERSISTENCE_FIELD_NUMBER: _ClassVar[int]
    METROPOLIS_FIELD_NUMBER: _ClassVar[int]
    S_CHURN_FIELD_NUMBER: _ClassVar[int]
    S_MIN_FIELD_NUMBER: _ClassVar[int]
    S_MAX_FIELD_NUMBER: _ClassVar[int]
    S_NOISE_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    STAGE_NUM_LEVELS_FIELD_NUMBER: _ClassVar[int]
    STAGE_SIGMA_MAX_FIELD_NUMBER: _ClassVar[int]
    STAGE_STEP_SIZE_FIELD_NUMBER: _ClassVar[int]
    STAGE_METROPOLIS_FIELD_NUMBER: _ClassVar[int]
    method: str
    num_levels: int
    sigma_max: float
    sigma_min: float
    rho: float
    transitions_per_level: int
    num_integration_steps: int
    step_size: _containers.RepeatedScalarFieldContainer[float]
    momentum_persistence: float
    metropolis: bool
    S_churn: float
    S_min: float
    S_max: float
    S_noise: float
    guidance: float
    stage_num_levels: int
    stage_sigma_max: float
    stage_step_size: float
    stage_metropolis: bool
    def __init__(self, method: _Optional[str] = ..., num_levels: _Optional[int] = ..., sigma_max: _Optional[float] = ..., sigma_min: _Optional[float] = ..., rho: _Optional[float] = ..., transitions_per_level: _Optional[int] = ..., num_integration_steps: _Optional[int] = ..., step_size: _Optional[_Iterable[float]] = ..., momentum_persistence: _Optional[float] = ..., metropolis: _Optional[bool] = ..., S_churn: _Optional[float] = ..., S_min: _Optional[float] = ..., S_max: _Optional[float] = ..., S_noise: _Optional[float] = ..., guidance: _Optional[float] = ..., stage_num_levels: _Optional[int] = ..., stage_sigma_max: _Optional[float] = ..., stage_step_size: _Optional[float] = ..., stage_metropolis: _Optional[bool] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("label", "first", "count")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    label: int
    first: int
    count: int
    def __init__(self, label: _Optional[int] = ..., first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class SampleRequest(_message.Message):
    __slots__ = ("batches", "seed", "sampler", "format")
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    batches: _containers.RepeatedCompositeFieldContainer[Batch]
    seed: int
    sampler: Sampler
    format: Format
    def __init__(self, batches: _Optional[_Iterable[_Union[Batch, _Mapping]]] = ..., seed: _Optional[int] = ..., sampler: _Optional[_Union[Sampler, _Mapping]] = ..., format: _Optional[_Union[Format, str]] = ...) -> None: ...

class SampleReply(_message.Message):
    __slots__ = ("header", "image")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    header: Header
    image: Image
    def __init__(self, header: _Optional[_Union[Header, _Mapping]] = ..., image: _Optional[_Union[Image, _Mapping]] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("job", "model", "privacy", "sampler", "seed", "images")
    JOB_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    job: str
    model: str
    privacy: Privacy
    sampler: Sampler
    seed: int
    images: int
    def __init__(self, job: _Optional[str] = ..., model: _Optional[str] = ..., privacy: _Optional[_Union[Privacy, _Mapping]] = ..., sampler: _Optional[_Union[Sampler, _Mapping]] = ..., seed: _Optional[int] = ..., images: _Optional[int] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("label", "index", "format", "data", "channels", "height", "width")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    label: int
    index: int
    format: Format
    data: bytes
    channels: int
    height: int
    width: int
    def __init__(self, label: _Optional[int] = ..., index: _Optional[int] = ..., format: _Optional[_Union[Format, str]] = ..., data: _Optional[bytes] = ..., channels: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class JobStatus(_message.Message):
    __slots__ = ("job", "state", "images", "images_sent", "images_drawn", "seconds", "error")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[JobStatus.State]
        RUNNING: _ClassVar[JobStatus.State]
        DONE: _ClassVar[JobStatus.State]
        CANCELLED: _ClassVar[JobStatus.State]
        FAILED: _ClassVar[JobStatus.State]
    UNKNOWN: JobStatus.State
    RUNNING: JobStatus.State
    DONE: JobStatus.State
    CANCELLED: JobStatus.State
    FAILED: JobStatus.State
    JOB_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    IMAGES_SENT_FIELD_NUMBER: _ClassVar[int]
    IMAGES_DRAWN_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    job: str
    state: JobStatus.State
    images: int
    images_sent: int
    images_drawn: int
    seconds: float
    error: str
    def __init__(self, job: _Optional[str] = ..., state: _Optional[_Union[JobStatus.State, str]] = ..., images: _Optional[int] = ..., images_sent: _Optional[int] = ..., images_drawn: _Optional[int] = ..., seconds: _Optional[float] = ..., error: _Optional[str] = ...) -> None: ...
