"""The page in a real browser."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest

from tests.interfaces.serving import serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    with serving(folder) as (_, found):
        yield found


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def page(browser, address):
    context = browser.new_context(accept_downloads=True, viewport={"width": 1100, "height": 1400})
    found = context.new_page()
    found.wrong = []
    found.on(
        "console", lambda told: found.wrong.append(told.text) if told.type == "error" else None
    )
    found.on("pageerror", lambda error: found.wrong.append(str(error)))
    found.elsewhere = []
    found.on(
        "request",
        lambda one: (
            None
            if one.url.startswith((address, "data:", "blob:"))
            else found.elsewhere.append(one.url)
        ),
    )
    found.goto(address)
    found.wait_for_function("document.querySelectorAll('#model option').length > 1")
    yield found
    assert not found.elsewhere
    context.close()


def table(path):
    days = pd.date_range("2026-01-01", periods=90)
    frames = [
        pd.DataFrame({"shop": shop, "day": days, "sold": 20 + size + 5 * days.dayofweek})
        for shop, size in (("north", 0), ("south", 30))
    ]
    pd.concat(frames).to_csv(path, index=False)
    return path


def drop(page, path):
    """As a hand would: a file over the field."""
    handle = page.evaluate_handle(
        """([text, name]) => { const held = new DataTransfer();
            held.items.add(new File([text], name, { type: "text/csv" })); return held; }""",
        [path.read_text(), path.name],
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": handle})


def test_a_dropped_file_becomes_a_chart_with_numbers_and_a_download(page, tmp_path):
    drop(page, table(tmp_path / "sales.csv"))
    page.wait_for_function("document.querySelector('#message').textContent.includes('is read')")
    page.fill("#horizon", "14")
    page.select_option("#other", "lag-llama")
    page.click("#go")
    page.wait_for_selector("#chart path.median.second", state="attached", timeout=120_000)
    assert page.locator("#chart path.fan").count() == 6
    assert "values in sold" in page.inner_text("#message")
    assert page.locator("#series option").all_inner_texts() == ["north", "south"]
    rows = page.locator("#scores tbody tr").all_inner_texts()
    assert [one.split()[0] for one in rows] == ["cria", "lag-llama", "seasonal-naive"]
    page.hover("#chart", position={"x": 900, "y": 150})
    assert "cria: median" in page.inner_text("#hover")
    with page.expect_download() as held:
        page.click("#download")
    saved = pd.read_csv(held.value.path())
    assert len(saved) == 2 * 14 * 2
    assert set(saved.model) == {"cria", "lag-llama"}
    assert not page.wrong


def test_it_is_used_by_keyboard_and_named_for_readers(page):
    page.focus("#example")
    page.keyboard.press("Enter")
    page.focus("#horizon")
    page.keyboard.press("Enter")
    page.wait_for_selector("#chart path.median", state="attached", timeout=120_000)
    page.focus("#chart")
    page.keyboard.press("ArrowRight")
    first = page.inner_text("#hover")
    page.keyboard.press("ArrowRight")
    assert "95 % between" in first
    assert page.inner_text("#hover") != first
    named = page.evaluate(
        """() => [...document.querySelectorAll('input, select, textarea, button')].filter((one) =>
            !(one.labels && one.labels.length) && !one.getAttribute('aria-label') &&
            !one.textContent.trim()).map((one) => one.id)"""
    )
    assert named == []
    assert page.get_attribute("#chart", "aria-labelledby") == "caption"


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "There is no table yet"), ("just,words\na,b\n", "column"), ("day,sold\n", "no rows")],
)
def test_a_bad_table_gets_a_message(page, text, message):
    page.fill("#csv", text)
    page.click("#go")
    page.wait_for_function("document.querySelector('#message').classList.contains('bad')")
    assert message in page.inner_text("#message")
    assert page.is_hidden("#result")


def test_a_constant_too_large_for_round_steps_is_drawn(page):
    rows = [f"2026-01-{day:02},6000000000000000" for day in range(1, 31)]
    page.fill("#csv", "day,sold\n" + "\n".join(rows))
    page.fill("#horizon", "3")
    page.click("#go")
    page.wait_for_selector("#chart path.median", state="attached", timeout=60_000)
    assert 2 <= page.locator("#chart line.grid").count() <= 11
    for low, high in ((6e15 - 1, 6e15 + 1), (1e17, 1e17 + 64), (0, 1), (-3.1e-9, 2e-9)):
        ticks = page.evaluate(f"roundValues({low!r}, {high!r})")
        assert 2 <= len(set(ticks)) == len(ticks) <= 11
        assert all(low <= tick <= high for tick in ticks)


def test_on_a_phone_nothing_is_smaller_and_a_finger_points(browser, address):
    context = browser.new_context(viewport={"width": 375, "height": 800}, has_touch=True)
    page = context.new_page()
    page.goto(address)
    page.wait_for_function("document.querySelectorAll('#model option').length > 1")
    page.click("#example")
    page.click("#go")
    page.wait_for_selector("#chart path.median", state="attached", timeout=60_000)
    chart = page.locator("#chart").bounding_box()
    assert float(page.get_attribute("#chart", "viewBox").split()[2]) == pytest.approx(
        chart["width"]
    )
    page.locator("#chart").tap(position={"x": 0.9 * chart["width"], "y": 100})
    assert "cria: median" in page.inner_text("#hover")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.set_viewport_size({"width": 700, "height": 800})
    page.wait_for_function("document.querySelector('#chart').viewBox.baseVal.width > 500")
    context.close()


def test_it_is_light_and_dark(browser, address):
    grounds = []
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        one = context.new_page()
        one.goto(address)
        grounds.append(one.evaluate("getComputedStyle(document.body).backgroundColor"))
        context.close()
    assert grounds[0] != grounds[1]
