"""What `upshot doctor` asks of every service and of an app, each question in one place.

What only one service knows of itself is in that service's folder; see `upshot.backend.Diagnosing`.
"""

from __future__ import annotations

from upshot.diagnosis.application import examine_app
from upshot.diagnosis.examination import Examination, gravest
from upshot.diagnosis.service import examine, roles_of

__all__ = ["Examination", "examine", "examine_app", "gravest", "roles_of"]
