"""What a request is told when it gets no answer: one JSON shape, one status for each kind. Standard library only."""

from dataclasses import dataclass

STATUS = {
    "bad_request": 400,  # the body is not what its type says
    "unauthorized": 401,
    "forbidden": 403,  # a page of another origin, or a name that this server does not go by
    "not_found": 404,
    "method_not_allowed": 405,
    "slow_body": 408,
    "too_large": 413,
    "unsupported_type": 415,
    "bad_value": 422,  # a value that this model cannot read; `field` says which
    "failed": 500,
    "busy": 503,
    "not_ready": 503,
    "timeout": 504,
}


@dataclass(eq=False)
class Problem(Exception):
    """Raised anywhere on a request's way; the server turns it into its answer. field: the input it is about.
    retry_after_s: when to come again."""

    kind: str
    message: str
    field: str | None = None
    retry_after_s: int | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.kind]

    def to_dict(self) -> dict[str, dict[str, str | None]]:
        """{"error": {"type":, "field":, "message":}}"""
        return {"error": {"type": self.kind, "field": self.field, "message": self.message}}
