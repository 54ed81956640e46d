"""Fixtures of the fault laboratory."""

from __future__ import annotations

import pytest

from faults.figures import Figure


@pytest.fixture
def figure(record_property: Figure) -> Figure:
    """Return a function that notes a figure of this run beside the test's result."""
    return record_property
