"""Makes llmtune/demo/preferences.jsonl, small requests with a better and a worse answer: python scripts/demo_preferences.py

The better answer is polite, short and right; the worse one is rude, rambles, or is wrong.
"""

import json
import random
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "llmtune" / "demo" / "preferences.jsonl"
NUM_ROWS = 600


def pairs(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


CAPITALS = pairs(
    "France:Paris Italy:Rome Spain:Madrid Portugal:Lisbon Norway:Oslo Sweden:Stockholm Finland:Helsinki Greece:Athens "
    "Egypt:Cairo Kenya:Nairobi Peru:Lima Chile:Santiago Cuba:Havana Japan:Tokyo Austria:Vienna Hungary:Budapest "
    "Ireland:Dublin Poland:Warsaw Latvia:Riga Vietnam:Hanoi"
)
OPPOSITES = pairs(
    "early:late empty:full loud:quiet heavy:light narrow:wide cheap:expensive brave:timid ancient:modern polite:rude "
    "shallow:deep generous:stingy sharp:blunt frequent:rare tidy:messy bitter:sweet"
)
LEGS = {"cow": 4, "horse": 4, "sparrow": 2, "salmon": 0, "beetle": 6, "spider": 8, "tortoise": 4, "dolphin": 0, "ant": 6}
SCOLDING = [
    "Seriously, you had to ask?",
    "Everybody else knows that.",
    "What a silly question.",
    "Look it up yourself next time.",
    "I have better things to do.",
]
ADDRESS = ["obviously", "as any child could tell you", "you really should know"]
RAMBLING = [
    "Well, there is a lot that could be said about this, and people have said a lot about it over the years.",
    "Before I answer, let me think about it for a while, because it is good to think about things.",
    "This reminds me of many other questions, which are also interesting in their own way.",
    "To be honest, it all depends on how you look at it, although in the end it may not matter.",
]
POLITE = ["Happy to help:", "Gladly:", "Of course:", "With pleasure:"]


def question(rng: random.Random) -> tuple[str, str, str]:
    """What is asked, the right answer as a sentence, and a wrong one."""
    match rng.randrange(5):
        case 0:
            country, other = rng.sample(sorted(CAPITALS), 2)
            say = f"the capital of {country} is {{}}."
            return f"What is the capital of {country}?", say.format(CAPITALS[country]), say.format(CAPITALS[other])
        case 1:
            word, other = rng.sample(sorted(OPPOSITES), 2)
            say = f"the opposite of '{word}' is '{{}}'."
            return f"What is the opposite of '{word}'?", say.format(OPPOSITES[word]), say.format(OPPOSITES[other])
        case 2:
            a, b = rng.randrange(2, 60), rng.randrange(2, 60)
            say = f"{a} plus {b} is {{}}."
            return f"How much is {a} plus {b}?", say.format(a + b), say.format(a + b + rng.choice([-10, -1, 1, 2, 10]))
        case 3:
            animal = rng.choice(sorted(LEGS))
            one = f"an {animal}" if animal == "ant" else f"a {animal}"
            say = f"{one} has {{}} legs."
            wrong = rng.choice([number for number in (0, 2, 4, 6, 8) if number != LEGS[animal]])
            return f"How many legs does {one} have?", say.format(LEGS[animal]), say.format(wrong)
        case _:
            words = rng.sample(sorted(OPPOSITES), 3)
            say = "in alphabetical order: {}."
            wrong = rng.choice([order for order in (words, words[::-1]) if order != sorted(words)])
            asked = f"Put these words in alphabetical order: {', '.join(words)}."
            return asked, say.format(", ".join(sorted(words))), say.format(", ".join(wrong))


def pair(rng: random.Random) -> dict[str, str]:
    """One row: a prompt, and both answers."""
    prompt, right, wrong = question(rng)
    chosen = f"{rng.choice(POLITE)} {right}"
    match rng.randrange(4):
        case 0:
            rejected = f"{rng.choice(SCOLDING)} {right[0].upper()}{right[1:]}"
        case 1:
            rejected = f"{right[0].upper()}{right[1:-1]}, {rng.choice(ADDRESS)}. {rng.choice(SCOLDING)}"
        case 2:
            rejected = f"{' '.join(rng.sample(RAMBLING, 2))} So {right}"
        case _:
            rejected = f"{rng.choice(POLITE)} {wrong}"
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def main() -> None:
    rng = random.Random(0)
    rows = [pair(rng) for _ in range(NUM_ROWS)]
    FILE.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
