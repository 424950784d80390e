"""What a worker says of itself when it registers."""

# Annotations are not texts here, because a start reads them and would compile each text.

from ..structure import FunctionInput


class WorkerInfo(FunctionInput, frozen=True):
    """A worker's description of itself (`engine::workers::register`)."""

    runtime: str = "unknown"
    version: str | None = None
    name: str | None = None
    description: str | None = None
    os: str | None = None
    pid: int | None = None
    isolation: str | None = None


class RegisterInput(WorkerInfo, frozen=True):
    """The payload of `engine::workers::register`."""

    namespace: str | None = None
    features: list[str] | None = None
