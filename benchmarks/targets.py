"""What was promised, beside which the figures are shown."""

from __future__ import annotations

from enum import StrEnum

from benchmarks.figures import Goal, Target
from benchmarks.subject import Subject
from imgsortd.int8 import MIN_AGREEMENT


class Kind(StrEnum):
    """The two kinds of pictures that the whole job is measured on."""

    PHOTOS = "500-px photographs"
    CAMERAS = "camera JPEGs"


NMI_TARGET = Target(Goal.AT_LEAST, 0.92)
LARGEST_TARGET = Target(Goal.AT_MOST, 0.20)
RSS_TARGET = Target(Goal.AT_MOST, 900.0)
LATENCY_TARGET = Target(Goal.AT_MOST, 0.5)
AGREEMENT_TARGET = Target(Goal.AT_LEAST, MIN_AGREEMENT)
BUSY_TARGET = Target(Goal.AT_LEAST, 0.95)
MODEL_SPEED_TARGET = Target(Goal.AT_LEAST, 0.85)
REFIT_PEAK_TARGET = Target(Goal.AT_MOST, 2000.0)
STATUS_TARGET = Target(Goal.AT_MOST, 0.3)
FIRST_PAINT_TARGET = Target(Goal.AT_MOST, 0.3)
PAGE_WEIGHT_TARGET = Target(Goal.AT_MOST, 150.0)
# The promises of refit and status are given for so many stored features.
PROMISED_FEATURES = 1_000_000

_VGG16 = {
    ("torch", Kind.PHOTOS): 3.3,
    ("torch", Kind.CAMERAS): 4.2,
    ("openvino int8", Kind.PHOTOS): 6.0,
    ("openvino int8", Kind.CAMERAS): 7.5,
}
_LITE = 8.0


def whole_sort_target(subject: Subject, kind: Kind) -> Target | None:
    """Return how many times as fast as the article's script the whole ``sort`` should be.

    None where nothing was promised: VGG16 on OpenVINO was promised for int8 only.
    """
    if subject.backbone != "vgg16":
        return Target(Goal.AT_LEAST, _LITE)
    way = f"{subject.engine} int8" if subject.is_int8 else subject.engine
    times = _VGG16.get((way, kind))
    return None if times is None else Target(Goal.AT_LEAST, times)
