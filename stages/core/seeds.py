"""Random generators that depend on nothing but a seed and the name of the item they serve."""

import hashlib

import numpy as np


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A generator for one item, independent of every other item and of the order in which items are worked on.

    The SHA-256 of the seed and the names seeds PCG64, so adding an item changes no other.
    """
    key = "\x1f".join(map(str, (seed, *names))).encode()
    words = np.frombuffer(hashlib.sha256(key).digest()[::-1], "<u4")  # the digest as one large number, which takes longer
    return np.random.Generator(np.random.PCG64(words))
