"""The embedded data set: invented users with a few tastes each, items with titles, Zipf popularity.

Items belong to clusters of taste; a user mixes a few clusters. A user's chance to take item i is proportional
to zipf(i) · (breadth + Σ_c mixture[c] · [i in c]), without replacement. So popularity explains a
part, tastes the rest, and there are more tastes than a small student has dimensions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from distill.data.interactions import Interactions
from distill.data.prepare import PrepareOptions, prepare
from distill.data.raw_table import RawTable
from distill.errors import SettingError

ADJECTIVES = (
    *(
        "Amber",
        "Ancient",
        "Autumn",
        "Bitter",
        "Blue",
        "Brave",
        "Bright",
        "Broken",
        "Burning",
        "Calm",
        "Clever",
    ),
    *(
        "Copper",
        "Crimson",
        "Distant",
        "Electric",
        "Empty",
        "Endless",
        "Fading",
        "Familiar",
        "Final",
        "Floating",
    ),
    *(
        "Forgotten",
        "Frozen",
        "Gentle",
        "Golden",
        "Hidden",
        "Hollow",
        "Humble",
        "Hungry",
        "Idle",
        "Ivory",
        "Kind",
    ),
    *("Last", "Little", "Lonely", "Lucky", "Midnight", "Narrow", "Northern", "Patient", "Quiet", "Restless"),
    *(
        "Scarlet",
        "Secret",
        "Silent",
        "Silver",
        "Sleeping",
        "Stubborn",
        "Sudden",
        "Velvet",
        "Wandering",
        "Wild",
    ),
)
NOUNS = {
    "Sea": ("Harbor", "Lighthouse", "Tide", "Sailor", "Reef", "Anchor", "Island", "Compass"),
    "Space": ("Comet", "Orbit", "Planet", "Nebula", "Rocket", "Eclipse", "Telescope", "Moon"),
    "Crime": ("Alibi", "Detective", "Heist", "Witness", "Forgery", "Suspect", "Verdict", "Clue"),
    "Romance": ("Letter", "Wedding", "Kiss", "Promise", "Waltz", "Suitor", "Valentine", "Bouquet"),
    "Comedy": ("Clown", "Uncle", "Umbrella", "Mixup", "Parrot", "Neighbor", "Holiday", "Trombone"),
    "Horror": ("Cellar", "Ghost", "Shadow", "Crypt", "Scream", "Raven", "Mask", "Attic"),
    "History": ("Empire", "Throne", "Siege", "Scroll", "Warden", "Castle", "Treaty", "Banner"),
    "Nature": ("River", "Forest", "Meadow", "Glacier", "Falcon", "Orchard", "Canyon", "Wolf"),
    "Music": ("Melody", "Chorus", "Fiddle", "Encore", "Rhythm", "Ballad", "Drummer", "Serenade"),
    "Sport": ("Champion", "Marathon", "Goalkeeper", "Trophy", "Sprint", "Referee", "Peloton", "Boxer"),
    "Food": ("Kitchen", "Recipe", "Bakery", "Orange", "Banquet", "Pepper", "Teapot", "Feast"),
    "Fantasy": ("Dragon", "Wizard", "Potion", "Amulet", "Goblin", "Prophecy", "Wand", "Unicorn"),
}
"""Category → nouns that tell it."""

SCORES_PER_CHUNK = 1 << 23


@dataclass(frozen=True)
class SyntheticOptions:
    """Shape of the invented data.

    Attributes:
        num_users: Users.
        num_items: Items.
        num_clusters: Clusters of taste.
        tastes_per_user: Clusters a user mixes.
        mean_interactions: Mean number of items a user takes; at least 5, at most a quarter of all.
        zipf_exponent: Popularity of the r-th item is r^-exponent, ranks shuffled.
        breadth: Weight of items outside the user's tastes, against a mixture that sums to 1.
        seed: Of everything.
    """

    num_users: int = 2000
    num_items: int = 1500
    num_clusters: int = 60
    tastes_per_user: int = 3
    mean_interactions: float = 40.0
    zipf_exponent: float = 0.7
    breadth: float = 0.004
    seed: int = 0


def synthesize(options: SyntheticOptions | None = None, *, name: str = "synthetic") -> Interactions:
    """Invent a data set, split at random 8:1:1.

    Args:
        options: Its shape; the defaults when None.
        name: Name of the data set.

    Raises:
        SettingError: A setting is out of range.
    """
    options = options or SyntheticOptions()
    _require_sane(options)
    rng = np.random.default_rng(options.seed)
    cluster = rng.permutation(np.arange(options.num_items) % options.num_clusters)
    popularity = rng.permutation(np.arange(1, options.num_items + 1) ** -options.zipf_exponent)
    user_index, item_index = _draw_interactions(options, cluster, popularity, rng)
    user_ids = _numbered("u", options.num_users)
    item_ids = _numbered("i", options.num_items)
    titles, categories = _describe(cluster, rng)
    table = RawTable(
        user_ids,
        item_ids,
        user_index,
        item_index,
        item_titles=dict(zip(item_ids.tolist(), titles, strict=True)),
        item_categories=dict(zip(item_ids.tolist(), categories, strict=True)),
    )
    source = {"reader": "synthetic", "synthetic": asdict(options)}
    return prepare(table, PrepareOptions(split="random", seed=options.seed), name=name, source=source)


def _require_sane(options: SyntheticOptions) -> None:
    if options.num_users < 1:
        raise SettingError(f"--users {options.num_users}: give at least 1")
    if options.num_items < 20:
        raise SettingError(f"--items {options.num_items}: give at least 20")
    if not 1 <= options.num_clusters <= options.num_items:
        raise SettingError(f"--clusters {options.num_clusters}: give 1 to {options.num_items} (--items)")
    if not 1 <= options.tastes_per_user <= options.num_clusters:
        raise SettingError(f"tastes_per_user {options.tastes_per_user}: give 1 to {options.num_clusters} (--clusters)")
    if options.mean_interactions < 5:
        raise SettingError(f"--interactions {options.mean_interactions:g}: give a mean of at least 5")


def _draw_interactions(
    options: SyntheticOptions,
    cluster: npt.NDArray[np.int64],
    popularity: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw each user's items without replacement, by the Gumbel top-k trick (Kool et al., 2019)."""
    spread = 0.6
    wanted = rng.lognormal(np.log(options.mean_interactions) - spread**2 / 2, spread, options.num_users)
    counts = np.clip(np.rint(wanted), 5, max(5, options.num_items // 4)).astype(np.int64)
    chunk = max(1, SCORES_PER_CHUNK // options.num_items)
    drawn = []
    for start in range(0, options.num_users, chunk):
        count = counts[start : start + chunk]
        mixture = _mixtures(len(count), options, rng)
        weights = (mixture[:, cluster] + options.breadth) * popularity
        keys = np.log(weights) + rng.gumbel(size=weights.shape)
        widest = int(count.max())
        top = np.argpartition(-keys, widest - 1, axis=1)[:, :widest]
        top = np.take_along_axis(top, np.argsort(-np.take_along_axis(keys, top, axis=1), axis=1), axis=1)
        drawn.append(top[np.arange(widest) < count[:, None]])
    return np.repeat(np.arange(options.num_users), counts), np.concatenate(drawn)


def _mixtures(num_users: int, options: SyntheticOptions, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return each user's weights of clusters, shape (users, clusters), few of them above 0, summing to 1."""
    tastes = np.argsort(rng.random((num_users, options.num_clusters)), axis=1)[:, : options.tastes_per_user]
    mixture = np.zeros((num_users, options.num_clusters))
    shares = rng.dirichlet(np.full(options.tastes_per_user, 2.0), size=num_users)
    np.put_along_axis(mixture, tastes, shares, axis=1)
    return mixture


def _numbered(prefix: str, count: int) -> npt.NDArray[np.str_]:
    width = max(4, len(str(count)))
    return np.array([f"{prefix}{number:0{width}d}" for number in range(1, count + 1)], dtype=np.str_)


def _describe(cluster: npt.NDArray[np.int64], rng: np.random.Generator) -> tuple[list[str], list[tuple[str, ...]]]:
    """Name each item "Adjective Noun", the noun of its cluster's category; then come parts 2, 3, ..."""
    names = list(NOUNS)
    second = rng.integers(len(names), size=int(cluster.max()) + 1)
    pools = {
        name: rng.permutation([f"{adjective} {noun}" for adjective in ADJECTIVES for noun in nouns]).tolist()
        for name, nouns in NOUNS.items()
    }
    used = dict.fromkeys(names, 0)
    titles, categories = [], []
    for number in cluster.tolist():
        category = names[number % len(names)]
        volume, place = divmod(used[category], len(pools[category]))
        used[category] += 1
        titles.append(pools[category][place] + (f", Part {volume + 1}" if volume else ""))
        categories.append(tuple(dict.fromkeys((category, names[second[number]]))))
    return titles, categories
