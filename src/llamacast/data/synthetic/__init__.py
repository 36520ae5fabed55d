"""Made-up training series of many families, on true calendars."""

from llamacast.data.synthetic.mixture import FAMILIES, SyntheticSeries, synthesise

__all__ = ["FAMILIES", "SyntheticSeries", "synthesise"]
