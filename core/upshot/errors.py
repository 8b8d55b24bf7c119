"""Every exception upshot raises, in one tree.

    UpshotError
    ├── ConfigError (ValueError)             a setting, a URL or an App argument is wrong
    │   ├── UnknownSettingError              no setting has that name
    │   ├── UrlError                         a broker or backend URL cannot be read
    │   │   ├── UnknownSchemeError           no installed distribution offers the scheme
    │   │   └── SchemeConflictError          two distributions offer the scheme
    │   └── DriverMissingError (ImportError) the scheme is known, its driver is not installed
    ├── InvalidTaskIdError (ValueError)      the id is empty, too long or has control characters
    ├── SerializationError
    │   ├── EncodeError (TypeError)          a value cannot be encoded; `path` names the bad part
    │   ├── DecodeError (ValueError)         stored bytes are not what their serializer wrote
    │   │   └── TamperedMessageError         a message that no key of ours has sealed
    │   ├── KeyMissingError                  bytes are encrypted with a key that is not here
    │   ├── PayloadMissingError (LookupError) what was kept outside of its record is gone
    │   ├── UntrustedContentError            a content type that `accept_content` does not name
    │   └── PayloadTooLargeError             larger than the backend or the setting allows
    ├── ServiceError                         a broker or backend could not do what was asked
    │   ├── ServiceUnavailableError (ConnectionError)  down, unreachable, slow, or refusing for now
    │   ├── ServiceClosedError               `close()` was called on this object
    │   ├── ServiceRejectedError             the service refused for good: rights, syntax, quota
    │   ├── UnsupportedError                 the capability is not declared by this service
    │   └── CorruptRecordError               stored bytes under one id are not a record
    │       └── TamperedRecordError          … but one that no key of ours has sealed
    ├── TaskError
    │   ├── UnknownTaskError (LookupError)   no task of that name is registered here
    │   ├── TaskExpiredError                 the message was older than its `expires`
    │   ├── TimeLimitExceededError           the hard limit ended the task
    │   ├── SoftTimeLimitExceededError       raised inside the task at its soft limit
    │   ├── WorkerLostError                  the task took its workers down too many times
    │   ├── StreamTooLongError               it yielded more items than `stream_max_items`
    │   └── Retry                            raised by `current_task().retry()` to leave the task
    ├── ResultError
    │   ├── ResultTimeoutError (TimeoutError)  the deadline passed before the task ended
    │   ├── ResultForgottenError (LookupError) the record was forgotten during the wait
    │   ├── ResultConsumedError              this service hands a result out once, and did
    │   ├── StreamBrokenError (LookupError)  an item of a stream is gone: expired, or evicted
    │   ├── TaskRevokedError                 the task was revoked, there is no value
    │   └── RemoteError                      the task failed with a class not loaded here
    ├── NotDrainedError                      `upshot.testing.drain` left messages waiting
    └── UnreleasedResultsError               a test neither read nor forgot the results it asked for

Every class survives `pickle` and `copy` with its attributes, and can be raised twice.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ConfigError",
    "CorruptRecordError",
    "DecodeError",
    "DriverMissingError",
    "EncodeError",
    "InvalidTaskIdError",
    "KeyMissingError",
    "NotDrainedError",
    "PayloadMissingError",
    "PayloadTooLargeError",
    "RemoteError",
    "ResultConsumedError",
    "ResultError",
    "ResultForgottenError",
    "ResultTimeoutError",
    "Retry",
    "SchemeConflictError",
    "SerializationError",
    "ServiceClosedError",
    "ServiceError",
    "ServiceRejectedError",
    "ServiceUnavailableError",
    "SoftTimeLimitExceededError",
    "StreamBrokenError",
    "StreamTooLongError",
    "TamperedMessageError",
    "TamperedRecordError",
    "TaskError",
    "TaskExpiredError",
    "TaskRevokedError",
    "TimeLimitExceededError",
    "UnknownSchemeError",
    "UnknownSettingError",
    "UnknownTaskError",
    "UnreleasedResultsError",
    "UnsupportedError",
    "UntrustedContentError",
    "UpshotError",
    "UrlError",
    "WorkerLostError",
]


def _rebuild(
    cls: type[UpshotError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> UpshotError:
    """Make an error again without calling its constructor."""
    error = cls.__new__(cls)
    error.args = args
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


class UpshotError(Exception):
    """The root: `except UpshotError` catches whatever upshot itself raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call cls(*args), which fails for constructors with keywords.
        return _rebuild, (type(self), self.args, dict(self.__dict__))


class ConfigError(UpshotError, ValueError):
    """A setting, a URL or an argument of `App` is wrong; the message says which and why."""


class UnknownSettingError(ConfigError):
    """No setting has that name; the message offers the nearest one."""


class UrlError(ConfigError):
    """A broker or backend URL cannot be read. The password in it is masked."""


class UnknownSchemeError(UrlError):
    """No installed distribution offers this URL scheme; the message offers near ones."""


class SchemeConflictError(UrlError):
    """Two distributions offer this scheme; `scheme@distribution://` chooses one."""


class DriverMissingError(ConfigError, ImportError):
    """The scheme is known but its driver is not installed; the message has the pip line.

    Attributes:
        name: the module that could not be imported, or None.
    """

    def __init__(self, message: str, *, name: str | None = None) -> None:
        # Not super().__init__(message, name=…): ValueError comes first and takes no keywords.
        super().__init__(message)
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        # ImportError keeps `name` in a slot of its own, not in __dict__.
        return _rebuild, (type(self), self.args, {**self.__dict__, "name": self.name})


class InvalidTaskIdError(UpshotError, ValueError):
    """A task id must be 1 to 255 bytes of UTF-8 without control characters."""


