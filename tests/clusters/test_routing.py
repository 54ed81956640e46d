"""To its nearest center, under a name nobody has."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from imgsortd.clusters.routing import nearest
from imgsortd.names import NAME_MAX_BYTES, base_name, cluster_folder, free_name, name_choices
from imgsortd.records import Vectors

VALUES = st.floats(-4, 4, width=32)
FILE_NAMES = st.one_of(
    st.binary(min_size=1, max_size=NAME_MAX_BYTES),
    st.builds(
        lambda stem, suffix: (stem * 255)[: 255 - len(suffix)] + suffix,
        st.binary(min_size=1, max_size=4),
        st.sampled_from([b"", b".jpg", b"-1.jpg", b".tar.gz", b"." + b"x" * 40]),
    ),
).filter(lambda name: b"/" not in name and b"\0" not in name)


@given(
    st.integers(1, 8).flatmap(
        lambda d: st.tuples(
            arrays(np.float32, st.tuples(st.integers(0, 20), st.just(d)), elements=VALUES),
            arrays(np.float32, st.tuples(st.integers(1, 6), st.just(d)), elements=VALUES),
        )
    )
)
def test_nearest_is_what_brute_force_finds(both: tuple[Vectors, Vectors]) -> None:
    features, centers = both
    exact = np.linalg.norm(
        features[:, None].astype(np.float64) - centers[None].astype(np.float64), axis=2
    )

    labels, distances = nearest(features, centers)

    assert labels.shape == distances.shape == (len(features),)
    rows = np.arange(len(features))
    np.testing.assert_allclose(exact[rows, labels], exact.min(axis=1), atol=5e-3)
    np.testing.assert_allclose(distances, exact[rows, labels], atol=1e-5)


def test_a_batch_is_labelled_as_the_same_features_among_many_are() -> None:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(1000, 512)).astype(np.float32)
    features = rng.normal(size=(100, 512)).astype(np.float32)
    labels, distances = nearest(features, centers)

    for size in (1, 16, 32):
        few, near = nearest(features[:size], centers)
        np.testing.assert_array_equal(few, labels[:size])
        np.testing.assert_allclose(near, distances[:size], rtol=1e-5)


def test_of_two_equally_near_centers_the_lower_label_is_taken() -> None:
    labels, _ = nearest(np.zeros((1, 2), np.float32), np.array([[1, 0], [0, 1]], np.float32))

    assert labels.tolist() == [0]


@given(FILE_NAMES)
def test_names_to_choose_from_differ_fit_255_bytes_and_keep_the_suffix(name: bytes) -> None:
    choices = list(islice(name_choices(name), 30))

    assert choices[0] == name
    assert len(set(choices)) == len(choices)
    assert max(map(len, choices)) <= NAME_MAX_BYTES
    stem, dot, suffix = name.rpartition(b".")
    if stem and dot and len(suffix) <= 16:
        assert all(choice.endswith(dot + suffix) for choice in choices)


def test_the_second_photo_jpg_becomes_photo_1_jpg() -> None:
    taken = {b"cluster_7/photo.jpg"}

    assert free_name(cluster_folder(7), b"photo.jpg", taken.__contains__) == (
        b"cluster_7/photo-1.jpg"
    )


@pytest.mark.parametrize("name", [b"a.jpg", b"deep/down/a.jpg"])
def test_the_base_name_is_the_last_part(name: bytes) -> None:
    assert base_name(name) == b"a.jpg"
