"""Every setting, in one place: name, type, unit, default and meaning.

Names are Celery's where the meaning is Celery's. `upshot config` prints this file's content with
each value and where it came from. Times are UTC, so there is no time zone to set.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast, get_type_hints

from upshot.errors import ConfigError, UnknownSettingError, UrlError
from upshot.masking import STARS
from upshot.spelling import hint
from upshot.typed_text import describe_type, parse_text, split_optional
from upshot.url import Url, mask

__all__ = ["SETTINGS", "Setting", "Settings"]

T = TypeVar("T")

_TINY: Final = 1e-3  # seconds: what "more than nothing" means for a duration
_CHOICES: Final = {
    "result_compression": ("gzip", "zstd", None),
    "worker_log_format": ("text", "json"),
}
_LONGEST_SHOWN: Final = 80  # characters of a wrong value that an error repeats


def _setting(
    default: T,
    doc: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    url: bool = False,
    secret: bool = False,
) -> T:
    """Declare a setting; `low` and `high` are the smallest and largest legal numbers."""
    metadata = {
        "doc": doc, "unit": unit, "low": low, "high": high, "url": url, "secret": secret,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


def _seconds(default: T, doc: str, *, low: float = _TINY) -> T:
    """Declare a duration."""
    return _setting(default, doc, unit="seconds", low=low)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """The values in force, checked and immutable. `SETTINGS` has a sentence about each.

    `repr()` shows what differs from the defaults, with passwords masked. The fields themselves
    and a pickle hold them in clear.

    Raises:
        ConfigError: a value has the wrong type, is out of range, or contradicts another.
        UrlError: a broker or backend URL cannot be read.
    """

    broker_url: str | None = _setting(
        None, "Where messages wait; none is the embedded sqlite:///.upshot/upshot.db.", url=True
    )
    result_backend: str | None = _setting(
        None,
        "Where results are kept; none is the broker's own service if it keeps results, and the "
        "embedded SQLite file otherwise.",
        url=True,
    )
    namespace: str = _setting("upshot", "Begins the name of every key, row and queue.")
    task_default_queue: str = _setting("default", "The queue of tasks that name none.")
    task_default_priority: int = _setting(0, "Larger runs first.", low=0, high=9)
    task_serializer: str = _setting("json", "What encodes arguments; in accept_content.")
    result_serializer: str = _setting("json", "What encodes results; in accept_content.")
    accept_content: tuple[str, ...] = _setting(
        ("json",), "Serializers that are used at all; pickle runs code of whoever wrote it."
    )
    result_expires: float | None = _seconds(
        86_400.0, "How long a record is kept after its last change; none is for ever."
    )
    result_max_bytes: int = _setting(
        64 * 2**20,
        "Longest record that is read; longer ones are refused before decoding.",
        unit="bytes",
        low=1024,
    )
    result_compression: str | None = _setting(
        None, "What compresses large payloads of records: gzip or zstd; none is nothing."
    )
    # What is shorter leaves in the first flight of a connection anyway: 10 segments (RFC 6928).
    result_compression_threshold: int = _setting(
        16_384, "Length of a payload from which on it is compressed.", unit="bytes", low=0
    )
    result_offload: str | None = _setting(
        None, "Where results go that are too large for a record: file:///folder; none is nowhere.",
        url=True,
    )  # fmt: skip
    result_offload_threshold: int | None = _setting(
        None,
        "Length of a result from which on it goes there; none is what the backend takes.",
        unit="bytes",
        low=0,
    )
    signing_keys: tuple[str, ...] | None = _setting(
        None,
        "Keys as id:base64, or file:/path of such lines: the first signs messages and records, "
        "one of them must have signed what is read; none signs nothing.",
        secret=True,
    )
    encryption_keys: tuple[str, ...] | None = _setting(
        None,
        "The same for arguments, results and progress: the first encrypts, all decrypt.",
        secret=True,
    )
    accept_unsealed: bool = _setting(
        False, "Accept what is not signed or encrypted although there are keys."
    )
    task_ignore_result: bool = _setting(False, "Keep no record of any task.")
    task_track_queued: bool = _setting(True, "Record QUEUED when a task is sent.")
    task_key_expires: float | None = _seconds(
        86_400.0, "How long a key stays taken after its call; none is for ever."
    )
    task_time_limit: float | None = _seconds(
        None, "A task that runs longer is ended with its process; none is no limit."
    )
    task_soft_time_limit: float | None = _seconds(
        None, "After this, SoftTimeLimitExceededError is raised in the task; none is never."
    )
    task_max_retries: int | None = _setting(
        3,
        "Repetitions of a failed attempt, where a task asks for them; none is no limit.",
        low=0,
    )
    task_retry_backoff: float = _seconds(
        1.0, "Wait before the first repetition; it doubles each time.", low=0
    )
    task_retry_backoff_max: float = _seconds(600.0, "The longest wait before a repetition.", low=0)
    task_retry_jitter: bool = _setting(True, "Wait a random part of that time.")
    task_max_deliveries: int = _setting(
        3, "A task whose worker died this often fails with WorkerLostError.", low=1
    )
    task_progress_interval: float = _seconds(
        0.1, "A task's progress is stored once in this time; the last report always is.", low=0
    )
    stream_max_items: int = _setting(
        100_000, "A task that yields more fails with StreamTooLongError.", low=1
    )
    operation_timeout: float = _seconds(
        5.0, "How long one call to a broker or backend may take, repetitions included."
    )
    worker_concurrency: int | None = _setting(
        None, "Processes of a worker; none is the number of CPUs.", low=1
    )
    worker_threads: int = _setting(1, "Tasks that each process runs at once.", low=1)
    worker_lease: float = _seconds(
        30.0, "How long a message stays with a worker that gives no sign of life.", low=1
    )
    worker_shutdown_timeout: float = _seconds(
        25.0,
        "How long a stopping worker waits for running tasks, and for their results to be stored.",
        low=0,
    )
    worker_max_tasks_per_child: int | None = _setting(
        None, "Tasks after which a process is replaced; none is never.", low=1
    )
    worker_log_format: str = _setting("text", "What a worker's log is: text, or json lines.")
    no_worker_warning: float | None = _seconds(
        3.0, "How long get() waits before it looks whether a worker is there; none never looks."
    )
    warn_unreleased_results: bool = _setting(
        False, "Emit ResourceWarning for a result that was neither read nor forgotten."
    )
    web_token: str | None = _setting(
        None,
        "What the page of `upshot web` asks of who looks at it, or file:/path of it; none asks "
        "nothing, and then it listens on this machine only.",
        secret=True,
    )

    def __post_init__(self) -> None:
        for setting in SETTINGS.values():
            object.__setattr__(self, setting.name, setting.check(getattr(self, setting.name)))
        hard, soft = self.task_time_limit, self.task_soft_time_limit
        if hard is not None and soft is not None and soft >= hard:
            raise ConfigError(
                f"task_soft_time_limit ({soft:g} seconds) must be less than "
                f"task_time_limit ({hard:g} seconds), or it never comes"
            )
        for name in ("task_serializer", "result_serializer"):
            if (serializer := getattr(self, name)) not in self.accept_content:
                raise ConfigError(
                    f"{name} is {serializer!r}, which accept_content "
                    f"{self.accept_content!r} does not have; add it there"
                )
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                *some, last = [each or "none" for each in choices]
                raise ConfigError(f"{name} is {', '.join(some)} or {last}; not {value!r}")

    def __repr__(self) -> str:
        values = ((setting, getattr(self, setting.name)) for setting in SETTINGS.values())
        changed = (
            f"{setting.name}={setting.masked(value)!r}"
            for setting, value in values
            if value != setting.default
        )
        return f"Settings({', '.join(changed)})"

    def updated(self, **changes: Any) -> Settings:
        """Return a copy with `changes`, checked like any other.

        Raises:
            ConfigError: a change is wrong.
            UnknownSettingError: a change names no setting.
        """
        for name in changes.keys() - SETTINGS.keys():
            raise UnknownSettingError(f"there is no setting {name!r}; {hint(name, SETTINGS)}")
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The definition of one setting.

    Attributes:
        name: as a keyword of `App`; the environment variable is `UPSHOT_` + the upper-case name.
        kind: the type, as written in `Settings`: `"float | None"`.
        annotation: the type itself.
        unit: `"seconds"`, `"bytes"` or "".
        default: the value if nobody sets it.
        low: the smallest legal number, or None.
        high: the largest legal number, or None.
        url: whether the value is a URL, which may hold a password.
        secret: whether the value may not be shown; of a list of keys, their ids may be.
        doc: what it does, in one sentence.
    """

    name: str
    kind: str
    annotation: object
    unit: str
    default: object
    low: float | None
    high: float | None
    url: bool
    secret: bool
    doc: str

    @property
    def optional(self) -> bool:
        """Whether None is a value."""
        return split_optional(self.annotation)[1]

    @property
    def expected(self) -> str:
        """What a value looks like: "a finite number (seconds, at least 0.001), or none"."""
        bounds = [
            self.unit,
            "" if self.low is None else f"at least {self.low:g}",
            "" if self.high is None else f"at most {self.high:g}",
        ]
        if detail := ", ".join(filter(None, bounds)):
            words, comma, none = describe_type(self.annotation).partition(",")
            return f"{words} ({detail}){comma}{none}"
        return describe_type(self.annotation)

    def check(self, value: object) -> object:
        """Return `value`, with an int made a float and a list a tuple where those are meant.

        Raises:
            ConfigError: it is of another type, or out of range; a bool is not a number.
            UrlError: it is no URL.
        """
        kind, optional = split_optional(self.annotation)
        if value is None and optional:
            return None
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = _as_float(value)
        if kind is tuple and isinstance(value, list):
            value = tuple(cast("list[object]", value))
        if not _is_a(value, kind) or not self._in_range(value):
            raise ConfigError(f"{self.name} must be {self.expected}; got {self._shown(value)}")
        if self.url and isinstance(value, str):
            try:
                Url.parse(value)
            except UrlError as exc:
                raise UrlError(f"{self.name}: {exc}") from exc
        if self.secret and kind is tuple:
            from upshot.keyring import check_keys  # only for those who have keys

            check_keys(self.name, cast("tuple[str, ...]", value))
        return value

    def read(self, text: str) -> object:
        """Return the checked value that `text`, from the environment, stands for.

        Lists are separated by commas; `none` and "" are None where the setting has it.

        Raises:
            ConfigError: it stands for none, or for one that is out of range.
        """
        try:
            value = parse_text(text, self.annotation)
        except ValueError:
            raise ConfigError(
                f"{self.name} must be {self.expected}; got {self._shown(text)}"
            ) from None
        return self.check(value)

    def masked(self, value: object) -> object:
        """Return a value as it may be shown: without the passwords in URLs, and without keys."""
        if isinstance(value, tuple):
            return tuple(map(self.masked, cast("tuple[object, ...]", value)))
        if not isinstance(value, str):
            return value
        if self.secret and not value.startswith("file:"):
            key_id, colon, _ = value.partition(":")
            is_key = colon and split_optional(self.annotation)[0] is tuple
            return f"{key_id}:{STARS}" if is_key else STARS
        return mask(value)

    def _in_range(self, value: object) -> bool:
        if isinstance(value, (int, float)):
            low = -math.inf if self.low is None else self.low
            high = math.inf if self.high is None else self.high
            return low <= value <= high and math.isfinite(value)  # false for NaN
        if isinstance(value, tuple):
            texts = cast("tuple[object, ...]", value)
            return texts != () and all(map(_is_word, texts))
        # Url.parse says more about what is wrong with a URL.
        return self.url or _is_word(value)

    def _shown(self, value: object) -> str:
        """Return a wrong value for an error; of URLs and keys, which are secret, only its type."""
        if self.url or self.secret:
            return f"a value of type {type(value).__name__}"
        shown = mask(repr(value))
        return shown if len(shown) <= _LONGEST_SHOWN else shown[:_LONGEST_SHOWN] + "…"


def _is_a(value: object, kind: object) -> bool:
    """Tell whether a value is of a class, where a bool is no int."""
    return isinstance(value, cast(type, kind)) and isinstance(value, bool) == (kind is bool)


def _as_float(value: int) -> float:
    """Return an int as float; one that no float can hold is infinite, and refused as such."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _is_word(value: object) -> bool:
    """Tell whether a value is text that can stand in a key and a log: printable, not empty."""
    return isinstance(value, str) and value.isprintable() and value.strip() != ""


def _definitions() -> dict[str, Setting]:
    annotations = get_type_hints(Settings)
    return {
        field.name: Setting(
            name=field.name,
            kind=str(field.type),
            annotation=annotations[field.name],
            default=field.default,
            **field.metadata,
        )
        for field in dataclasses.fields(Settings)
    }


SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType(_definitions())
"""Every setting by name, in the order of `Settings`."""
