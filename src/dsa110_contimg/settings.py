"""How options come together: flags, environment, file and defaults, in that order; a wrong one is one line.

The option classes themselves are in `config`.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from dsa110_contimg.errors import ConfigError

__all__ = ["PREFIX", "Settings", "bounds"]

#: Of the environment variables of options.
PREFIX = "CONTIMG_"


class Settings(BaseSettings):
    """Base of all option classes: frozen, closed, one error line for a wrong value."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except (ValidationError, SettingsError) as error:
            raise _config_error(type(self), error, values) from None

    @classmethod
    def load(cls, file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Self:
        """Combine flags, environment, a TOML file and defaults.

        Parameters
        ----------
        file : Path, optional
            TOML file with option names as keys.
        overrides : mapping, optional
            Values of flags; None means not given.

        Returns
        -------
        Settings

        Raises
        ------
        ConfigError
            If a value or name is wrong; the message says which and what is allowed.
        """
        flags = {k: v for k, v in (overrides or {}).items() if v is not None}
        from_file: dict[str, Any] = {}
        if file is not None:
            given = {variable.upper() for variable in os.environ}
            from_file = {k: v for k, v in _read_toml(cls, file).items() if PREFIX + k.upper() not in given}
        try:
            return cls(**(from_file | flags))
        except ConfigError as error:
            if error.where in from_file and error.where not in flags:
                raise ConfigError(error.what, f"{file} ({error.where})", error.remedy) from None
            raise

    @classmethod
    def sources(cls, file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> dict[str, str]:
        """Say where each option's value comes from, for the same arguments as :meth:`load`.

        Returns
        -------
        dict of str to str
            For each option ``flag``, its variable's name, the file's name or ``default``.
        """
        flags = {k for k, v in (overrides or {}).items() if v is not None}
        variables = {variable.upper(): variable for variable in os.environ}
        in_file = set(_read_toml(cls, file)) if file is not None else set()

        def source(name: str) -> str:
            if name in flags:
                return "flag"
            if PREFIX + name.upper() in variables:
                return variables[PREFIX + name.upper()]
            return str(file) if name in in_file else "default"

        return {name: source(name) for name in cls.model_fields}

    def with_options(self, **changes: Any) -> Self:
        """Return a copy with some options changed, validated anew."""
        return type(self)(**{**self.model_dump(), **changes})


def _read_toml(cls: type[Settings], file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", file, "check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not valid TOML ({error})", file, "mend the file") from None
    # One file serves several commands: options of a class that has these and more are none of this one's.
    others = {name for more in _subclasses(cls) for name in more.model_fields} - set(cls.model_fields)
    for key in values:
        if key not in cls.model_fields and key not in others:
            raise ConfigError(f"unknown option {key!r}", file, _suggest(cls, key))
    return {key: value for key, value in values.items() if key in cls.model_fields}


def _subclasses(cls: type[Settings]) -> Iterator[type[Settings]]:
    for one in cls.__subclasses__():
        yield one
        yield from _subclasses(one)


def _suggest(cls: type[Settings], key: str) -> str:
    close = difflib.get_close_matches(key, cls.model_fields, n=1)
    return f"did you mean {close[0]!r}?" if close else f"options: {', '.join(cls.model_fields)}"


def _config_error(
    cls: type[Settings], error: ValidationError | SettingsError, values: Mapping[str, Any]
) -> ConfigError:
    if isinstance(error, SettingsError):
        return ConfigError(" ".join(str(error).split()), "environment", "mend the variable")
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "?"
    if first["type"] == "extra_forbidden":
        return ConfigError(f"unknown option {name!r}", cls.__name__, _suggest(cls, name))
    variable = PREFIX + name.upper()
    from_environment = name not in values and variable in {v.upper() for v in os.environ}
    where = f"{variable} ({name})" if from_environment else name
    message = str(first["msg"]).removeprefix("Value error, ")
    if not first["loc"]:  # several options do not fit together: the message names them
        return ConfigError(message, "options", "change one of them")
    remedy = message[0].lower() + message[1:]
    allowed = bounds(cls, name)
    # pydantic names the bound that was broken, but none where the value is no number at all.
    if allowed and first["type"].endswith(("_parsing", "_type")):
        remedy += f"; allowed: {allowed}"
    return ConfigError(f"{first.get('input')!r} is not allowed", where, remedy)


def bounds(cls: type[Settings], name: str) -> str:
    """Name the range of a number, for example ``at least 0, below 1``; empty if there is none."""
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    info = cls.model_fields.get(name)
    found = [
        (w, getattr(m, k)) for k, w in words.items() for m in (info.metadata if info else ()) if hasattr(m, k)
    ]
    return ", ".join(f"{word} {value:g}" for word, value in found)
