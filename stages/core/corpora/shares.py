"""Items that are made one after the other, dealt out to the splits."""

from stages.core.manifest import SPLITS, Split


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
