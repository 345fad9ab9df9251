"""How hypothesis searches in the unit tests: wide enough, and done in seconds."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "unit",
    deadline=None,
    max_examples=50,
    database=None,
    # Each example writes below a folder of its own.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("unit")
