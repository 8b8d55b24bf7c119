"""What an SQL service is asked beside its tables, when somebody wants to know whether it is fit."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar

from upshot.finding import Advice, Finding, advice_for

if TYPE_CHECKING:
    from upshot.url import Url

__all__ = ["Diagnosis"]


class Diagnosis(abc.ABC):
    """What each service's own diagnosis has; see `upshot.backend.Diagnosing` and `Rehearsing`.

    Class attributes to define:

        advice: what is to be changed, by what the driver or the service says.
    """

    advice: ClassVar[Advice]

    @abc.abstractmethod
    def diagnose(self, timeout: float) -> Sequence[Finding]:
        """Look at the service; create no tables."""

    @abc.abstractmethod
    def rehearsal(self, timeout: float) -> AbstractContextManager[Url | None]:
        """Give a URL of other tables, which are dropped in the end, if there are none yet."""

    def advise(self, said: str) -> str:
        """Return what to change where the service said this; "" if unknown."""
        return advice_for(said, self.advice)
