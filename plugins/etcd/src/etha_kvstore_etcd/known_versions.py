"""Which versions of etcd are known for a fault that its users should know of."""

from __future__ import annotations

import re

from etha_kvstore_etcd.finding import Finding, doubtful

__all__ = ["judge_version"]


def judge_version(version: str, *, users: bool) -> Finding | None:
    """Say what is known to be wrong with a version of the server.

    None of it is bad: such a server works until it crashes or is attacked, and to upgrade it can wait for the morning.

    Parameters
    ----------
    version : str
        Such as ``3.5.1``.
    users : bool
        Whether there are users, whose rights matter.

    Returns
    -------
    (str, str) or None
        Level and message; `None` where nothing is.

    Notes
    -----
    3.5.0 to 3.5.2 are those of etcd's own report ``Documentation/postmortems/v3.5-data-inconsistency.md`` (April 2022):
    a member that crashes under load may come back without writes that the cluster had acknowledged. In a cluster of one
    nothing can detect it. etcd's maintainers took back their recommendation for production, and knew of no user who had
    lost data.

    Examples
    --------
    >>> judge_version("3.5.1", users=False)
    ('doubtful', 'may lose writes in a crash (all of 3.5.0 to 3.5.2) -> upgrade to the newest 3.5 or 3.6')
    """
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if found is None:
        return None
    number = tuple(map(int, found.groups()))
    if (3, 5, 0) <= number <= (3, 5, 2):
        return doubtful("may lose writes in a crash (all of 3.5.0 to 3.5.2)", "upgrade to the newest 3.5 or 3.6")
    if number < (3, 5):
        return doubtful("gets no fixes any more (all of 3.4 since June 2026)", "upgrade to the newest 3.5 or 3.6")
    if users and (number < (3, 5, 33) or (3, 6) <= number < (3, 6, 14)):
        cure = "upgrade to 3.5.33, 3.6.14 or newer"
        return doubtful("lets a user who may read one key watch every later key", cure)
    return None
