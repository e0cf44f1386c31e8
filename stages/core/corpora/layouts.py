"""How published corpora are laid out: which members are recordings, and what their paths say of speaker, kind and split."""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from stages.core.corpora.names import DEMAND_OTHERS, DEMAND_TEST
from stages.core.corpora.shares import drawn
from stages.core.errors import DenoisingError
from stages.core.manifest import Split
from stages.core.seeds import generator

# The two speakers of the test set of VoiceBank+DEMAND.
VOICEBANK_TEST = ("p232", "p257")


class LayoutError(DenoisingError):
    """A corpus that is not laid out as it is known to be."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What a user decides: which shares of the groups validate and test, and which labels are left out."""

    seed: int
    valid_share: float
    test_share: float
    leave_out: tuple[str, ...] = ()

    def split(self, group: str) -> Split:
        """The split of a group, drawn for it alone, so that a speaker whom two corpora share has one split in both."""
        number = generator(self.seed, "split", group).random()
        return "test" if number < self.test_share else "valid" if number < self.test_share + self.valid_share else "train"


@dataclass(frozen=True, slots=True)
class Item:
    """What a path says of a recording: a name within its corpus, and what the manifest holds of it."""

    name: str
    group: str
    label: str
    split: Split


@dataclass(frozen=True, slots=True)
class Layout:
    """How one corpus is read.

    `wanted` matches the whole path of every member that is kept, tables included; `items` gives what is known of each path,
    None for one that is not used, from all paths, the texts of the tables and the choices of the user. `archives` says
    which archives are of use at all.
    """

    wanted: str
    items: Callable[[Sequence[str], Mapping[str, str], Choices], list[Item | None]]
    archives: str = ".*"


def _each(item: Callable[[str, Choices], Item | None]) -> Callable[..., list[Item | None]]:
    """The items of a corpus without tables, path by path."""

    def items(paths: Sequence[str], _tables: Mapping[str, str], choices: Choices) -> list[Item | None]:
        return [item(path, choices) for path in paths]

    return items


def _librispeech(path: str, choices: Choices) -> Item:
    """SUBSET/SPEAKER/CHAPTER/UTTERANCE; what was made for development validates, what was made for the test tests."""
    subset, speaker, _, name = path.split("/")[-4:]
    group = f"librispeech/{speaker}"
    if subset.startswith("dev-"):
        return Item(name.rsplit(".", 1)[0], group, "en", "valid")
    split: Split = "test" if subset.startswith("test-") else choices.split(group)
    return Item(name.rsplit(".", 1)[0], group, "en", split)


def _voicebank(path: str, choices: Choices) -> Item:
    """SET_wav/SPEAKER_NUMBER.wav, clean and noisy under equal names."""
    folder, name = path.split("/")[-2:]
    speaker = name.split("_")[0]
    split: Split = "test" if speaker in VOICEBANK_TEST else choices.split(f"vctk/{speaker}")
    return Item(f"{folder.split('_')[0]}/{name.rsplit('.', 1)[0]}", f"vctk/{speaker}", "en", split)


def _musan(path: str, choices: Choices) -> Item:
    """noise/SOURCE/NAME.wav, each a recording of its own; the label is the source."""
    source, name = path.split("/")[-2:]
    name = name.rsplit(".", 1)[0]
    return Item(name, f"musan/{name}", source, choices.split(f"musan/{name}"))


def _rirs(path: str, choices: Choices) -> Item:
    """Simulated: SIZE/ROOM/NAME.wav, where a room keeps together. Recorded: COLLECTION_…_NAME.wav, each on its own."""
    *folders, name = path.removesuffix(".wav").split("/")
    simulated = "simulated_rirs" in folders
    label = folders[-2] if simulated else name.split("_")[0]
    group = f"rirs/{label}/{folders[-1] if simulated else name}"
    return Item("/".join([*folders[1:], name]), group, label, choices.split(group))


def _demand(paths: Sequence[str], _tables: Mapping[str, str], choices: Choices) -> list[Item | None]:
    """ENVIRONMENT/ch01.wav; five environments are for the test alone, the others for training and validation."""
    # Drawn among all that are used, so that validation always has one.
    used = [place for place in DEMAND_OTHERS if place not in choices.leave_out]
    splits: dict[str, Split] = dict(zip(used, drawn(used, choices.seed, choices.valid_share, 0.0), strict=True))
    splits |= dict.fromkeys(DEMAND_TEST, "test")
    splits |= dict.fromkeys(choices.leave_out, "test")
    places = [path.split("/")[-2] for path in paths]
    unknown = sorted(set(places) - splits.keys())
    if unknown:
        raise LayoutError(f"demand: '{unknown[0]}' is none of its environments {', '.join(sorted(splits))}.")
    return [None if place in choices.leave_out else Item(place, f"demand/{place}", place, splits[place]) for place in places]


def _esc50(paths: Sequence[str], tables: Mapping[str, str], choices: Choices) -> list[Item | None]:
    """audio/NAME.wav and meta/esc50.csv; clips of one recording at Freesound (src_file) stay together; labels are classes."""
    listed = [row for text in tables.values() for row in csv.DictReader(io.StringIO(text))]
    if not listed or not {"filename", "category", "src_file"} <= listed[0].keys():
        raise LayoutError("esc-50: expected meta/esc50.csv with the columns filename, category and src_file.")
    rows = {row["filename"]: row for row in listed}
    items: list[Item | None] = []
    for name in (path.rsplit("/", 1)[-1] for path in paths):
        row = rows.get(name)
        if row is None or row["category"] in choices.leave_out:
            items.append(None)
            continue
        group = f"esc-50/{row['src_file']}"
        items.append(Item(name.removesuffix(".wav"), group, row["category"], choices.split(group)))
    return items


LAYOUTS = {
    "librispeech": Layout(r"(?:[^/]+/)?[^/]+/\d+/\d+/\d+-\d+-\d+\.(?:flac|ogg|wav)", _each(_librispeech)),
    "demand": Layout(r"(?:[^/]+/)?[A-Z]+/ch01\.wav", _demand),
    "esc50": Layout(r"[^/]+/(?:audio/[^/]+\.wav|meta/esc50\.csv)", _esc50),
    "voicebank": Layout(r"(?:[^/]+/)?(?:clean|noisy)_\w+_wav/p\d+_\d+\.wav", _each(_voicebank), r".*_wav\.zip"),
    "musan": Layout(r"(?:[^/]+/)?noise/[^/]+/[^/]+\.wav", _each(_musan)),
    "rirs": Layout(
        r"[^/]+/(?:simulated_rirs/[^/]+/[^/]+/[^/]+\.wav|real_rirs_isotropic_noises/(?!.*noise[^/]*$)[^/]+\.wav)", _each(_rirs)
    ),
}


def is_wanted(layout: Layout, path: str) -> bool:
    """Whether a member of an archive is kept."""
    return re.fullmatch(layout.wanted, path) is not None
