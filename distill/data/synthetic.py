"""The embedded data set: invented users with a few tastes each, items with titles, Zipf popularity.

Items belong to clusters of taste; a user mixes a few clusters. A user's chance to take item i is proportional
to zipf(i) · (breadth + Σ_c mixture[c] · [i in c]), without replacement. So popularity explains a
part, tastes the rest, and there are more tastes than a small student has dimensions. No cluster is larger than another,
so a cut of the scores to a rank below the number of clusters (SVD) loses far more here than on real data, where a few
tastes are large.

The chance is a mixture of two kinds of shelves: each cluster, and the whole catalogue. An item is drawn by choosing
a shelf and then an item on it by popularity, and an item that the user has already is drawn again. One random number
does both, so the cost goes by the interactions, not by |U| · |I|.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from distill.data.interactions import Interactions
from distill.data.prepare import Begin, PrepareOptions, prepare, say_nothing
from distill.data.raw_table import RawTable
from distill.errors import SettingError

ADJECTIVES = (
    *("Amber", "Ancient", "Autumn", "Bitter", "Blue", "Brave", "Bright", "Broken", "Burning", "Calm", "Clever"),
    *("Copper", "Crimson", "Distant", "Electric", "Empty", "Endless", "Fading", "Familiar", "Final", "Floating"),
    *("Forgotten", "Frozen", "Gentle", "Golden", "Hidden", "Hollow", "Humble", "Hungry", "Idle", "Ivory", "Kind"),
    *("Last", "Little", "Lonely", "Lucky", "Midnight", "Narrow", "Northern", "Patient", "Quiet", "Restless"),
    *("Scarlet", "Secret", "Silent", "Silver", "Sleeping", "Stubborn", "Sudden", "Velvet", "Wandering", "Wild"),
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

MAX_ROUNDS = 64
"""Rounds of drawing again, before the few users who still lack items weigh the whole catalogue instead."""


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


def synthesize(
    options: SyntheticOptions | None = None, *, name: str = "synthetic", begin: Begin = say_nothing
) -> Interactions:
    """Invent a data set, split at random 8:1:1.

    Args:
        options: Its shape; the defaults when None.
        name: Name of the data set.
        begin: Told the name of each stage that begins.

    Raises:
        SettingError: A setting is out of range.
    """
    options = options or SyntheticOptions()
    _require_sane(options)
    begin("drawing")
    rng = np.random.default_rng(options.seed)
    cluster, popularity = _invent_items(options, rng)
    user_index, item_index = draw_interactions(options, cluster, popularity, rng)
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
    return prepare(table, PrepareOptions(split="random", seed=options.seed), name=name, source=source, begin=begin)


def known_tastes(options: SyntheticOptions) -> Shelves:
    """Return what `synthesize` draws from: who likes what, in the order of the numbers in the ids ("u0001" first).

    The chances of the truth are a bound that no model of the data passes, and embeddings made of them are a teacher
    that needs no training.

    Args:
        options: Those of the data set.
    """
    rng = np.random.default_rng(options.seed)
    return _lay_out(options, *_invent_items(options, rng), rng)[1]


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
    if options.breadth <= 0:
        raise SettingError(f"--breadth {options.breadth:g}: give a weight above 0")


def draw_interactions(
    options: SyntheticOptions,
    cluster: npt.NDArray[np.int64],
    popularity: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Draw each user's items without replacement, in the order in which they are taken.

    An item drawn twice is drawn again, which is the same as leaving out what is taken (successive sampling).

    Args:
        options: The shape.
        cluster: Of each item, shape (|I|,).
        popularity: Of each item, above 0, shape (|I|,).
        rng: Of every draw.

    Returns:
        User rows, ascending, and item rows, each of shape (n,).
    """
    counts, shelves = _lay_out(options, cluster, popularity, rng)
    users = np.repeat(np.arange(options.num_users), counts)
    items = np.empty(len(users), dtype=np.int64)
    open_places = np.arange(len(users))
    for _ in range(MAX_ROUNDS):
        items[open_places] = shelves.draw(users[open_places], rng)
        open_places = _find_repeats(users, items, open_places)
        if not len(open_places):
            return users, items
    for user in np.unique(users[open_places]):
        mine = open_places[users[open_places] == user]
        taken = np.setdiff1d(np.flatnonzero(users == user), mine)
        items[mine] = shelves.draw_rest(int(user), items[taken], len(mine), rng)
    return users, items


