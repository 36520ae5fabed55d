"""Assistants' tools, asked by a real client of the protocol."""

from __future__ import annotations

import asyncio
import base64
import os
import sys

import numpy as np
import pandas as pd
import pytest
from mcp import Client, StdioServerParameters

import llamacast
from llamacast.interfaces.mcp import make_server


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("tables")
    days = pd.date_range("2026-01-01", periods=120)
    rng = np.random.default_rng(0)
    sold = 50 + 10 * (days.dayofweek >= 5) + rng.normal(0, 2, 120)
    sold[90] = 200
    pd.DataFrame({"day": days, "sold": sold.round(2)}).to_csv(found / "sales.csv", index=False)
    (found.parent / "secret.csv").write_text("day,sold\n2026-01-01,1\n2026-01-02,2\n")
    (found / ".git").mkdir()
    for name in (".env", ".hidden.csv", ".git/x.csv", "notes.md"):
        (found / name).write_text("SECRET=hunter2\nB=2\n")
    (found / "latin.csv").write_bytes("Tag,Verkäufe\n2026-01-01,1\n".encode("latin-1"))
    (found / "empty.csv").write_text("")
    return found


@pytest.fixture(scope="module")
def server(folder):
    return make_server({"cria": llamacast.load("cria", device="cpu")}, folder)


def ask(server, tool, **arguments):
    async def asked():
        async with Client(server) as client:
            return await client.call_tool(tool, arguments)

    return asyncio.run(asked())


def words(answer):
    assert not answer.is_error, answer.content
    return "\n".join(one.text for one in answer.content if one.type == "text")


def test_what_will_my_sales_be_and_how_sure_are_you(server):
    answer = ask(server, "forecast", table="sales.csv", horizon=7)
    told = words(answer)
    assert "2026-05-01" in told
    assert "80 % interval" in told
    assert "sum of all 7 steps" in told
    assert "relative to repeating the last season" in told
    assert "Caveats" in told
    (picture,) = [one for one in answer.content if one.type == "image"]
    assert base64.b64decode(picture.data).startswith(b"\x89PNG")


def test_inline_tables_short_histories_and_poor_backtests_have_caveats(server):
    rng = np.random.default_rng(1)
    rows = "\n".join(f"2026-01-{day:02d},{rng.normal():.3f}" for day in range(1, 10))
    told = words(ask(server, "forecast", table=f"day,sold\n{rows}", horizon=2))
    assert "a history of 9 steps is short" in told


def test_odd_values_are_found_and_explained(server):
    told = words(ask(server, "detect", table="sales.csv"))
    assert "values are odd" in told
    assert "2026-04-01" in told
    told = words(ask(server, "explain", table="sales.csv"))
    assert "what mattered most" in told


def test_models_are_compared(server):
    told = words(ask(server, "backtest", table="sales.csv", horizon=7))
    assert "cria: CRPS" in told
    assert "seasonal-naive: CRPS 1.00" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": "nothing.csv", "horizon": 3}, "no file 'nothing.csv'"),
        ({"table": "../secret.csv", "horizon": 3}, "no file '../secret.csv'"),
        ({"table": "/etc/passwd", "horizon": 3}, "no file '/etc/passwd'"),
        ({"table": ".env", "horizon": 3}, "'.env' is not read"),
        ({"table": ".hidden.csv", "horizon": 3}, "'.hidden.csv' is not read"),
        ({"table": ".git/x.csv", "horizon": 3}, "'.git/x.csv' is not read"),
        ({"table": "notes.md", "horizon": 3}, "'notes.md' is not read"),
        ({"table": "latin.csv", "horizon": 3}, "latin.csv is not in UTF-8"),
        ({"table": "empty.csv", "horizon": 3}, "empty.csv is empty"),
        ({"table": "a\0b.csv", "horizon": 3}, "no file"),
        ({"table": "x" * 5000, "horizon": 3}, "no file"),
        ({"table": "sales.csv", "horizon": 3, "target_column": "price"}, "price"),
        ({"table": "sales.csv", "horizon": 3, "model": "gpt"}, "no model 'gpt'"),
        ({"table": "sales.csv", "horizon": 10**6}, "horizon"),
    ],
)
def test_what_cannot_be_is_told_to_the_assistant(server, arguments, message):
    answer = ask(server, "forecast", **arguments)
    assert answer.is_error
    (told,) = [one.text for one in answer.content]
    assert message in told
    assert "hunter2" not in told


def test_the_command_serves_a_client_over_its_standard_input(folder):
    command = StdioServerParameters(
        command=sys.executable,
        args=["-m", "llamacast", "mcp", "--folder", str(folder), "--model", "cria"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    async def asked():
        async with Client(command) as client:
            tools = await client.list_tools()
            answer = await client.call_tool("forecast", {"table": "sales.csv", "horizon": 3})
            return {one.name for one in tools.tools}, answer

    names, answer = asyncio.run(asked())
    assert names == {"forecast", "backtest", "detect", "explain"}
    assert "2026-05-03" in words(answer)
