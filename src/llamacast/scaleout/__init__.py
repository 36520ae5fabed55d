"""Tables larger than memory, and many machines.

    from llamacast.scaleout import FrameForecaster, forecast_dataset
    forecast_dataset("sales/", "forecasts/", FrameForecaster(horizon=28))

`on_ray` and `on_spark` do the same on engines that are there already.
"""

from llamacast.scaleout.local import forecast_dataset
from llamacast.scaleout.partition import FrameForecaster

__all__ = ["FrameForecaster", "forecast_dataset"]
