"""What the README and the walkthrough show runs as shown."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_examples_run_from_any_folder(tmp_path, example):
    assert run(tmp_path, str(ROOT / "examples" / example))


def test_the_walkthrough_shows_the_shapes_that_are_printed(tmp_path):
    printed = run(tmp_path, str(ROOT / "examples" / "02_follow_the_data.py"))
    shapes = re.findall(r"^ +(\w+) +(\([\d, ]+\))$", printed, flags=re.M)
    told = (ROOT / "docs" / "walkthrough.md").read_text()
    assert len(shapes) > 15
    for name, shape in shapes:
        assert f"{name} {shape}" in told, (name, shape)


def test_the_readmes_python_runs(tmp_path):
    readme = (ROOT / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", readme, flags=re.S)[1]
    (tmp_path / "sales.csv").write_text(
        "shop,day,sold\n" + "".join(f"a,2024-01-{day:02d},{day}\n" for day in range(1, 29))
    )
    (tmp_path / "readme.py").write_text(code)
    run(tmp_path, "readme.py")
    assert (tmp_path / "forecast.png").exists()


def test_the_readmes_tree_is_the_tree():
    readme = (ROOT / "README.md").read_text()
    told = set(re.findall(r"^[│ ]*[├└]── (\w+\.py)", readme, flags=re.M))
    assert "── synthetic/" in readme  # a family or two in each file, told as one
    files = list((ROOT / "src" / "llamacast").rglob("*.py"))
    there = {path.name for path in files if path.parent.name != "synthetic"} - {"__init__.py"}
    assert told - {"__init__.py"} == there
