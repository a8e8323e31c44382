"""Makes llmtune/demo/instructions.jsonl, small questions with correct answers: python scripts/demo_instructions.py"""

import json
import random
from collections.abc import Callable
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "llmtune" / "demo" / "instructions.jsonl"
NUM_ROWS = 2_400


def words(text: str) -> list[str]:
    return text.split()


WORDS = words(
    "apple bread cloud dream eagle flame grape honey island jacket kettle lemon market needle orange pencil "
    "rabbit silver tunnel velvet window yellow zebra basket candle dragon engine feather garden hammer insect "
    "jungle kitchen ladder mirror napkin oyster pillow quarrel river saddle ticket umbrella village whistle "
    "anchor bottle carrot desert elbow forest goblet harbour iceberg journal kitten lantern meadow nostril "
    "orchard parrot quilt ribbon sparrow temple uncle valley wallet anvil"
)
PLURALS = dict(
    pair.split(":")
    for pair in words(
        "child:children mouse:mice goose:geese tooth:teeth foot:feet man:men woman:women ox:oxen leaf:leaves "
        "knife:knives wolf:wolves shelf:shelves city:cities baby:babies story:stories berry:berries box:boxes "
        "fox:foxes bus:buses glass:glasses dish:dishes church:churches potato:potatoes tomato:tomatoes hero:heroes "
        "sheep:sheep fish:fish deer:deer cactus:cacti book:books house:houses table:tables tree:trees day:days "
        "key:keys toy:toys roof:roofs piano:pianos photo:photos"
    )
)
OPPOSITES = dict(
    pair.split(":")
    for pair in words(
        "hot:cold big:small early:late fast:slow high:low light:dark old:new open:closed rich:poor strong:weak "
        "wet:dry full:empty loud:quiet near:far thick:thin wide:narrow deep:shallow hard:soft heavy:light "
        "clean:dirty happy:sad long:short sharp:blunt sweet:bitter young:old brave:cowardly cheap:expensive"
    )
)
PASTS = dict(
    pair.split(":")
    for pair in words(
        "go:went see:saw eat:ate take:took come:came write:wrote run:ran give:gave find:found think:thought "
        "buy:bought bring:brought sing:sang swim:swam drive:drove speak:spoke break:broke know:knew fly:flew "
        "begin:began walk:walked play:played carry:carried stop:stopped dance:danced plan:planned try:tried "
        "keep:kept sleep:slept teach:taught catch:caught build:built lose:lost win:won"
    )
)
KINDS = {
    "animal": words("horse lion whale sparrow beetle salmon tiger frog"),
    "fruit": words("apple pear cherry banana plum mango peach fig"),
    "tool": words("hammer saw drill wrench chisel screwdriver file pliers"),
    "musical instrument": words("violin flute trumpet drum harp cello piano oboe"),
    "vehicle": words("bicycle lorry tram ferry tractor canoe aeroplane scooter"),
}
UNITS = [
    ("kilometres", "metres", 1000),
    ("metres", "centimetres", 100),
    ("kilograms", "grams", 1000),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("litres", "millilitres", 1000),
]
DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words("January February March April May June July August September October November December")
LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
VOWELS = "aeiou"

Row = tuple[str, str, str]  # instruction, input, output


def arithmetic(rng: random.Random) -> Row:
    a, b = rng.randrange(2, 100), rng.randrange(2, 100)
    kind = rng.randrange(3)
    if kind == 0:
        asked = rng.choice([f"What is {a} plus {b}?", f"Add {a} and {b}.", f"Calculate {a} + {b}."])
        return asked, "", f"{a} + {b} = {a + b}."
    if kind == 1:
        a, b = max(a, b), min(a, b)
        asked = rng.choice([f"What is {a} minus {b}?", f"Subtract {b} from {a}.", f"Calculate {a} - {b}."])
        return asked, "", f"{a} - {b} = {a - b}."
    a, b = a % 12 + 2, b % 12 + 2
    asked = rng.choice([f"What is {a} times {b}?", f"Multiply {a} by {b}.", f"Calculate {a} * {b}."])
    return asked, "", f"{a} * {b} = {a * b}."


def units(rng: random.Random) -> Row:
    large, small, factor = rng.choice(UNITS)
    n = rng.randrange(2, 60)
    if rng.random() < 0.5:
        asked = rng.choice([f"Convert {n} {large} to {small}.", f"How many {small} are {n} {large}?"])
        return asked, "", f"{n} {large} are {n * factor} {small}."
    asked = rng.choice([f"Convert {n * factor} {small} to {large}.", f"How many {large} are {n * factor} {small}?"])
    return asked, "", f"{n * factor} {small} are {n} {large}."


def spelling(rng: random.Random) -> Row:
    word = rng.choice(WORDS)
    asked = rng.choice(["Spell the word letter by letter.", "Write the letters of this word with hyphens between them."])
    return asked, word, "-".join(word)


def backwards(rng: random.Random) -> Row:
    word = rng.choice(WORDS)
    return rng.choice(["Write this word backwards.", "Reverse the letters of the word."]), word, word[::-1]


