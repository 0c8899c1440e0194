"""`--config FILE.toml`: options of a command from a file, under the names of its flags.

Flags on the command line win over the file. Paths in the file start from its folder, so that it can
travel with its data; the name of a shipped model stays a name.
"""

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from c2gm.runtime.errors import OptionError
from c2gm.runtime.shipped import shipped_bundles

CONFIG_LIMIT_BYTES = 1 << 20


def use_config(context: typer.Context, path: Path | None) -> Path | None:
    """Callback of an eager option: what the file says becomes the default of the other options.

    Raises OptionError for a file that is missing, is not TOML, or holds a key that is no flag or a
    value that no flag takes.
    """
    if path is None:
        return None
    options: dict[str, Any] = {}  # by flag; one that acts at once (--version) has no place here
    for option in context.command.params:
        if option.param_type_name == "option" and not getattr(option, "is_eager", False):
            options[max(option.opts, key=len).removeprefix("--")] = option
    for at_once in ("install-completion", "show-completion", "help"):
        options.pop(at_once, None)
    hints = get_type_hints(context.command.callback)
    found: dict[str, Any] = {}
    for key, value in _document(path).items():
        flag = key.replace("_", "-")
        if flag not in options:
            near = get_close_matches(flag, options, 1, 0.0)
            raise OptionError(f"{path}: there is no option {key!r}; the nearest is {near[0]!r}")
        name = options[flag].name
        if name in found:
            raise OptionError(f"{path}: {flag!r} is given twice, with - and with _; keep one")
        if options[flag].is_flag:
            found[name] = _switch(path, key, value)
        else:
            text = _text(path, key, value)
            is_path = Path in (hints[name], *get_args(hints[name]))
            is_name = name == "model" and text in shipped_bundles()
            found[name] = str(path.parent / text) if is_path and not is_name else text
    context.default_map = {**(context.default_map or {}), **found}
    return path


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


def _switch(path: Path, key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise OptionError(f"{path}: {key} is {value!r:.60}, expected true or false")
    return value


def _text(path: Path, key: str, value: Any) -> str:
    """A value as it would stand on the command line: lists with commas."""
    parts = value if isinstance(value, list) else [value]
    single = isinstance(value, str) and value.isprintable()
    if not single and not (parts and all(type(part) in (int, float) for part in parts)):
        raise OptionError(f"{path}: {key} is {value!r:.60}, expected text in quotes, or a number")
    return ",".join(map(str, parts))