def _invent_items(
    options: SyntheticOptions, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Draw each item's cluster and popularity, shape (|I|,)."""
    cluster = rng.permutation(np.arange(options.num_items) % options.num_clusters)
    popularity = rng.permutation(np.arange(1, options.num_items + 1) ** -options.zipf_exponent)
    return cluster, popularity


def _lay_out(
    options: SyntheticOptions,
    cluster: npt.NDArray[np.int64],
    popularity: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.int64], Shelves]:
    """Draw how many items each user takes, shape (|U|,), and what it likes."""
    spread = 0.6
    wanted = rng.lognormal(np.log(options.mean_interactions) - spread**2 / 2, spread, options.num_users)
    counts = np.clip(np.rint(wanted), 5, max(5, options.num_items // 4)).astype(np.int64)
    return counts, Shelves(options, cluster, popularity, rng)


def _find_repeats(
    users: npt.NDArray[np.int64], items: npt.NDArray[np.int64], drawn: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return those of the places just drawn whose item the user has already, ascending.

    Args:
        users: User rows, ascending, shape (n,).
        items: Item rows, shape (n,); settled but for the places just drawn.
        drawn: Those places, ascending. Of two with the same item the first settles it.
    """
    concerned = np.zeros(users[-1] + 1, dtype=np.bool_)
    concerned[users[drawn]] = True
    places = np.flatnonzero(concerned[users])
    is_new = np.zeros(len(users), dtype=np.bool_)
    is_new[drawn] = True
    keys = (users[places] * (items[places].max() + 1) + items[places]) * 2 + is_new[places]
    order = np.argsort(keys, kind="stable")
    same = keys[order[1:]] // 2 == keys[order[:-1]] // 2
    return np.sort(places[order[1:][same]])


class Shelves:
    """Where users find items: the clusters of their tastes, and the whole catalogue.

    A user's shelves lie one behind the other, each as long as its share of the user's draws. A point drawn uniformly
    on that length names a shelf, and how far it lies into the shelf names an item.

    Attributes:
        tastes: Each user's clusters, shape (|U|, T).
        weights: Of those clusters, summing to 1, and last of the whole catalogue, shape (|U|, T + 1).
        cluster: Of each item, shape (|I|,).
        popularity: Of each item, above 0, shape (|I|,).
    """

    def __init__(
        self,
        options: SyntheticOptions,
        cluster: npt.NDArray[np.int64],
        popularity: npt.NDArray[np.float64],
        rng: np.random.Generator,
    ) -> None:
        """Put the items of a cluster side by side and draw what each user likes.

        Args:
            options: The shape.
            cluster: Of each item, shape (|I|,).
            popularity: Of each item, above 0, shape (|I|,).
            rng: Of the tastes.
        """
        self.cluster, self.popularity = cluster, popularity
        self._items = np.argsort(cluster, kind="stable")
        self._ends = np.cumsum(popularity[self._items])
        first = np.searchsorted(cluster[self._items], np.arange(options.num_clusters + 1))
        tastes = _choose_tastes(options, rng)
        shares = rng.dirichlet(np.full(options.tastes_per_user, 2.0), size=options.num_users)
        whole = np.zeros((options.num_users, 1), dtype=np.int64)
        self.tastes = tastes
        self.weights = np.hstack([shares, np.full(whole.shape, options.breadth)])
        self._first = np.hstack([first[tastes], whole])
        self._last = np.hstack([first[tastes + 1], whole + len(cluster)]) - 1
        starts = np.concatenate([[0.0], self._ends])
        self._starts = starts[self._first]
        self._shelf_ends = np.cumsum(self.weights * (starts[self._last + 1] - self._starts), axis=1)

    def draw(self, users: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draw one item for each of the users, whatever they have already.

        Args:
            users: User rows, shape (m,).
            rng: Gives one number a draw.

        Returns:
            Item rows, shape (m,).
        """
        point = rng.random(len(users)) * self._shelf_ends[users, -1]
        shelf = (point[:, None] >= self._shelf_ends[users, :-1]).sum(axis=1)
        point -= np.where(shelf > 0, self._shelf_ends[users, shelf - 1], 0.0)
        along = self._starts[users, shelf] + point / self.weights[users, shelf]
        place = np.searchsorted(self._ends, along, side="right")
        items: npt.NDArray[np.int64] = self._items[np.clip(place, self._first[users, shelf], self._last[users, shelf])]
        return items

    def draw_rest(
        self, user: int, taken: npt.NDArray[np.int64], count: int, rng: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """Draw more items for one user by weighing the whole catalogue (Gumbel top-k; Kool et al., ICML 2019).

        Args:
            user: User row.
            taken: Item rows that the user has.
            count: How many more.
            rng: Gives a number an item.

        Returns:
            Item rows in the order in which they are taken, shape (count,).
        """
        mixture = np.zeros(int(self.cluster.max()) + 1)
        mixture[self.tastes[user]] = self.weights[user, :-1]
        weights = (mixture[self.cluster] + self.weights[user, -1]) * self.popularity
        keys = np.log(weights) + rng.gumbel(size=len(weights))
        keys[taken] = -np.inf
        return np.argsort(-keys)[:count]


def _choose_tastes(options: SyntheticOptions, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw each user's clusters, uniformly among the sets of that size, shape (users, tastes).

    This is Floyd's way: the t-th draw is among the first C − T + t + 1 clusters, and one that is chosen already gives
    its place to the last of them (Bentley and Floyd, "A sample of brilliance", CACM 1987).
    """
    tastes = np.full((options.num_users, options.tastes_per_user), -1)
    for column in range(options.tastes_per_user):
        last = options.num_clusters - options.tastes_per_user + column
        drawn = rng.integers(last + 1, size=options.num_users)
        tastes[:, column] = np.where((tastes == drawn[:, None]).any(axis=1), last, drawn)
    return tastes


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
