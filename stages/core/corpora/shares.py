"""Which split an item belongs to: dealt out to items made one after the other, drawn for groups that were found."""

from collections.abc import Sequence

from stages.core.manifest import SPLITS, Split
from stages.core.seeds import generator


def dealt(n_items: int, valid_share: float, test_share: float) -> list[Split]:
    """The split of each of `n_items` items, at least one each in train, valid and test from three items on.

    After these three, each item goes to the split that is furthest below its share. So an item's split hangs on the
    shares and its place alone: making more items moves none, which drawing lots over all of them would.
    """
    shares: dict[Split, float] = {"train": 1 - valid_share - test_share, "valid": valid_share, "test": test_share}
    chosen: list[Split] = list(SPLITS[:n_items])
    while len(chosen) < n_items:
        n = len(chosen) + 1
        chosen.append(max(SPLITS, key=lambda split: n * shares[split] - chosen.count(split)))
    return chosen


def drawn(groups: Sequence[str], seed: int, valid_share: float, test_share: float) -> list[Split]:
    """The split of each item, such that all items of a group share one and the shares hold over the groups.

    Groups are ordered by a seeded number of their own, so a new group moves at most its neighbours. Where there are three
    groups or more and a share is above 0, its split holds at least one group.
    """
    ordered = sorted(set(groups), key=lambda group: (generator(seed, "split", group).random(), group))
    counts = {name: round(len(ordered) * share) for name, share in (("test", test_share), ("valid", valid_share))}
    if len(ordered) >= len(SPLITS):
        counts = {
            name: max(n, int(share > 0)) for (name, n), share in zip(counts.items(), (test_share, valid_share), strict=True)
        }
    first, second = counts["test"], counts["test"] + counts["valid"]
    chosen: dict[str, Split] = {
        group: "test" if place < first else "valid" if place < second else "train" for place, group in enumerate(ordered)
    }
    return [chosen[group] for group in groups]