class SerializationError(UpshotError):
    """A value could not be turned into bytes or back."""


class EncodeError(SerializationError, TypeError):
    """A value cannot be encoded.

    Attributes:
        path: where the bad value is, as an expression: `result['rows'][3]`.
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class DecodeError(SerializationError, ValueError):
    """Bytes are not what their content type says, or exceed a limit on depth or size."""


class TamperedMessageError(DecodeError):
    """A message is not signed or encrypted as the settings demand: it was changed or made up.

    Its task was not run. Nothing in the message is believed, not even whose it is.
    """


class KeyMissingError(SerializationError):
    """Bytes are encrypted with a key that `encryption_keys` does not have here."""


class PayloadMissingError(SerializationError, LookupError):
    """A record refers to a value that is kept elsewhere (`result_offload`), and it is not there."""


class UntrustedContentError(SerializationError):
    """Bytes carry a content type that `accept_content` does not name; they were not decoded."""


class PayloadTooLargeError(SerializationError):
    """An encoded payload exceeds what the backend takes.

    Attributes:
        size: the payload's length in bytes.
        limit: the largest length allowed, in bytes.
    """

    def __init__(self, message: str, *, size: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class ServiceError(UpshotError):
    """A broker or result backend could not do what was asked; the driver's error is the cause.

    Attributes:
        task_ids: what was being sent when it failed: an id for each request, in their order; empty
            if nothing was. Any of these tasks may have been sent. Sending them again under the
            same ids (`task_id=`) loses none, and none runs twice for it if results are stored:
            not ignored, nor carried by `rpc://`.
    """

    task_ids: tuple[str, ...] = ()


class ServiceUnavailableError(ServiceError, ConnectionError):
    """The service is down, unreachable, too slow, or refuses for now. Trying again may help."""


class ServiceClosedError(ServiceError):
    """The broker or backend was used after `close()`."""


class ServiceRejectedError(ServiceError):
    """The service refused for good (rights, syntax, quota). Trying again will not help."""


class UnsupportedError(ServiceError):
    """The service does not declare the capability that this call needs."""


class CorruptRecordError(ServiceError):
    """What is stored under one id is not a record of a version that can be read here.

    Attributes:
        task_id: the id whose record is unreadable; no other id is affected.
    """

    def __init__(self, message: str, *, task_id: str = "") -> None:
        super().__init__(message)
        self.task_id = task_id


class TamperedRecordError(CorruptRecordError):
    """A record is not signed or encrypted as the settings demand: it was changed or made up."""


class TaskError(UpshotError):
    """A task could not be run, or was ended from outside."""


class UnknownTaskError(TaskError, LookupError):
    """No task of that name is registered in this process; the message lists near names."""


class TaskExpiredError(TaskError):
    """A worker received the message after its `expires`, and did not run it."""


class TimeLimitExceededError(TaskError):
    """The task ran past its hard `time_limit` and its process was ended."""


class SoftTimeLimitExceededError(TaskError):
    """Raised inside the task when `soft_time_limit` has passed, so that it can clean up."""


class WorkerLostError(TaskError):
    """The task's worker process died each time it ran, as often as `task_max_deliveries`."""


class StreamTooLongError(TaskError):
    """The task yielded more items than the setting `stream_max_items` allows, and was ended."""


class Retry(TaskError):  # noqa: N818 - it asks for something; nothing has failed yet
    """Leaves the running task, which runs again later: raised by `current_task().retry()`.

    Attributes:
        countdown: seconds until the next attempt; None takes the task's own backoff.
        reason: the exception that made the task ask, or None.
    """

    def __init__(
        self,
        message: str = "the task asked to be run again",
        *,
        countdown: float | None = None,
        reason: BaseException | None = None,
    ) -> None:
        super().__init__(message)
        self.countdown = countdown
        self.reason = reason


class ResultError(UpshotError):
    """A result could not be had."""


class ResultTimeoutError(ResultError, TimeoutError):
    """The task did not end within `timeout`. Nothing was consumed: waiting again is fine."""


class ResultForgottenError(ResultError, LookupError):
    """Somebody called `forget()` on this id while it was being waited for."""


class ResultConsumedError(ResultError):
    """This service hands each result out once, and already did."""


class StreamBrokenError(ResultError, LookupError):
    """An item that the task yielded is not there any more: it expired, or its service dropped it.

    Attributes:
        index: of the missing item. Later ones may be there: `stream(start=index + 1)`.
    """

    def __init__(self, message: str, *, index: int = 0) -> None:
        super().__init__(message)
        self.index = index


class TaskRevokedError(ResultError):
    """The task was revoked, so there is no value."""


class RemoteError(ResultError):
    """The task failed with an exception whose class is not loaded in this process.

    Attributes:
        type_name: `module.Class` of the original exception.
        message: its `str()`.
        args_repr: the `repr()` of each of its arguments.
        traceback: the remote traceback as text, "" if there was none.
        bases: `module.Class` of each base class of the original, nearest first.
    """

    def __init__(
        self,
        type_name: str,
        message: str = "",
        *,
        args_repr: tuple[str, ...] = (),
        traceback: str = "",
        bases: tuple[str, ...] = (),
    ) -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.type_name = type_name
        self.message = message
        self.args_repr = args_repr
        self.traceback = traceback
        self.bases = bases

    def is_(self, type_name: str) -> bool:
        """Tell whether the original was a `module.Class`, or derived from one."""
        return type_name == self.type_name or type_name in self.bases


class NotDrainedError(UpshotError):
    """Not all that was sent in a test was run: messages wait for a moment that does not come."""


class UnreleasedResultsError(UpshotError):
    """Results that a test asked for were neither read nor forgotten.

    Attributes:
        task_ids: whose.
    """

    def __init__(self, message: str, *, task_ids: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.task_ids = task_ids
