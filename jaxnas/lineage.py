"""Where a network came from: its ancestors, and what changed at each step."""

import difflib


def ancestry(records: dict[int, dict], number: int) -> list[dict]:
    """The records of a network and of all it descends from, the oldest first.

    Raises:
      ValueError: an ancestor has no record.
    """
    line = [number]
    while parents := _record(records, line[0], number)["parents"]:
        line.insert(0, parents[0])
    return [records[one] for one in line]


def _record(records, one, number):
    if one not in records:
        raise ValueError(
            f"found no record of network {one}, an ancestor of {number}: records.jsonl "
            "is incomplete; continue the run with 'jaxnas search CONFIG.py --resume'"
        )
    return records[one]


def changes(before: str, after: str) -> list[str]:
    """What an architecture changed, part by part: `+ new`, `- gone`, `old -> other`.

    Both are texts of `networks.space.describe`, parts between bars.
    """
    old, new = (text.split(" | ") for text in (before, after))
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    found = []
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            continue
        pairs = min(j - i, m - k)
        both = zip(old[i : i + pairs], new[k : k + pairs], strict=True)
        found += [f"{one} -> {other}" for one, other in both]
        found += [f"- {one}" for one in old[i + pairs : j]]
        found += [f"+ {one}" for one in new[k + pairs : m]]
    return found