def plural(rng: random.Random) -> Row:
    one, many = rng.choice([*PLURALS.items()])
    asked = rng.choice([f"What is the plural of '{one}'?", f"Give the plural of the noun '{one}'."])
    return asked, "", f"The plural of '{one}' is '{many}'."


def opposite(rng: random.Random) -> Row:
    word, other = rng.choice([*OPPOSITES.items()])
    asked = rng.choice([f"What is the opposite of '{word}'?", f"Name an antonym of '{word}'."])
    return asked, "", f"The opposite of '{word}' is '{other}'."


def past(rng: random.Random) -> Row:
    verb, form = rng.choice([*PASTS.items()])
    asked = rng.choice([f"What is the past tense of '{verb}'?", f"Put the verb '{verb}' into the past tense."])
    return asked, "", f"The past tense of '{verb}' is '{form}'."


def sorting(rng: random.Random) -> Row:
    if rng.random() < 0.5:
        some = rng.sample(WORDS, rng.randrange(3, 6))
        return "Sort these words alphabetically.", ", ".join(some), ", ".join(sorted(some))
    numbers = rng.sample(range(1, 100), rng.randrange(3, 7))
    is_down = rng.random() < 0.5
    asked = f"Sort these numbers from the {'largest to the smallest' if is_down else 'smallest to the largest'}."
    return asked, ", ".join(map(str, numbers)), ", ".join(map(str, sorted(numbers, reverse=is_down)))


def counting(rng: random.Random) -> Row:
    word = rng.choice(WORDS)
    kind = rng.randrange(3)
    if kind == 0:
        return f"How many letters does the word '{word}' have?", "", f"The word '{word}' has {len(word)} letters."
    if kind == 1:
        num = sum(letter in VOWELS for letter in word)
        return f"How many vowels does the word '{word}' have?", "", f"The word '{word}' has {num} vowel{'s' * (num != 1)}."
    letter = rng.choice(word)
    num = word.count(letter)
    asked = f"How often does the letter '{letter}' occur in '{word}'?"
    return asked, "", f"The letter '{letter}' occurs {num} time{'s' * (num != 1)} in '{word}'."


def kind_of(rng: random.Random) -> Row:
    kind, members = rng.choice([*KINDS.items()])
    others = [word for other, some in KINDS.items() if other != kind for word in some if word not in members]
    choice = [rng.choice(members), *rng.sample(others, 3)]
    found = choice[0]
    rng.shuffle(choice)
    article = "an" if kind[0] in VOWELS else "a"
    return f"Which of these words names {article} {kind}?", ", ".join(choice), f"'{found}' names {article} {kind}."


def largest(rng: random.Random) -> Row:
    numbers, which = rng.sample(range(1, 1000), 4), rng.choice(["largest", "smallest"])
    found = max(numbers) if which == "largest" else min(numbers)
    return f"Which of these numbers is the {which}?", ", ".join(map(str, numbers)), f"The {which} number is {found}."


def case(rng: random.Random) -> Row:
    small = " ".join(rng.sample(WORDS, 3))
    if rng.random() < 0.5:
        return "Write this in capital letters.", small, small.upper()
    return "Write this in small letters.", small.upper(), small


def calendar(rng: random.Random) -> Row:
    kind = rng.randrange(3)
    if kind == 0:
        day, away = rng.randrange(7), rng.randrange(1, 7)
        asked = f"Which day comes {away} day{'s' * (away != 1)} after {DAYS[day]}?"
        return asked, "", f"It is {DAYS[(day + away) % 7]}."
    month = rng.randrange(12)
    if kind == 1:
        return f"Which month follows {MONTHS[month]}?", "", f"{MONTHS[(month + 1) % 12]} follows {MONTHS[month]}."
    asked = f"How many days does {MONTHS[month]} have in a year that is no leap year?"
    return asked, "", f"{MONTHS[month]} has {LENGTHS[month]} days."


def parity(rng: random.Random) -> Row:
    n = rng.randrange(2, 1000)
    return f"Is {n} even or odd?", "", f"{n} is {'odd' if n % 2 else 'even'}."


def sequence(rng: random.Random) -> Row:
    start, step = rng.randrange(1, 30), rng.randrange(2, 12)
    numbers = [start + i * step for i in range(5)]
    return "Which number comes next?", ", ".join(map(str, numbers[:4])), f"The next number is {numbers[4]}."


KINDS_OF_ROWS: list[Callable[[random.Random], Row]] = [
    arithmetic, units, spelling, backwards, plural, opposite, past, sorting, counting, kind_of, largest, case, calendar,
    parity, sequence,
]  # fmt: skip


def main() -> None:
    rng = random.Random(0)
    rows: dict[tuple[str, str], str] = {}
    while len(rows) < NUM_ROWS:
        instruction, given, output = rng.choice(KINDS_OF_ROWS)(rng)
        rows.setdefault((instruction, given), output)
    lines = [{"instruction": asked, "input": given, "output": output} for (asked, given), output in rows.items()]
    FILE.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
