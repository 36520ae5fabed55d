"""What a measurement was made on, in words, and where its report goes."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import sys
from pathlib import Path

import torch


def told() -> str:
    return (
        f"{datetime.date.today()} on {platform.processor() or platform.machine()}, {os.cpu_count()} "
        f"shared cores, Python {platform.python_version()}, torch {torch.__version__}, by "
        f"`python {shlex.join(sys.argv)}`"
    )


def publish(lines: list[str], path: Path) -> None:
    """Write a report, and what it was measured on; show it, too."""
    report = "\n".join([*lines, "", f"Measured {told()}.", ""])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report)
    print(report)
