"""Class names that may stand for one class: `Cat` and `cat`, `1` and `1.0`."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence

log = logging.getLogger("trainer")

MAX_SHOWN = 3  # groups


def warn_similar_names(spec: str, class_names: Sequence[str]) -> None:
    """Warn of names that differ only in letter case, spaces, or the way a number is written.

    Single letters are characters, as in data sets of handwriting, where case matters.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in class_names:
        groups[_normalized(name)].append(name)
    similar = [names for names in groups.values() if len(names) > 1]
    if similar:
        shown = "; ".join(" and ".join(map(repr, names)) for names in similar[:MAX_SHOWN])
        more = f"; and {len(similar) - MAX_SHOWN} more" if len(similar) > MAX_SHOWN else ""
        log.warning("%s: these names may mean one class, and are taken for several: %s%s", spec, shown, more)


def _normalized(name: str) -> str:
    try:
        return repr(float(name))
    except ValueError:
        return name if len(name) == 1 else " ".join(name.casefold().split())
