"""Every error Ingle raises on purpose.

    IngleError
    ├── RequestError                the client can mend it
    │   ├── InvalidRequest          a field is wrong
    │   │   ├── UnsupportedParameter
    │   │   ├── ContextOverflow
    │   │   ├── TemplateError       the model's chat template refuses the messages
    │   │   └── TemplateTooSlow     it takes more time or memory than it may
    │   ├── UnsupportedContentType
    │   ├── UnsupportedEncoding     the body is compressed in a way that is not read
    │   ├── BodyTooLarge
    │   ├── MalformedRequest        it is no HTTP
    │   ├── HeadersTooLarge
    │   ├── RequestTimedOut         it came too slowly
    │   ├── Unauthorized
    │   ├── HostRefused             the server is asked under a name that is not its own
    │   ├── ModelNotFound
    │   ├── AdminRefused            only who looks after the server may
    │   ├── RequestNotFound
    │   ├── RequestCancelled        by who looks after the server
    │   ├── Conflict                things stand so that it cannot be done
    │   └── RateLimited             the key's own quota is used up
    ├── Unavailable                 the server cannot take it now; worth a retry
    │   ├── Overloaded
    │   ├── ModelLoading
    │   └── EngineDown              the engine ended, and loading it again fails again and again
    ├── DeadlineExceeded            it took longer than a request may
    ├── EngineError                 the engine failed while it held the request
    └── StartupError                the server cannot start; the message names the remedy
        ├── ConfigError
        ├── ModelFileError
        └── OutOfMemory

`server/api/errors.py` maps the tree to HTTP, once. The attributes are the wire's: `code` (a string
clients branch on), `param` (the field's path) and `message` (for people; never a traceback).
"""

from __future__ import annotations

from typing import ClassVar, Literal


class IngleError(Exception):
    """`code` "" is none, where the class has one."""

    code: ClassVar[str | None] = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.error_code = (type(self).code if code is None else code) or None


class RequestError(IngleError):
    pass


class InvalidRequest(RequestError):
    code = "invalid_value"


class UnsupportedParameter(InvalidRequest):
    code = "unsupported_parameter"


class ContextOverflow(InvalidRequest):
    """The prompt does not fit in a slot. LangChain, litellm and aider match on the wording."""

    code = "context_length_exceeded"

    @classmethod
    def of(
        cls, prompt_tokens: int, context: int, *, param: str = "messages", at_least: bool = False
    ) -> ContextOverflow:
        count = f"{'at least ' * at_least}{prompt_tokens}"
        return cls(
            f"This model's maximum context length is {context} tokens. However, your {param} "
            f"resulted in {count} tokens (context_length_exceeded). "
            f"Please reduce the length of the {param}.",
            param=param,
        )


class TemplateError(InvalidRequest):
    code = "invalid_messages"


class TemplateTooSlow(InvalidRequest):
    """No TemplateError: another way to put the messages would be as slow."""

    code = "invalid_messages"


class UnsupportedContentType(RequestError):
    code = "unsupported_content_type"


class UnsupportedEncoding(RequestError):
    code = "unsupported_content_encoding"


class BodyTooLarge(RequestError):
    code = "request_too_large"


class MalformedRequest(RequestError):
    code = "malformed_request"


class HeadersTooLarge(RequestError):
    code = "headers_too_large"


class RequestTimedOut(RequestError):
    code = "request_timeout"


class Unauthorized(RequestError):
    code = "invalid_api_key"


class HostRefused(RequestError):
    code = "host_not_allowed"


class ModelNotFound(RequestError):
    code = "model_not_found"


class AdminRefused(RequestError):
    code = "admin_only"


class RequestNotFound(RequestError):
    code = "request_not_found"


class RequestCancelled(RequestError):
    code = "request_cancelled"


class Conflict(RequestError):
    code = "conflict"


class RateLimited(RequestError):
    """`kind` is what there was too much of; `retry_after` is as of Unavailable."""

    code = "rate_limit_exceeded"
    kind: Literal["requests", "tokens"] = "requests"
    retry_after: float = 1.0


class Unavailable(IngleError):
    """`retry_after` is in seconds, up to 60: SDKs ignore or give up on longer ones."""

    retry_after: float = 1.0


class Overloaded(Unavailable):
    code = "server_overloaded"


class ShuttingDown(Unavailable):
    code = "server_shutdown"
    retry_after = 5.0


class ModelLoading(Unavailable):
    code = "model_loading"
    retry_after = 2.0


class DeadlineExceeded(IngleError):
    code = "timeout"


class EngineDown(Unavailable):
    code = "engine_unavailable"
    retry_after = 30


class EngineError(IngleError):
    code = "engine_error"


class StartupError(IngleError):
    pass


class ConfigError(StartupError):
    pass


class ModelFileError(StartupError):
    pass


class OutOfMemory(StartupError):
    pass


def _tree(root: type[IngleError]) -> dict[str, type[IngleError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


BY_NAME = _tree(IngleError)
"""Class name to class, to rebuild an error that crossed the pipe between processes."""
