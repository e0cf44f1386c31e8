"""LibriSpeech: English read aloud at 16 kHz, every subset of openslr 12 and the mini set of openslr 31."""

from stages.core.corpora.entries import Archive, PublishedCorpus, openslr

# Size and SHA-256 as in tensorflow_datasets/url_checksums/librispeech.txt of github.com/tensorflow/datasets; torchaudio
# checks by the same SHA-256.
_SUBSETS = {
    "dev-clean": (337_926_286, "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
    "dev-other": (314_305_928, "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
    "test-clean": (346_663_984, "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
    "test-other": (328_757_843, "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"),
    "train-clean-100": (6_387_309_499, "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"),
    "train-clean-360": (23_049_477_885, "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"),
    "train-other-500": (30_593_501_606, "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"),
}
_SUBSETS_SOURCE = "https://github.com/tensorflow/datasets/blob/master/tensorflow_datasets/url_checksums/librispeech.txt"
# Size and MD5 as published in md5sum.txt, quoted by PaddleSpeech and others.
_MINI = {
    "dev-clean-2": (126_046_265, "6d7ab67ac6a1d2c993d050e16d61080d"),
    "train-clean-5": (332_954_390, "5df7d4e78065366204ca6845bb08f490"),
}
_MINI_SOURCE = "https://www.openslr.org/resources/31/md5sum.txt, as quoted in public code"


def _entry(subset: str, title: str, number: int, size: int, checksum: str, source: str) -> PublishedCorpus:
    name = f"{subset}.tar.gz"
    return PublishedCorpus(
        name=f"librispeech-{'mini-' if number == 31 else ''}{subset}",
        role="speech",
        title=title,
        archives=(Archive(name, openslr(number, name), size, checksum, source),),
        licence="CC BY 4.0",
        licence_url="https://creativecommons.org/licenses/by/4.0/",
        page=f"https://www.openslr.org/{number}/",
        layout="librispeech",
    )


CORPORA = (
    *(
        _entry(subset, f"LibriSpeech {subset}", 12, size, f"sha256:{digest}", _SUBSETS_SOURCE)
        for subset, (size, digest) in _SUBSETS.items()
    ),
    *(
        _entry(subset, f"Mini LibriSpeech {subset}", 31, size, f"md5:{digest}", _MINI_SOURCE)
        for subset, (size, digest) in _MINI.items()
    ),
)
