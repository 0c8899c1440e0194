"""Reports as text: JSON whose innermost lists and mappings take one line each."""

import json
from collections.abc import Mapping
from typing import Any


def report_text(report: Mapping[str, Any]) -> str:
    """JSON with a newline at its end, indented by one space a depth."""
    return _text(report, "\n") + "\n"


def _text(value: Any, line: str) -> str:
    if isinstance(value, Mapping):
        rows = [f"{json.dumps(name)}: {_text(part, line + ' ')}" for name, part in value.items()]
        brackets, parts = "{}", list(value.values())
    elif isinstance(value, list | tuple):
        rows = [_text(part, line + " ") for part in value]
        brackets, parts = "[]", list(value)
    else:
        return json.dumps(value)
    if any(isinstance(part, Mapping | list | tuple) for part in parts):
        return f"{brackets[0]}{line} {f',{line} '.join(rows)}{line}{brackets[1]}"
    return f"{brackets[0]}{', '.join(rows)}{brackets[1]}"
