"""Recipes run as they are shown, and the site's pages are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_recipes_run_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text(), flags=re.S
    )
    assert len(blocks) > 8
    known: dict[str, object] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"recipe {number + 1}", "exec"), known)
    assert known["company"].shape == (100,)
    assert bool(known["found"].anomaly.iloc[300])


def test_every_page_of_the_site_is_there_and_every_document_on_it():
    site = (ROOT / "mkdocs.yml").read_text()
    told = set(re.findall(r"(?:docs|examples)/\w+\.md", site))
    documents = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    examples = {f"examples/{path.stem}.md" for path in (ROOT / "examples").glob("*.py")}
    assert told == documents | examples
