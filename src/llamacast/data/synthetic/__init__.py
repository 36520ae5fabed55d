"""Made-up training series of many families, on true calendars."""

from llamacast.data.synthetic.mixture import (
    FAMILIES,
    MADE_UP,
    SyntheticSeries,
    synthesise,
)

__all__ = ["FAMILIES", "MADE_UP", "SyntheticSeries", "synthesise"]
