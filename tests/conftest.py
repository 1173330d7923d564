"""What holds for all unit tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine must not fail a test: examples have no deadline.
settings.register_profile("dzagent", deadline=None)
settings.load_profile("dzagent")
