"""Made-up training series of many families, on true calendars."""

from llamacast.data.synthetic.mixture import (
    FAMILIES,
    OF_REAL_SERIES,
    SyntheticSeries,
    synthesise,
)

__all__ = ["FAMILIES", "OF_REAL_SERIES", "SyntheticSeries", "synthesise"]
