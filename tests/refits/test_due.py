"""When the clusters are fitted next and how it is said; whether a library is young or grown."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsortd.records import AdoptedFit, Arrivals, FitTrigger
from imgsortd.refits.due import (
    Age,
    Drift,
    FitFacts,
    RefitRule,
    age_of,
    describe_age,
    describe_next_fit,
    fit_due,
    sees_all,
)
from imgsortd.words import duration_text

RULE = RefitRule(min_images=300, interval_s=7 * 86_400, growth=0.25, quiet_s=30)
RULES = st.builds(
    RefitRule,
    st.integers(1, 50),
    st.none() | st.integers(1, 1000).map(float),
    st.none() | st.floats(0.001, 100),
    st.sampled_from([0.0, 30.0]),
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

    said_due = said in ("when none has come for 30 s", "when all are seen")
    assert (fit_due(rule, facts) is not None) == said_due
    assert "after 0 more" not in said
    assert "in 0 s" not in said


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


@given(st.integers(1, 50), st.integers(0, 100), st.integers(0, 100))
def test_the_first_fit_is_announced_with_the_pictures_that_are_known(
    least: int, have: int, unread: int
) -> None:
    rule, facts = RefitRule(least, None, None, 30), FitFacts(have, unread=unread)

    said = describe_next_fit(rule, facts)

    known = have + unread
    assert (said == f"first fit at {least} pictures, {known} so far") == (known < least)
    assert said.startswith("all ") == (known >= least and not unread)
    assert said.startswith(f"looking at {have} of {known} ") == (known >= least and unread > 0)
    assert (fit_due(rule, facts) is FitTrigger.BOOTSTRAP) == (have >= least)


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (FitFacts(120), "first fit at 300 pictures, 120 so far"),
        (FitFacts(120, unread=50), "first fit at 300 pictures, 170 so far"),
        (
            FitFacts(1_240, unread=560),
            "looking at 1,240 of 1,800 pictures; sorted when all are seen",
        ),
        (FitFacts(0, unread=300), "looking at 0 of 300 pictures; sorted when all are seen"),
        (
            FitFacts(1_800),
            "all 1,800 pictures are looked at; sorted when none has come for 30 s",
        ),
        (FitFacts(400, 300, 60), "when none has come for 30 s"),
        (FitFacts(12_000, 10_000, 86_400), "after 500 more new pictures or in 6 d"),
    ],
)
def test_it_is_said_what_the_next_fit_waits_for(facts: FitFacts, text: str) -> None:
    assert describe_next_fit(RULE, facts) == text


def test_a_fit_sees_all_when_each_file_is_read_and_none_has_come_for_a_while() -> None:
    assert sees_all(RULE, Arrivals(unread=0, quiet_s=30))
    assert sees_all(RULE, Arrivals(unread=0, quiet_s=math.inf))
    assert not sees_all(RULE, Arrivals(unread=0, quiet_s=29.9))
    assert not sees_all(RULE, Arrivals(unread=1, quiet_s=math.inf))


def test_with_growth_and_interval_off_only_a_request_refits() -> None:
    rule, facts = RefitRule(300, None, None), FitFacts(10_000, 300, 1e9)

    assert fit_due(rule, facts) is None
    assert describe_next_fit(rule, facts) == "only on `imgsortd refit`"


def fits(*made: tuple[int, float | None]) -> list[AdoptedFit]:
    """Return fits of so many pictures, each with the share that changed."""
    return [AdoptedFit(number, *fit) for number, fit in enumerate(made, 1)]


@pytest.mark.parametrize(
    ("made", "n_features", "age"),
    [
        # The first fit is a guess, also of all there is.
        ([(300, None)], 300, Age.YOUNG),
        ([(300, None)], 601, Age.YOUNG),
        # One calm refit may be chance.
        ([(300, None), (375, 0.05)], 375, Age.YOUNG),
        ([(300, None), (375, 0.05), (469, 0.09)], 469, Age.GROWN),
        # What is not calm begins the count anew.
        ([(300, None), (375, 0.1), (469, 0.05)], 469, Age.YOUNG),
        ([(300, None), (375, 0.05), (469, 0.4), (587, 0.05)], 587, Age.YOUNG),
        ([(300, None), (375, 0.05), (469, 0.4), (587, 0.05), (734, 0.05)], 734, Age.GROWN),
        # A refit after less growth tells nothing, and small ones count together.
        ([(300, None), (310, 0.0), (320, 0.0), (330, 0.0)], 330, Age.YOUNG),
        ([(300, None), (340, 0.06), (375, 0.06), (469, 0.05)], 469, Age.YOUNG),
        ([(300, None), (340, 0.04), (375, 0.04), (469, 0.05)], 469, Age.GROWN),
        # Grown is grown, whatever a later refit changes.
        ([(300, None), (375, 0.0), (469, 0.0), (587, 0.5)], 587, Age.GROWN),
        # A library that has more than doubled begins anew, from the time it arrives.
        ([(300, None), (375, 0.0), (469, 0.0)], 939, Age.YOUNG),
        ([(300, None), (375, 0.0), (469, 0.0)], 938, Age.GROWN),
        ([(300, None), (375, 0.0), (469, 0.0), (939, 0.0)], 939, Age.YOUNG),
        ([(300, None), (375, 0.0), (469, 0.0), (938, 0.0)], 938, Age.GROWN),
        (
            [(300, None), (375, 0.0), (469, 0.0), (939, 0.0), (1174, 0.0), (1468, 0.0)],
            1468,
            Age.GROWN,
        ),
    ],
)
def test_a_library_is_grown_when_two_refits_in_a_row_have_changed_little(
    made: list[tuple[int, float | None]], n_features: int, age: Age
) -> None:
    maturity = age_of(fits(*made), made[-1][0], n_features, 0.1)

    assert maturity.age is age
    assert maturity.is_young == (age is Age.YOUNG)


def test_with_max_churn_off_any_two_refits_after_growth_make_a_library_grown() -> None:
    made = [(300, None), (375, 0.9), (469, 1.0)]

    assert age_of(fits(*made), 469, 469, None).age is Age.GROWN
    assert age_of(fits(*made[:2]), 375, 375, None).age is Age.YOUNG


def test_with_a_max_churn_of_0_a_person_is_asked_about_every_change_from_the_first_refit_on() -> (
    None
):
    maturity = age_of(fits((300, None)), 300, 2000, 0)

    said = "grown: refit.max_churn is 0; a refit that changes anything waits for your word"
    assert describe_age(maturity, 0) == said


def test_a_library_whose_fits_are_not_known_is_young() -> None:
    assert age_of([], 300, 310, 0.1).is_young


@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1)), max_size=8),
    st.integers(1, 100),
    st.floats(0, 1, exclude_min=True),
)
def test_no_library_is_grown_before_two_refits_after_growth_of_a_quarter(
    refits: list[tuple[int, float]], first: int, limit: float
) -> None:
    sizes = [first]
    for more, _ in refits:
        sizes.append(sizes[-1] + more)
    churns = [None, *(churn for _, churn in refits)]

    age = age_of(fits(*zip(sizes, churns, strict=True)), sizes[-1], sizes[-1], limit).age

    has_grown_enough = sizes[-1] >= 1.25**2 * first
    has_had_calm = sum(churn < limit for _, churn in refits) >= 2
    assert age is Age.YOUNG or (has_grown_enough and has_had_calm)


@pytest.mark.parametrize(
    ("made", "n_features", "text"),
    [
        (
            [(500, None)],
            1_800,
            "young: its clusters were made of 500 of 1,800 pictures; the next refit that comes by "
            "itself begins from nothing and is not asked about",
        ),
        (
            [(500, None)],
            500,
            "young: no two refits in a row have changed less than 10 % of it yet; the next refit "
            "that comes by itself begins from nothing and is not asked about",
        ),
        (
            [(500, None), (700, 0.05)],
            700,
            "young: only one refit so far has changed less than 10 % of it, and two in a row are "
            "needed; the next refit that comes by itself begins from nothing and is not asked "
            "about",
        ),
        (
            [(500, None), (700, 0.05), (900, 0.02)],
            900,
            "grown: two refits in a row have changed less than 10 % of it; a refit that changes "
            "more than 10 % waits for your word",
        ),
    ],
)
def test_a_sentence_says_how_old_a_library_is_why_and_what_comes_of_it(
    made: list[tuple[int, float | None]], n_features: int, text: str
) -> None:
    maturity = age_of(fits(*made), made[-1][0], n_features, 0.1)

    assert describe_age(maturity, 0.1) == text


def test_with_max_churn_off_a_grown_library_is_not_said_to_ask() -> None:
    maturity = age_of(fits((300, None), (375, 0.0), (469, 0.0)), 469, 469, None)

    said = describe_age(maturity, None)

    assert said.startswith("grown: ")
    assert said.endswith("; a refit begins from the clusters in force")


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
