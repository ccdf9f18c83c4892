"""All that can be seen of an error, for the tests that look for a secret in it."""

from __future__ import annotations

import pickle
import traceback
from contextlib import suppress

__all__ = ["all_texts"]


def all_texts(error: BaseException) -> str:
    """All that a log, a debugger or another process could be shown of an error and of those that it came from.

    Parameters
    ----------
    error : BaseException
        The error.

    Returns
    -------
    str
        The text, the representation, the attributes, the traceback and the pickle of each.
    """
    texts: list[str] = []
    found: list[BaseException] = [error]
    for each in found:
        texts += [str(each), repr(each), repr(vars(each)), *traceback.format_exception(each)]
        with suppress(Exception):  # not everything can be pickled
            texts.append(pickle.dumps(each).decode("latin-1"))
        behind = [other for other in (each.__cause__, each.__context__) if other is not None]
        found += [other for other in behind if not any(other is known for known in found)]
    return "\n".join(texts)
