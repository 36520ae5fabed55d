"""`python -m llamacast`, for launchers such as torchrun."""

from llamacast.interfaces.cli import app

app()
