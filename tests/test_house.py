"""The house rules, held by the tools that know them: one failing tool fails one test."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

TOOLS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
    "import-linter": ["lint-imports", "--no-cache"],
}


@pytest.mark.parametrize("tool", TOOLS)
def test_tool_finds_nothing(tool: str) -> None:
    command = TOOLS[tool]
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_place_of_this_machine_is_named() -> None:
    """No committed file, binary ones included, names an absolute home or work folder."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    places = [f"/{name}/".encode() for name in ("work", "root", "home")]
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_symlink():
            continue
        found = [place for place in places if place in path.read_bytes()]
        assert not found, f"{name} names {found}"
