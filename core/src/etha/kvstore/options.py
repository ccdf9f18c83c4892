"""Check the options that a store is opened with against those that its backend has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from etha.kvstore.errors import ConfigError
from etha.kvstore.hookspecs import BackendSpec, Option

__all__ = ["check_options", "unknown_name"]

_TRUTH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def check_options(spec: BackendSpec, options: Mapping[str, object]) -> dict[str, object]:
    """Check options, and turn text into the type of its option, since a URL can only say text.

    Parameters
    ----------
    spec : BackendSpec
        The backend.
    options : mapping
        Names and values. `None` stands for the default of the store class, and is left out.

    Returns
    -------
    dict
        The options, converted.

    Raises
    ------
    ConfigError
        If the backend has no such option, or needs one that is not given, or a value is not of its option's type. A
        secret is never shown.

    Examples
    --------
    >>> spec = BackendSpec("shelf", "shelf:Store", "a file", contract=1, options=(Option("timeout", float),))
    >>> check_options(spec, {"timeout": "5"})
    {'timeout': 5.0}
    """
    known = {option.name: option for option in spec.options}
    for name in options:
        if name not in known:
            raise unknown_name(name, known, f"backend {spec.name!r} has no option")
    for option in spec.options:
        if option.required and options.get(option.name) in (None, ""):
            raise ConfigError(f"backend {spec.name!r} needs the option {option.name!r}: {option.help}")
    return {name: _checked(value, known[name], spec) for name, value in options.items() if value is not None}


def unknown_name(name: str, known: Iterable[str], said: str) -> ConfigError:
    """Make the error for a name that is not one of the known, with the nearest."""
    import difflib  # here, since hardly any program gets to it

    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    advice = f"did you mean {near[0]!r}?" if near else "it knows " + (", ".join(sorted(known)) or "none")
    return ConfigError(f"{said} {name!r}; {advice}")


def _checked(value: object, option: Option, spec: BackendSpec) -> object:
    if option.type is object:
        return value
    converted = _parsed(value, option.type) if isinstance(value, str) else value
    if option.type is float and isinstance(converted, int) and not isinstance(converted, bool):
        with suppress(OverflowError):
            converted = float(converted)
    if option.type is list and isinstance(converted, tuple):
        converted = list(converted)
    fits = isinstance(converted, option.type) and isinstance(converted, bool) == (option.type is bool)
    if isinstance(converted, list):
        fits = fits and all(isinstance(item, str) for item in converted)
    if not fits:
        shown = "what was given" if option.secret else repr(value)
        wanted = "a list of str" if option.type is list else option.type.__name__
        raise ConfigError(f"option {option.name!r} of backend {spec.name!r} is of type {wanted}, and {shown} is not")
    return converted


def _parsed(text: str, wanted: type) -> object:
    """Read a text as the type; a text that says no such thing comes back as it is."""
    if wanted is list:
        return text.split(",")
    if wanted is bool:
        return _TRUTH.get(text.lower(), text)
    if wanted in (int, float):
        with suppress(ValueError):
            return wanted(text)
    return text
