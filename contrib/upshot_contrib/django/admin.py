"""The admin's pages of results: to look at them, and to forget them.

A record does not hold its task's arguments: those travel in the message, which is gone once the
task has ended. So a task cannot be sent again from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, final

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from upshot import App
from upshot.errors import ServiceError
from upshot.states import State
from upshot_contrib.django.backend import alias_of
from upshot_contrib.django.companions import CALL, call_id
from upshot_contrib.django.models import Result, ResultQuerySet
from upshot_contrib.django.presenting import Shown, moment_shown, state_label

__all__ = ["ResultAdmin", "StateFilter"]

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Result]
else:
    _ModelAdmin = admin.ModelAdmin  # generic for type checkers only


@final
class StateFilter(admin.SimpleListFilter):
    """Offers the states that there are, without asking the table which of them it holds."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [(each.value, each.value) for each in State if each is not State.PENDING]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = self.value()
        return queryset.filter(state=chosen) if chosen else queryset


@final
@admin.register(Result)
class ResultAdmin(_ModelAdmin):
    """The results of the app's namespace that have not expired; read-only."""

    list_display = ("task_id", "task_name", "state_shown", "stored")
    list_filter = (StateFilter,)
    search_fields = ("task_id", "name")
    search_help_text = "Search by task id or task name"
    ordering = ("-stored_at",)
    show_full_result_count = False  # it would count every row of the table
    actions = ("forget",)
    readonly_fields = (
        "state_shown", "task_name", "queue", "worker", "attempts", "queued", "started", "finished",
        "stored", "expires", "value", "progress", "traceback", "sending_again",
    )  # fmt: skip

    class Media:
        """What the pages look like."""

        css: ClassVar = {"all": ["upshot/admin.css"]}

    # -- what may be done -------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Result | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Result | None = None) -> bool:
        return False

    def has_forget_permission(self, request: HttpRequest) -> bool:
        """Whoever may delete results may have them forgotten."""
        user: Any = request.user
        return bool(user.has_perm("upshot.delete_result"))

    @admin.action(description="Forget the selected results", permissions=["forget"])
    def forget(self, request: HttpRequest, queryset: QuerySet[Result]) -> None:
        """Forget results as the app does, so that waits for them end."""
        app, ids = _app(), list(queryset.values_list("task_id", flat=True))
        calls = ResultQuerySet(Result, using=queryset.db).of(app.settings.namespace)
        calls = calls.filter(task_id__in=[call_id(each) for each in ids], state=CALL)
        try:
            app.results.forget([*ids, *calls.values_list("task_id", flat=True)])
        except ServiceError as exc:
            self.message_user(request, str(exc), messages.ERROR)
        else:
            what = "1 result was" if len(ids) == 1 else f"{len(ids)} results were"
            self.message_user(request, f"{what} forgotten.", messages.SUCCESS)

    # -- what is shown ----------------------------------------------------------------------------

    def get_fields(self, request: HttpRequest, obj: Result | None = None) -> Any:
        """Leave out what a result does not have."""
        if obj is None:
            return []
        has = _shown(obj).has
        return [
            "task_id",
            *(name for name in self.readonly_fields if name not in has or has[name]),
        ]

    def get_queryset(self, request: HttpRequest) -> ResultQuerySet:
        app = _app()
        url = app.backend_url
        alias = alias_of(url) if url.scheme == "django-db" else None
        found = ResultQuerySet(Result, using=alias).of(app.settings.namespace).alive()
        found = found.exclude(state=CALL)  # what Django's tasks keep beside a result
        return found.order_by("-stored_at").defer("body")

    @admin.display(description="task", ordering="name")
    def task_name(self, obj: Result) -> str:
        """The name of the task."""
        return obj.name or "-"

    @admin.display(description="state", ordering="state")
    def state_shown(self, obj: Result) -> SafeString:
        """The state, in its colour."""
        return state_label(obj.state)

    @admin.display(description="last change", ordering="stored_at")
    def stored(self, obj: Result) -> str:
        """When the record was stored last."""
        return moment_shown(obj.stored_at) or "-"

    @admin.display(description="kept until")
    def expires(self, obj: Result) -> str:
        """When the record will be gone."""
        return moment_shown(obj.expires_at) or "for ever"

    @admin.display
    def queue(self, obj: Result) -> str:
        """Where the task was sent."""
        record = _shown(obj).record
        return record.queue if record and record.queue else "-"

    @admin.display
    def worker(self, obj: Result) -> str:
        """Who ran it."""
        record = _shown(obj).record
        return record.worker if record and record.worker else "-"

    @admin.display
    def attempts(self, obj: Result) -> int:
        """How often it was begun."""
        record = _shown(obj).record
        return record.attempt if record and record.started_at is not None else 0

    @admin.display
    def queued(self, obj: Result) -> str:
        """When it was sent."""
        return _shown(obj).moment("queued_at") or "-"

    @admin.display
    def started(self, obj: Result) -> str:
        """When its last attempt began."""
        return _shown(obj).moment("started_at") or "-"

    @admin.display
    def finished(self, obj: Result) -> str:
        """When it ended."""
        return _shown(obj).moment("finished_at") or "-"

    @admin.display
    def value(self, obj: Result) -> SafeString | str:
        """What it returned."""
        return _shown(obj).value()

    @admin.display
    def progress(self, obj: Result) -> SafeString | str:
        """What it reported last."""
        return _shown(obj).progress()

    @admin.display
    def traceback(self, obj: Result) -> SafeString | str:
        """How it failed."""
        return _shown(obj).traceback()

    @admin.display(description="send again")
    def sending_again(self, obj: Result) -> str:
        """Say why there is no button for it."""
        return (
            "Not from here: a record does not hold the task's arguments. "
            "Call the task again in your program."
        )


def _app() -> App:
    from upshot_contrib.django.app import app  # the tasks of installed apps import it, too

    return app


def _shown(result: Result) -> Shown:
    """Decode a result once for all that is shown of it."""
    kept: Shown | None = vars(result).get("_shown")
    if kept is None:
        kept = vars(result)["_shown"] = Shown(_app(), result)
    return kept
