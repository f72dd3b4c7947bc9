"""Public data sets for `lowpass data fetch`: where each file is, what it must hash to, how to prepare it.

Every size and SHA-256 was computed from a copy of the file at the commit in its URL.
"""

from __future__ import annotations

from dataclasses import dataclass

from distill.data.prepare import PrepareOptions
from distill.errors import DataError

_CITEULIKE = "https://raw.githubusercontent.com/js05212/citeulike-t/4f103c6ea0fe407b23be230837b65517e613c34a"
_LIGHTGCNPP = "https://raw.githubusercontent.com/geon0325/LightGCNpp/a394f79a7aceb8f485f6bcb549b4865fe83f1d49"
_LIGHTGCN = "https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/947ca2b3b1d2d3545b114145710cb06c4e57b3d2"
_RECBOLE = "https://raw.githubusercontent.com/RUCAIBox/RecBole/7b02be5ec80a88310f2d04a27a82adfcbb5dc211"


@dataclass(frozen=True)
class CatalogFile:
    """One file of a set.

    Attributes:
        name: File name in the folder it is fetched into.
        url: Where it is, at a fixed commit.
        sha256: Hex digest of its content.
        size: Bytes.
    """

    name: str
    url: str
    sha256: str
    size: int


@dataclass(frozen=True)
class CatalogEntry:
    """A public data set.

    Attributes:
        name: What the user calls it.
        description: One line.
        format_name: A key of `readers.READERS`.
        options: How it is usually prepared.
        licence: What is known about the terms of use.
        files: All that the reader needs.
    """

    name: str
    description: str
    format_name: str
    options: PrepareOptions
    licence: str
    files: tuple[CatalogFile, ...]


_ENTRIES = (
    CatalogEntry(
        name="citeulike-t",
        description="researchers and the articles in their libraries; 5,219 users, 25,181 items",
        format_name="citeulike",
        options=PrepareOptions(user_minimum=5, split="ordered"),
        licence="the repository states none; ask its authors before other use than research",
        files=(
            CatalogFile(
                "users.dat",
                f"{_CITEULIKE}/users.dat",
                "02d5d429b2c0362e0ed79f6ef204666b4092563d21493abf4dfb521e8a7078bf",
                770_649,
            ),
        ),
    ),
    CatalogEntry(
        name="gowalla",
        description="check-ins at places, LightGCN's split; 29,858 users, 40,981 items",
        format_name="lightgcn",
        options=PrepareOptions(split="ready"),
        licence="the repositories state none; those of the original data set apply",
        files=(
            CatalogFile(
                "train.txt",
                f"{_LIGHTGCNPP}/data/gowalla/train.txt",
                "d47e01d060624f389956c0b2f89a1ed8c453ea158631cd2b5320c241f3e1a073",
                4_132_444,
            ),
            CatalogFile(
                "valid.txt",
                f"{_LIGHTGCNPP}/data/gowalla/valid.txt",
                "ddc22c1cd9a7d14fd5cd0c98b1473b614f4323038fef74ae0d28cc9c92a08ba2",
                669_008,
            ),
            CatalogFile(
                "test.txt",
                f"{_LIGHTGCNPP}/data/gowalla/test.txt",
                "099a2a73924e4b754dc6efd730d764f492321b53c38eb93298850c83acf57be3",
                1_372_559,
            ),
            CatalogFile(
                "user_list.txt",
                f"{_LIGHTGCN}/data/gowalla/user_list.txt",
                "5344c4d0deef610e1f148f23ad216a0db03b36f88834cd39a06786a672c5f5a1",
                351_203,
            ),
            CatalogFile(
                "item_list.txt",
                f"{_LIGHTGCN}/data/gowalla/item_list.txt",
                "6b186f92890cc3f0c15a6dae5d6285f125a302bb8c5ea0cd9a16cf9c16347139",
                506_926,
            ),
        ),
    ),
    CatalogEntry(
        name="ml-100k",
        description="MovieLens ratings of 4 and more, with titles; 938 users, 1,447 items",
        format_name="recbole",
        options=PrepareOptions(rating_minimum=4, user_minimum=5, split="temporal"),
        licence="GroupLens terms: no redistribution, no commercial use without permission; see grouplens.org",
        files=(
            CatalogFile(
                "ml-100k.inter",
                f"{_RECBOLE}/dataset/ml-100k/ml-100k.inter",
                "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
                1_979_230,
            ),
            CatalogFile(
                "ml-100k.item",
                f"{_RECBOLE}/dataset/ml-100k/ml-100k.item",
                "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
                66_632,
            ),
        ),
    ),
    CatalogEntry(
        name="ml-1m",
        description="MovieLens, split by the LightGCN++ authors, numbers for ids; 6,039 users, 3,628 items",
        format_name="lightgcn",
        options=PrepareOptions(split="ready"),
        licence="GroupLens terms: no redistribution, no commercial use without permission; see grouplens.org",
        files=(
            CatalogFile(
                "train.txt",
                f"{_LIGHTGCNPP}/data/ml-1m/train.txt",
                "dfa3a7a866feade29ca5722ac0423c1b0317ac1f6ad38a55fc1a7ceeb9cee3bb",
                2_499_831,
            ),
            CatalogFile(
                "valid.txt",
                f"{_LIGHTGCNPP}/data/ml-1m/valid.txt",
                "429fe0d750b304677898d7eeb1080764bbf06550b94c9508b8cc8cd0573e3dfc",
                367_878,
            ),
            CatalogFile(
                "test.txt",
                f"{_LIGHTGCNPP}/data/ml-1m/test.txt",
                "0d58f78bbf606f401aec2efe3f519b945c458c8398955f986e03b880fbbd16a6",
                718_939,
            ),
        ),
    ),
)

CATALOG: dict[str, CatalogEntry] = {entry.name: entry for entry in _ENTRIES}


def find_entry(name: str) -> CatalogEntry:
    """Return the entry of that name.

    Raises:
        DataError: There is none.
    """
    if name not in CATALOG:
        raise DataError(f"no data set '{name}' in the catalogue; it has {', '.join(CATALOG)}")
    return CATALOG[name]
