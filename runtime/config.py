"""`--config FILE.toml`: options of a command from a file, under the names of its flags.

Flags on the command line win over the file. Paths in the file are relative to its folder, so that
it can travel with its data; names of shipped models stay names.
"""

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer

from c2gm.runtime.errors import OptionError
from c2gm.runtime.shipped import shipped_bundles

CONFIG_LIMIT_BYTES = 1 << 20


def use_config(context: typer.Context, path: Path | None) -> Path | None:
    """Callback of an eager option: what the file says becomes the default of the other options.

    Raises OptionError for a file that is missing, is not TOML, or holds a key that is no flag or a
    value that the flag does not take.
    """
    if path is None:
        return None
    options = {  # by flag; a flag that acts at once (--version) has no place in a file
        _flag(option): option
        for option in context.command.params
        if option.param_type_name == "option" and not option.is_eager
    }
    found: dict[str, Any] = {}
    for key, value in _document(path).items():
        flag = key.replace("_", "-")
        if flag not in options:
            near = get_close_matches(flag, options, 1, 0.0)
            raise OptionError(f"{path}: there is no option {key!r}; the nearest is {near[0]!r}")
        option = options[flag]
        if option.name in found:
            raise OptionError(f"{path}: {flag!r} is given twice, with - and with _; keep one")
        found[option.name] = _value(path, key, value, option)
    context.default_map = {**(context.default_map or {}), **found}
    return path


def _flag(option: Any) -> str:
    return str(max(option.opts, key=len)).removeprefix("--")


def _document(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise OptionError(f"--config is {path}, which is not a file; give a TOML file with options")
    try:
        if path.stat().st_size > CONFIG_LIMIT_BYTES:
            raise OptionError(f"{path} is over {CONFIG_LIMIT_BYTES >> 20} MB; give only options")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"{path} cannot be read ({error.strerror}); give a TOML file") from None
    except (ValueError, RecursionError) as error:
        raise OptionError(
            f'{path} is not TOML ({error}); write options as in: levels = "10-16"'
        ) from None


def _value(path: Path, key: str, value: Any, option: Any) -> Any:
    """A value of the file as the flag takes it. Raises OptionError."""
    kind = option.type.name
    if option.is_flag:
        if not isinstance(value, bool):
            raise OptionError(f"{path}: {key} is {value!r}, expected true or false")
        return value
    if kind in ("integer", "int"):
        if type(value) is not int:
            raise OptionError(f"{path}: {key} is {value!r}, expected a whole number")
        return value
    if isinstance(value, list) and all(type(part) in (int, float) for part in value):
        value = ",".join(map(str, value))  # levels = [10, 12], bounds = [8.5, 47.3, 8.6, 47.4]
    elif type(value) in (int, float):
        value = str(value)
    if not isinstance(value, str) or not value.isprintable():
        raise OptionError(f'{path}: {key} is {value!r:.60}, expected text as in {key} = "..."')
    if kind in ("path", "file", "directory") and not (
        key == "model" and value in shipped_bundles()
    ):
        return str(path.parent / value)
    return value
