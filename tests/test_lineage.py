"""Family lines and what changes in them."""

import pytest

from jaxnas.lineage import ancestry, changes

RECORDS = {
    number: {"id": number, "parents": parents}
    for number, parents in enumerate([[], [0], [], [1], [3], [2]])
}


def test_a_line_leads_from_the_oldest_to_the_network():
    assert [one["id"] for one in ancestry(RECORDS, 4)] == [0, 1, 3, 4]
    assert ancestry(RECORDS, 2) == [RECORDS[2]]


def test_a_missing_ancestor_is_named():
    torn = {number: one for number, one in RECORDS.items() if number != 1}
    with pytest.raises(ValueError, match="network 1, an ancestor of 4: .* --resume"):
        ancestry(torn, 4)


STEM, POOL, HEAD = "stem 3x3 8 w8a4", "pool", "dense w8"


@pytest.mark.parametrize(
    "before, after, expected",
    [
        ([STEM, POOL, HEAD], [STEM, POOL, HEAD], []),
        (
            [STEM, POOL, HEAD],
            [STEM, "sep 5x5 8", POOL, HEAD],
            ["+ sep 5x5 8"],
        ),
        (
            [STEM, "conv 3x3 8", POOL, "conv 3x3 16", HEAD],
            [STEM, POOL, "conv 5x5 16", "dense w4"],
            [
                "- conv 3x3 8",
                "conv 3x3 16 -> conv 5x5 16",
                "dense w8 -> dense w4",
            ],
        ),
    ],
)
def test_changes_are_named_part_by_part(before, after, expected):
    assert changes(" | ".join(before), " | ".join(after)) == expected
