"""When the clusters are fitted next, and how it is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsortd.core.drift import Drift
from imgsortd.core.lifecycle import (
    FitFacts,
    FitTrigger,
    RefitRule,
    describe_next_fit,
    duration_text,
    fit_due,
)

RULE = RefitRule(min_images=300, interval_s=7 * 86_400, growth=0.25)
RULES = st.builds(
    RefitRule,
    st.integers(1, 50),
    st.none() | st.integers(1, 1000).map(float),
    st.none() | st.floats(0.001, 100),
)
FITTED = st.builds(
    FitFacts, st.integers(0, 200), st.integers(1, 100), st.integers(0, 2000).map(float)
)


@pytest.mark.parametrize(
    ("facts", "due"),
    [
        (FitFacts(299), None),
        (FitFacts(300), FitTrigger.BOOTSTRAP),
        (FitFacts(374, 300, 60), None),
        (FitFacts(375, 300, 60), FitTrigger.GROWTH),
        (FitFacts(301, 300, 7 * 86_400), FitTrigger.INTERVAL),
        (FitFacts(300, 300, 99 * 86_400), None),
        (FitFacts(200, 300, 99 * 86_400), None),
        (FitFacts(310, 300, 60, Drift(200, 200, 40)), FitTrigger.DRIFT),
        (FitFacts(310, 300, 60, Drift(200, 200, 39)), None),
        (FitFacts(310, 300, 60, Drift(200, 199, 199)), None),
        (FitFacts(300, 300, 60, Drift(200, 200, 200)), None),
    ],
)
def test_a_fit_is_due_at_first_by_number_then_by_growth_drift_or_age(
    facts: FitFacts, due: FitTrigger | None
) -> None:
    assert fit_due(RULE, facts) is due


@given(RULES, FITTED)
def test_what_is_said_of_the_next_fit_is_what_will_trigger_it(
    rule: RefitRule, facts: FitFacts
) -> None:
    said = describe_next_fit(rule, facts)

    said_due = "after 0 more" in said or "in 0 s" in said
    assert (fit_due(rule, facts) is not None) == said_due


@pytest.mark.parametrize(
    ("drift", "text"),
    [
        (Drift(200, 50, 3), "when 20 % of 200 arrivals lie far out (150 still to come)"),
        (Drift(200, 200, 24), "when 20 % of the last 200 lie far out (12 % do)"),
    ],
)
def test_drift_is_announced_with_the_share_now_and_the_one_that_triggers(
    drift: Drift, text: str
) -> None:
    said = describe_next_fit(RULE, FitFacts(330, 300, 86_400, drift))

    assert said == f"after 45 more new pictures or in 6 d or {text}"


@given(st.integers(1, 50), st.integers(0, 100))
def test_the_first_fit_is_announced_with_the_number_that_is_missing(least: int, have: int) -> None:
    rule, facts = RefitRule(least, None, None), FitFacts(have)

    assert describe_next_fit(rule, facts) == f"first fit at {least} pictures, {have} so far"
    assert (fit_due(rule, facts) is FitTrigger.BOOTSTRAP) == (have >= least)


def test_with_growth_and_interval_off_only_a_request_refits() -> None:
    rule, facts = RefitRule(300, None, None), FitFacts(10_000, 300, 1e9)

    assert fit_due(rule, facts) is None
    assert describe_next_fit(rule, facts) == "only on `imgsortd refit`"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.6, "1 min"),
        (3599, "59 min 59 s"),
        (3601, "1 h"),
        (7 * 86_400 - 60, "6 d 23 h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
