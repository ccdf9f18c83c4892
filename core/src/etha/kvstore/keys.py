"""The key format: join, split and check ``{namespace}/{component}/{key}``.

A namespace and a component hold no ``/``, so the format is injective: two different triples never make the
same full key, and a prefix that ends in ``/`` never reaches into a neighbour's names.
"""

from __future__ import annotations

from etha.kvstore.errors import InvalidKeyError

__all__ = ["MAX_KEY_BYTES", "check_part", "join", "prefix", "split"]

MAX_KEY_BYTES = 4096
"""The longest full key, in bytes of UTF-8. Every backend can hold it; TCPStore's server stops at 8 KiB."""


def check_part(part: str, what: str) -> str:
    """Check a namespace or a component, and return it.

    Parameters
    ----------
    part : str
        The name to check.
    what : str
        ``"namespace"`` or ``"component"``, for the error.

    Returns
    -------
    str
        `part`, unchanged.

    Raises
    ------
    TypeError
        If it is not a `str`.
    InvalidKeyError
        If it is empty, holds ``/``, NUL or a lone surrogate, or is too long for any key to follow.

    Examples
    --------
    >>> check_part("job-42", "namespace")
    'job-42'
    """
    _check_text(part, what)
    if "/" in part:
        raise InvalidKeyError(f"the {what} {_shown(part)} holds '/', which separates the parts of a full key")
    if len(part.encode()) + 4 > MAX_KEY_BYTES:  # at least "x/" or "/x" and "/k" go with it
        raise InvalidKeyError(f"the {what} {_shown(part)} leaves no room for a key in {MAX_KEY_BYTES} bytes")
    return part


def prefix(namespace: str, component: str) -> bytes:
    """Make the prefix that all keys of one component share.

    Parameters
    ----------
    namespace, component : str
        The two outer parts.

    Returns
    -------
    bytes
        ``{namespace}/{component}/`` in UTF-8.

    Raises
    ------
    TypeError, InvalidKeyError
        As `check_part`.

    Examples
    --------
    >>> prefix("job-42", "trainer")
    b'job-42/trainer/'
    """
    return f"{check_part(namespace, 'namespace')}/{check_part(component, 'component')}/".encode()


def join(component_prefix: bytes, key: str, what: str = "key") -> bytes:
    """Make the full key.

    Parameters
    ----------
    component_prefix : bytes
        What `prefix` made.
    key : str
        The key within the component; it may hold ``/``.
    what : str
        ``"key"`` or ``"pattern"``, for the error.

    Returns
    -------
    bytes
        The full key in UTF-8.

    Raises
    ------
    TypeError
        If the key is not a `str`.
    InvalidKeyError
        If it is empty, holds NUL or a lone surrogate, or the full key is longer than `MAX_KEY_BYTES`.

    Examples
    --------
    >>> join(b"job-42/trainer/", "rank:0/ready")
    b'job-42/trainer/rank:0/ready'
    """
    if not isinstance(key, str):  # first of all: given the class str, CPython 3.11 to 3.13 can crash in encode()
        _check_text(key, what)
    try:
        full = component_prefix + key.encode()
    except UnicodeEncodeError:
        _check_text(key, what)
        raise
    if len(full) > MAX_KEY_BYTES:
        raise InvalidKeyError(
            f"the {what} {_shown(key)} makes a full key of {len(full)} bytes; at most {MAX_KEY_BYTES} are allowed"
        )
    if not key or 0 in full:  # the number, since looking for b"\0" takes ten times as long
        _check_text(key, what)
    return full


def split(full: bytes) -> tuple[str, str, str]:
    """Take a full key apart again.

    Parameters
    ----------
    full : bytes
        A full key.

    Returns
    -------
    tuple of str
        Namespace, component and key.

    Raises
    ------
    InvalidKeyError
        If it is not a full key.

    Examples
    --------
    >>> split(b"job-42/trainer/rank:0/ready")
    ('job-42', 'trainer', 'rank:0/ready')
    """
    try:
        namespace, component, key = full.decode().split("/", 2)
    except ValueError:  # UnicodeDecodeError included
        raise InvalidKeyError(f"{full[:80]!r} is not of the form namespace/component/key") from None
    check_part(namespace, "namespace")
    check_part(component, "component")
    _check_text(key, "key")
    return namespace, component, key


def _check_text(text: str, what: str) -> None:
    """Check what namespaces, components and keys have in common."""
    if not isinstance(text, str):
        raise TypeError(f"a {what} is a str, not {type(text).__name__}")
    if not text:
        raise InvalidKeyError(f"the {what} is empty")
    if "\0" in text:
        raise InvalidKeyError(f"the {what} {_shown(text)} holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidKeyError(f"the {what} {_shown(text)} holds a lone surrogate, which UTF-8 can't say") from None


def _shown(text: str) -> str:
    """Quote a name for an error, shortened where it is long."""
    return repr(text) if len(text) <= 80 else f"{text[:77]!r}..."
