"""What a measurement was made on, in words."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import sys

import torch


def told() -> str:
    return (
        f"{datetime.date.today()} on {platform.processor() or platform.machine()}, {os.cpu_count()} "
        f"shared cores, Python {platform.python_version()}, torch {torch.__version__}, by "
        f"`python {shlex.join(sys.argv)}`"
    )
