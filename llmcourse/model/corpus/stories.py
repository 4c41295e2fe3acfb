"""The texts whose length nobody can know from the prompt: stories, explanations, small talk.

A story is one to twelve paragraphs, an explanation a few sentences of many: how many is drawn anew for each sample and
the prompt does not tell. A model trained on them must therefore sample its own length, and the same prompt gives
answers that differ tenfold. This is what makes output length a thing to be predicted, not read off.

Reference: Eldan and Li, "TinyStories" (2023). Weeks 1 and 9.
"""

from __future__ import annotations

from random import Random

from llmcourse.model.corpus.phrasing import Draft, ask

NAMES = ("Lin", "Mia", "Tom", "Ben", "Ada", "Max", "Zoe", "Sam", "Kim", "Leo", "Amy", "Dan")
HEROES = ("fox", "cat", "dog", "bear", "robot", "girl", "boy", "farmer", "doctor", "dragon", "teacher", "pilot")
PLACES = ("forest", "village", "river", "garden", "mountain", "city", "school", "market", "beach", "farm")
THINGS = ("map", "key", "lamp", "book", "boat", "bell", "box", "coin", "letter", "drum", "hat", "ring")
MOODS = ("happy", "sad", "tired", "brave", "hungry", "quiet", "proud", "afraid", "kind", "curious")

OPENINGS = (
    "Once upon a time there was a {h} named {n}.", "There was once a {h} called {n}.", "{n} was a {m} {h}.",
    "Long ago a {h} named {n} lived near the {p}.", "In a small {p} lived a {h} whose name was {n}.",
)  # fmt: skip
EVENTS = (
    "One day {n} found a {t} near the {p}.", "{n} walked to the {p} to look for a {t}.", "The {t} was old and {m2}.",
    "{n} felt {m} and sat down by the {p}.", "A friend came and asked about the {t}.", "The wind was cold that night.",
    "{n} gave the {t} to a friend.", "They went to the {p} together.", "It rained all day, so {n} stayed at home.",
    "Then {n} heard a strange noise from the {p}.", "{n} was {m} but did not stop.", "The way to the {p} was long.",
    "At the {p} a {h2} was waiting.", "The {h2} said that the {t} was lost.", "{n} wanted to help the {h2}.",
    "They shared some bread and talked until dark.", "In the morning the sun came up over the {p}.",
    "{n} opened the {t} and saw a light.", "Nobody knew where the {t} came from.", "The {h2} was {m} and thanked {n}.",
)  # fmt: skip
ENDINGS = (
    "In the end {n} was {m} and went home.", "From that day on {n} and the {h2} were friends.", "The end.",
    "And {n} never forgot the {t}.", "That night {n} slept well.",
)  # fmt: skip
STORY = (
    "Tell me a story about a {h}.", "Write a story about a {h}.", "Tell a story about a {h} and a {t}.",
    "Tell me about a {h} in the {p}.", "I want to hear a story about a {h}.", "Make up a story about a {h} at the {p}.",
    "Write a tale of a {h} and a {h2}.", "Tell me a story.", "Write something about a {m} {h}.",
)  # fmt: skip

SUBJECTS_CHINESE = ("狐狸", "小猫", "小狗", "机器人", "女孩", "男孩", "农民", "老师", "老虎", "兔子", "医生", "大象")
PLACES_CHINESE = ("森林", "村子", "河边", "花园", "山上", "学校", "海边", "城里")
EVENTS_CHINESE = (
    "有一天,{h}来到{p}。", "{h}找到了一本书。", "天下雨了,{h}回到家里。", "{h}很高兴。", "{h}有一点害怕。",
    "朋友来了,他们一起去{p}。", "风很大,路很长。", "{h}听到一个声音。", "他们一起吃面包。", "太阳出来了。",
)  # fmt: skip
STORY_CHINESE = (
    "讲一个{h}的故事。", "给我讲个关于{h}的故事。", "写一个{h}在{p}的故事。", "讲讲{h}去{p}的故事。",
    "我想听{h}在{p}的故事。",
)  # fmt: skip


def _cast(rng: Random) -> dict[str, str]:
    hero, other = rng.sample(HEROES, 2)
    return {"n": rng.choice(NAMES), "h": hero, "h2": other, "p": rng.choice(PLACES), "t": rng.choice(THINGS)}


def _sentence(rng: Random, templates: tuple[str, ...], cast: dict[str, str]) -> str:
    return rng.choice(templates).format(**cast, m=rng.choice(MOODS), m2=rng.choice(MOODS))


def _paragraphs(rng: Random, stop: float, most: int) -> int:
    """How many paragraphs follow: after each one the story stops with probability `stop`."""
    number = 1
    while number < most and rng.random() >= stop:
        number += 1
    return number


def story(rng: Random) -> Draft:
    """A story of one to twelve paragraphs; the number is not in the prompt."""
    cast = _cast(rng)
    prompt = ask(rng, STORY, **cast, m=rng.choice(MOODS))
    paragraphs = [
        " ".join(_sentence(rng, EVENTS, cast) for _ in range(rng.randint(2, 4)))
        for _ in range(_paragraphs(rng, 0.28, 12))
    ]
    paragraphs[0] = f"{_sentence(rng, OPENINGS, cast)} {paragraphs[0]}"
    return Draft(prompt, "\n\n".join([*paragraphs, _sentence(rng, ENDINGS, cast)]))


