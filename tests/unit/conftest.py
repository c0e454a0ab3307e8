"""How Hypothesis runs here."""

from __future__ import annotations

from hypothesis import settings

# No test asserts a time, and on a busy machine any example may take long.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
