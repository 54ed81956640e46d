"""A batch is closed when it is full, when its oldest waited enough, or when none can join."""

from hypothesis import given
from hypothesis import strategies as st

from imgsortd.pipeline.flow import batch_size


def test_a_full_batch_goes_at_once_and_leaves_the_rest() -> None:
    assert batch_size(40, 0.0, more_coming=True, max_images=16, max_wait_s=0.1) == 16


def test_a_lone_file_waits_for_others_only_as_long_as_others_can_come() -> None:
    assert batch_size(1, 0.05, more_coming=True, max_images=16, max_wait_s=0.1) == 0
    assert batch_size(1, 0.05, more_coming=False, max_images=16, max_wait_s=0.1) == 1
    assert batch_size(1, 0.1, more_coming=True, max_images=16, max_wait_s=0.1) == 1


@given(st.integers(0, 50), st.floats(0, 1), st.booleans())
def test_a_batch_is_never_larger_than_allowed_or_than_what_waits(
    waiting: int, oldest_wait_s: float, more_coming: bool
) -> None:
    size = batch_size(waiting, oldest_wait_s, more_coming, 16, 0.1)

    assert 0 <= size <= min(waiting, 16)
    if waiting and oldest_wait_s >= 0.1:
        assert size > 0
