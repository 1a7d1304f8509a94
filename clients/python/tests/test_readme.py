"""The code of the README works, and its first lines are three."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest

from conftest import PATIENCE, Server

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_it_begins_with_three_lines() -> None:
    assert len(BLOCKS) == 5
    assert len(BLOCKS[0].splitlines()) == 3


@pytest.mark.parametrize("number", range(5))
def test_its_code_works(new_server: Callable[..., Server], number: int) -> None:
    code = BLOCKS[number].replace("http://127.0.0.1:7311", new_server().url)
    if "fastapi" in code and importlib.util.find_spec("fastapi") is None:
        pytest.skip("FastAPI is not installed")
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 2, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "has it" not in done.stdout
