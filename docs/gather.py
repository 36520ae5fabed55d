"""Gather what the site shows in one folder, laid out as the repository is, so that links hold.

    python docs/gather.py build/pages

Examples become notebooks that are run, and pages of what they print and draw.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SHOWN = (".md", ".png", ".csv", ".toml")
KERNEL = '{"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}'
PICTURE = re.compile(r"""["'](\w+\.png)["']""")


def gather(pages: Path) -> None:
    shutil.rmtree(pages, ignore_errors=True)
    pages.mkdir(parents=True)
    shutil.copy(ROOT / "README.md", pages)
    for folder in ("docs", "benchmarks/results", "recipes", "src/llamacast/weights"):
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in SHOWN:
                target = pages / file.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
    shutil.copytree(ROOT / "examples", pages / "examples", ignore=shutil.ignore_patterns("__*"))
    for example in sorted((pages / "examples").glob("*.py")):
        make_page(example)


def make_page(example: Path) -> None:
    """A notebook beside an example, and a page of it."""
    # A notebook has no file of its own to find the data beside.
    text = example.read_text().replace("Path(__file__).parent", "Path.cwd()")
    title, _, code = text.partition("\n\n")
    pictures = [f"![]({name})" for name in dict.fromkeys(PICTURE.findall(code))]
    script = f"# %% [markdown]\n# # {title.strip(chr(34))}\n\n# %%\n{code}"
    example.write_text(script)
    notebook = example.with_suffix(".ipynb")
    metadata = ("--update-metadata", KERNEL)
    run("jupytext", "--quiet", "--to", "ipynb", *metadata, example.name, folder=example.parent)
    for arguments in (("--execute", "--inplace"), ("--to", "markdown")):
        given = ("nbconvert", "--log-level", "ERROR", *arguments, notebook.name)
        run("jupyter", *given, folder=example.parent)
    page = example.with_suffix(".md")
    page.write_text(
        page.read_text() + "\n" + "\n\n".join(pictures) + f"\n\n[Notebook]({notebook.name})\n"
    )


def run(program: str, *arguments: str, folder: Path) -> None:
    subprocess.run([Path(sys.executable).with_name(program), *arguments], cwd=folder, check=True)


if __name__ == "__main__":
    gather(Path(sys.argv[1]))
