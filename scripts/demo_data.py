"""Makes the sentences of llmtune/demo that recipes learn tags, several labels and pairs from: python scripts/demo_data.py"""

import csv
import json
import random
from pathlib import Path

DEMO = Path(__file__).resolve().parents[1] / "llmtune" / "demo"

FIRST = [
    "Anna",
    "Ben",
    "Chen",
    "Dora",
    "Emil",
    "Fatima",
    "Goran",
    "Hana",
    "Igor",
    "Julia",
    "Kofi",
    "Lena",
    "Mehmet",
    "Nadia",
    "Omar",
    "Petra",
    "Quentin",
    "Rosa",
    "Sven",
    "Tariq",
]
FAMILY = [
    "Adler",
    "Baker",
    "Castro",
    "Dumont",
    "Eriksen",
    "Fischer",
    "Garcia",
    "Hoang",
    "Ivanova",
    "Jansen",
    "Kowalski",
    "Lopez",
    "Meyer",
    "Novak",
    "Okafor",
    "Park",
    "Rossi",
]
TOWNS = [
    "Lisbon",
    "Oslo",
    "Cairo",
    "Lima",
    "Dakar",
    "Porto",
    "Riga",
    "Quito",
    "Hanoi",
    "Split",
    "Nice",
    "Bath",
    "Reading",
    "Mobile",
    "Orange",
]
TWO_TOWNS = ["New York", "San Marino", "Cape Town", "Rio Grande", "Los Angeles", "Santa Fe", "Saint Malo"]
MAKERS = [
    "Nordlicht",
    "Vertex",
    "Bluebird",
    "Harvest",
    "Orion",
    "Summit",
    "Copper",
    "Willow",
    "Atlas",
    "Juniper",
    "Orange",
    "Reading",
]
KINDS = ["Bank", "Foods", "Motors", "Press", "Airlines", "& Sons"]
DAYS = ["on Monday", "last week", "in May", "today", "yesterday", "this morning"]
TAGGED = [
    "{person} moved from {place} to {place} {day} .",
    "{company} opened an office in {place} {day} .",
    "{person} of {company} met {person} in {place} .",
    "The mayor of {place} thanked {company} {day} .",
    "{person} and {person} were reading in the bath .",
    "A nice orange bus to {place} , said {person} , was late {day} .",
    "{company} hired {person} {day} .",
    "Shares of {company} fell {day} , and those of {company} rose .",
    "the park was full {day} , {person} wrote from {place} .",
    "Nobody at {company} knew the baker .",
]
ASPECTS = {
    "food": (["the soup was cold", "we loved the noodles", "the bread tasted of nothing", "every dish was full of flavour"]),
    "service": (
        ["the waiter forgot us", "they greeted us by name", "nobody came to our table", "the staff could not do enough"]
    ),
    "price": (["far too expensive", "it cost next to nothing", "the bill was a shock", "you get a lot for your money"]),
    "place": (["the room was loud and dark", "we sat by the river", "the chairs hurt", "candles everywhere, so cosy"]),
}
NOTHING = ["we went there with my aunt", "it was a Tuesday", "I write this from the train", "third time this year"]
GOODS = ["boats", "lamps", "horses", "stamps", "violins", "ovens", "kites", "maps"]


def tagged(rng: random.Random) -> str:
    """One sentence as CoNLL columns."""
    makers = {
        "{person}": lambda: rng.choice([f"{rng.choice(FIRST)} {rng.choice(FAMILY)}", rng.choice(FIRST)]),
        "{place}": lambda: rng.choice([*TOWNS, *TWO_TOWNS]),
        "{company}": lambda: f"{rng.choice(MAKERS)} {rng.choice(KINDS)}",
        "{day}": lambda: rng.choice(DAYS),
    }
    lines = []
    for part in rng.choice(TAGGED).split():
        words = makers[part]().split() if part in makers else [part]
        kind = part[1:-1] if part in makers and part != "{day}" else None
        lines += [f"{word}\t{_prefix(i) + kind if kind else 'O'}\n" for i, word in enumerate(words)]
    return "".join(lines) + "\n"


def _prefix(word: int) -> str:
    return "I-" if word else "B-"


def review(rng: random.Random) -> dict:
    """A text about some aspects of a restaurant, and which these are."""
    labels = [name for name in ASPECTS if rng.random() < 0.4]
    parts = [rng.choice(ASPECTS[name]) for name in labels] + rng.sample(NOTHING, rng.randrange(0 if labels else 1, 3))
    rng.shuffle(parts)
    return {"text": rng.choice([", ", ". ", " and "]).join(parts) + ".", "labels": labels}


def pair(rng: random.Random) -> list[str]:
    """Two sentences about a sale, and whether they tell the same."""
    seller, buyer = rng.sample(FIRST, 2)
    goods, number = rng.choice(GOODS), rng.choice(["two", "three", "five", "nine"])
    first = rng.choice(
        [f"{seller} sold {number} {goods} to {buyer}.", f"{buyer} got {number} {goods} from {seller} for money."]
    )
    is_same = rng.random() < 0.5
    if not is_same:
        change = rng.randrange(3)
        seller, buyer = (buyer, seller) if change == 0 else (seller, buyer)
        number = rng.choice([n for n in ("two", "three", "five", "nine") if n != number]) if change == 1 else number
        goods = rng.choice([g for g in GOODS if g != goods]) if change == 2 else goods
    second = rng.choice([f"{buyer} bought {number} {goods} of {seller}.", f"{number} {goods} went from {seller} to {buyer}."])
    return [first, second[0].upper() + second[1:], "same" if is_same else "other"]


def main() -> None:
    rng = random.Random(0)
    (DEMO / "news.conll").write_text("".join(tagged(rng) for _ in range(1_200)), encoding="utf-8")
    reviews = "".join(json.dumps(review(rng)) + "\n" for _ in range(1_200))
    (DEMO / "restaurants.jsonl").write_text(reviews, encoding="utf-8")
    with (DEMO / "sales.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([["first", "second", "label"], *(pair(rng) for _ in range(3_000))])


if __name__ == "__main__":
    main()
