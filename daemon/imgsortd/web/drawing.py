"""Small plots as SVG, without a style attribute: the policy of the pages allows none."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from imgsortd.page_parts import number_of

_HEIGHT = 30


def spark(days: Sequence[int]) -> Markup:
    """Draw the pictures that came on each day as bars, the oldest first."""
    most = max([*days, 1])
    bars = "".join(
        f"M{day + 0.15:g} 8v-{max(0.6, 7.5 * count / most):.1f}h.7V8z"
        for day, count in enumerate(days)
        if count
    )
    return Markup(
        '<svg class="spark" viewBox="0 0 {0} 8" preserveAspectRatio="none" aria-hidden="true">'
        '<line x1="0" y1="8" x2="{0}" y2="8"/><path d="{1}"/></svg>'
    ).format(len(days), bars)


def plot(rate: Sequence[int]) -> Markup:
    """Draw the pictures of each minute as bars, and say it in words to who cannot see them."""
    most, busy = max([*rate, 1]), sum(1 for count in rate if count)
    heights = ((minute, (_HEIGHT - 1) * count / most) for minute, count in enumerate(rate))
    bars = Markup("").join(
        Markup('<rect x="{:g}" y="{:.2f}" width=".8" height="{:.2f}"/>').format(
            minute + 0.1, _HEIGHT - height, height
        )
        for minute, height in heights
        if height
    )
    words = (
        f"{number_of(sum(rate), 'picture')} sorted in {busy} of the last {len(rate)} minutes, "
        f"at most {max(rate, default=0):,} in one"
    )
    return Markup(
        '<svg class="plot" viewBox="0 0 {0} {1}" preserveAspectRatio="none" role="img" '
        'aria-label="{2}"><line x1="0" y1="{1}" x2="{0}" y2="{1}"/>{3}</svg>'
    ).format(len(rate), _HEIGHT, words, bars)