def story_chinese(rng: Random) -> Draft:
    """The same in Chinese: one to twenty sentences."""
    cast = {"h": rng.choice(SUBJECTS_CHINESE), "p": rng.choice(PLACES_CHINESE)}
    sentences = [rng.choice(EVENTS_CHINESE).format(**cast) for _ in range(_paragraphs(rng, 0.15, 20))]
    return Draft(ask(rng, STORY_CHINESE, **cast), f"从前有一个{cast['h']}。" + "".join(sentences))


EXPLANATIONS: dict[str, tuple[str, ...]] = {
    "how rain forms": (
        "The sun warms the sea.", "Water rises into the air as vapour.", "High up the air is cold.",
        "The vapour turns into small drops.", "Many drops make a cloud.", "The drops join and grow heavy.",
        "Then they fall as rain.", "The rain flows back to the sea.",
    ),
    "why the sky is blue": (
        "Light from the sun holds all colours.", "The air bends blue light more than red light.",
        "Blue light is sent in all directions.", "So blue comes to our eyes from every side.",
        "In the evening the light goes a longer way.", "Then only red is left, and the sky turns red.",
    ),
    "how bread is made": (
        "First mix flour, water and salt.", "Add a little yeast.", "Knead the dough with both hands.",
        "Let it rest until it has grown.", "Form a loaf.", "Bake it in a hot oven.", "Let it cool before you cut it.",
    ),
    "how a plant grows": (
        "A seed lies in the soil.", "Water makes it open.", "A root goes down.", "A stem goes up to the light.",
        "Leaves turn light into food.", "A flower opens.", "The flower makes new seeds.",
    ),
    "how a computer works": (
        "A computer follows a list of steps.", "The steps are kept in memory.",
        "A processor reads one step at a time.",
        "It adds and compares numbers.", "The result goes back to memory.", "A screen shows it to us.",
        "All this happens a billion times a second.",
    ),
    "why we sleep": (
        "The body needs rest.", "In sleep the heart beats slowly.", "The brain sorts what we saw.",
        "Muscles are repaired.", "Without sleep we make mistakes.", "Children need more of it.",
    ),
    "how a language model answers": (
        "The prompt is cut into tokens.", "The model reads all of them at once.",
        "It keeps keys and values in a cache.",
        "Then it writes one token at a time.", "Each token is drawn from a distribution.",
        "The cache grows with every token.", "A special token ends the answer.",
    ),
    "how a bicycle stays up": (
        "A wheel that turns keeps its direction.", "The rider steers into the fall.", "Speed makes it easy.",
        "At rest the bicycle tips over.", "A child learns it in a day.",
    ),
}  # fmt: skip
REMARKS = (
    "That is the main idea.", "There is more to it, of course.", "You can see it yourself.", "It takes some time.",
    "People have known this for long.", "Ask me if you want to know more.", "This is true in every country.",
    "It is simple once you know it.", "Scientists still study it.", "For example, look around you today.",
)  # fmt: skip
EXPLAIN = ("Explain {x}.", "Tell me {x}.", "Can you explain {x}?", "Describe {x}.", "I want to know {x}.",
           "Do you know {x}?", "Please tell me {x}.")  # fmt: skip


def explain(rng: Random) -> Draft:
    """An explanation that keeps few or all of its sentences, and closes with any number of remarks."""
    topic = rng.choice(list(EXPLANATIONS))
    keep = rng.choice((0.3, 0.6, 1.0))
    sentences = [sentence for sentence in EXPLANATIONS[topic] if rng.random() < keep]
    remarks = rng.sample(REMARKS, min(10, _paragraphs(rng, 0.4, 11) - 1))
    return Draft(ask(rng, EXPLAIN, x=topic), " ".join(sentences + remarks) or REMARKS[0])


CHATS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("Hello", "Hi", "Hello!", "Hi there", "Good morning", "Hey"): (
        "Hello!", "Hi! How can I help you?", "Hello, what shall we do today?",
    ),
    ("How are you?", "How are you today?", "How do you do?"): (
        "Fine, thank you.", "I am well. And you?", "I am a small model, but I feel quite well today.",
    ),
    ("Who are you?", "What are you?", "What is your name?", "What can you do?"): (
        "I am course-tiny.", "I am course-tiny, a very small language model.",
        "I am course-tiny. I can count, sort, add, list things and tell stories.",
    ),
    ("Thank you.", "Thanks!", "Thanks a lot"): ("You are welcome.", "With pleasure!"),
    ("Goodbye.", "Bye", "See you"): ("Goodbye!", "See you soon."),
    ("你好", "你好!", "您好"): ("你好!", "你好,有什么可以帮你?"),
    ("你是谁?", "你叫什么名字?"): ("我是 course-tiny。", "我是 course-tiny,一个很小的语言模型。"),
}  # fmt: skip


def chat(rng: Random) -> Draft:
    """Small talk: one of a few short answers."""
    prompts = rng.choice(list(CHATS))
    return Draft(rng.choice(prompts), rng.choice(CHATS[prompts]))


def passage(rng: Random, sentences: int) -> tuple[list[str], dict[str, str]]:
    """A text to ask questions about: its sentences, the first of which names the hero, and its cast."""
    cast = _cast(rng)
    text = [_sentence(rng, OPENINGS[:2], cast)]
    while len(text) < sentences:
        sentence = _sentence(rng, EVENTS, cast)
        if sentence not in text:
            text.append(sentence)
    return text, cast
