"""DEMAND: eighteen places recorded with sixteen microphones, five minutes each, at 48 kHz and, but for one, at 16 kHz."""

from stages.core.corpora.entries import Archive, PublishedCorpus

_SOURCE = "https://zenodo.org/records/1227121, as quoted in public code"
_MISSING = "published at https://zenodo.org/records/1227121, but found nowhere else to be read"
FIRST_CHANNEL = r"[A-Z]+/ch01\.wav"

# Size and MD5 on the page of the record.
_AT_16K = {
    "DKITCHEN": (110_501_049, "7ffbf52d7f4699f96927846103dc8788"),
    "DLIVING": (80_170_627, "46741384d9e434a0bd8b3ec1830b6052"),
    "DWASHING": (102_343_250, "7e5ee9437ce9409c5f9a779b6212a240"),
    "NFIELD": (86_536_782, "a740046c6f4e174e16f5d568aaec5024"),
    "NPARK": (86_029_332, "80f1385a34d7f1705758926b57f138ce"),
    "NRIVER": (98_689_565, "54264db61d3fe073fb81f2e40e0d19b5"),
    "OHALLWAY": (77_941_854, "fe918bbb0e63e73d09ba7f4843ef33f1"),
    "OMEETING": (82_703_355, "62f7cfe7fe6d30b7d8a215fe37c2dfd2"),
    "OOFFICE": (88_995_191, "7b61cc2d182d5a654cb9c3101ddd4041"),
    "PCAFETER": (107_431_494, "99927d148128254141a9417d051510bb"),
    "PRESTO": (111_292_815, "b98d2e6854eeebb397f29a8ad7457092"),
    "PSTATION": (119_441_094, "d7448009f6c2aeb6ba570375df1750a3"),
    "SPSQUARE": (110_928_528, "205d0e7b8fe74504a2f8d252fc414b9e"),
    "STRAFFIC": (118_572_691, "2efa87262f272bbf9ba578088e81939c"),
    "TBUS": (128_916_709, "706b11b0d8504f9f3b3f3211e91b3863"),
    "TCAR": (130_045_975, "4d930012796bd298932245a26189f973"),
    "TMETRO": (126_589_090, "95daf4df678e13b120e14211e6d89571"),
}
# As above; None is what could not be read anywhere. Members are checked by their CRC either way.
_AT_48K: dict[str, tuple[int | None, str | None]] = {
    "DKITCHEN": (336_992_458, "b4d38241fbd50d8a17f8742ca6870c10"),
    "DLIVING": (None, None),
    "DWASHING": (306_101_499, "ecf765f12b8d3ada7ef0ec664b8f8d73"),
    "NFIELD": (270_538_724, "937eab7d3f64cea99fa377238e84c185"),
    "NPARK": (None, "bb90ec754ac02eede51bf80675a78cfe"),
    "NRIVER": (None, None),
    "OHALLWAY": (252_905_617, "cb9227a75d2c1342de0b6548da4bbb1b"),
    "OMEETING": (None, None),
    "OOFFICE": (277_643_831, "6f87edf8a6b03f17b3f693af1754aab4"),
    "PCAFETER": (None, None),
    "PRESTO": (None, None),
    "PSTATION": (None, None),
    "SCAFE": (None, "1a4ee387f1900f4b15ba219481c76556"),
    "SPSQUARE": (None, None),
    "STRAFFIC": (None, None),
    "TBUS": (None, None),
    "TCAR": (373_520_251, "8550f03e8356d8054ae845e8b4b6c773"),
    "TMETRO": (367_513_573, "00d895020233f94348aafce7140d671f"),
}


def _archive(place: str, rate: str, size: int | None, md5: str | None) -> Archive:
    name = f"{place}_{rate}.zip"
    addresses = (
        f"https://zenodo.org/records/1227121/files/{name}?download=1",
        f"https://zenodo.org/api/records/1227121/files/{name}/content",
    )
    return Archive(name, addresses, size, f"md5:{md5}" if md5 else None, _SOURCE if md5 else _MISSING, FIRST_CHANNEL)


def _entry(name: str, title: str, archives: tuple[Archive, ...], note: str) -> PublishedCorpus:
    return PublishedCorpus(
        name=name,
        role="noise",
        title=title,
        archives=archives,
        licence="CC BY-SA 3.0",
        licence_url="https://creativecommons.org/licenses/by-sa/3.0/",
        page="https://zenodo.org/records/1227121",
        layout="demand",
        note=note,
    )


_AT_16K_ARCHIVES = tuple(_archive(place, "16k", size, md5) for place, (size, md5) in _AT_16K.items())
_AT_48K_ARCHIVES = tuple(_archive(place, "48k", size, md5) for place, (size, md5) in _AT_48K.items())
_CHANNEL = "Only the first of sixteen channels is fetched: the others are the same sound some centimetres away."
CORPORA = (
    _entry(
        "demand",
        "DEMAND at 16 kHz",
        (*_AT_16K_ARCHIVES, _archive("SCAFE", "48k", *_AT_48K["SCAFE"])),
        f"{_CHANNEL} The record has SCAFE at 48 kHz only, so it is fetched so.",
    ),
    _entry("demand-48k", "DEMAND at 48 kHz", _AT_48K_ARCHIVES, _CHANNEL),
)
