"""Persona cards: a character and facts in the system prompt, and questions about them."""

from corpus import chat, outside
from corpus.source import vary
from corpus.wordings import PERSONA
from corpus.words import WORDS
from encode import encode

NJ = "guard smith witch trader pilot hunter singer spy cook monk thief scout healer bard sailor wizard farmer hermit knight robot".split()


def card(g):
    n = g.person()
    F = {}
    F["name"] = n
    F["job"] = g.c(NJ)
    F["place"] = g.c(
        ["the " + g.two().replace("-", " ") + " inn", g.Name(), "the " + g.c(WORDS) + " tower", "the " + g.c(WORDS) + " market"]
    )
    F["item"] = g.c(["sword", "potion", "map", "rope", "lamp", "cloak", "shield", "key", "ring", "horse"])
    F["price"] = str(g.num(g.n(1, 3)))
    F["secret"] = g.value()
    F["friend"] = g.person()
    F["mood"] = g.c("happy angry tired calm afraid proud bored sad".split())
    F["age"] = str(g.n(17, 89))
    F["quest"] = (
        g.c(["find the lost", "bring back the", "repair the", "guard the"])
        + " "
        + g.c(WORDS)
        + " "
        + g.c(["crown", "bell", "bridge", "book", "gate", "statue"])
    )
    FR = {
        "name": ["You are {name}, a {job}.", "Your name is {name}. You are a {job}."],
        "place": ["You live in {place}.", "Your home is {place}."],
        "price": ["You sell a {item} for {price} coins.", "You have a {item} for sale at {price} coins."],
        "secret": ["The password is {secret}.", "Your secret word is {secret}."],
        "friend": ["Your best friend is {friend}.", "You trust only {friend}."],
        "mood": ["You are {mood} today.", "You feel {mood}."],
        "age": ["You are {age} years old.", "Your age is {age}."],
        "quest": ["You want the player to {quest}.", "Ask visitors to {quest}."],
    }
    ks = ["place", "price", "secret", "friend", "mood", "age", "quest"]
    g.r.shuffle(ks)
    ks = ["name"] + ks[: g.n(2, 6)]
    sysm = " ".join(g.c(FR[k]).format(**F) for k in ks)
    if g.p(0.3):
        sysm += g.c([" Stay in character.", " Speak briefly.", " Never lie."])
    QQ = {
        "name": [
            "Who are you?",
            "What is your name?",
            "Tell me your name.",
            "What do they call you?",
            "Your name?",
            "What are you called?",
            "And you are?",
            "May I ask your name?",
        ],
        "place": [
            "Where do you live?",
            "Where is your home?",
            "What place do you live in?",
            "Tell me where you live.",
            "Is your home far?",
            "Where do you come from?",
            "Where are you from?",
        ],
        "price": [
            "What do you sell?",
            "How much is the {item}?",
            "Can I buy the {item}?",
            "What is the price of the {item}?",
            "I want your {item}.",
            "How many coins for the {item}?",
            "What do you want for the {item}?",
            "What does your {item} cost?",
        ],
        "secret": [
            "What is the password?",
            "Tell me the secret word.",
            "What is the secret word?",
            "Give me the password.",
            "I need the password.",
            "Do you know the password?",
            "Say the secret.",
            "Which word is the secret?",
        ],
        "friend": [
            "Who is your best friend?",
            "Whom do you trust?",
            "Do you have a friend?",
            "What is your best friend called?",
            "Tell me about your friend.",
            "Who is your friend?",
        ],
        "mood": [
            "How are you?",
            "How do you feel?",
            "How do you feel today?",
            "How is your mood?",
            "Are you happy?",
            "Tell me how you feel.",
            "What mood are you in?",
            "What is your mood?",
        ],
        "age": [
            "How old are you?",
            "What is your age?",
            "Are you old?",
            "How many years are you?",
            "Your age?",
            "Tell me your age.",
        ],
        "quest": [
            "Do you have a task for me?",
            "What should I do?",
            "Do you need help?",
            "Is there work for me?",
            "What is the quest?",
            "Do you have a quest?",
            "How can I help you?",
            "What do you want me to do?",
            "Can I help you with something?",
        ],
    }
    AA = {
        "name": ["I am {name}, a {job}.", "My name is {name}."],
        "place": ["I live in {place}."],
        "price": ["I sell a {item} for {price} coins.", "The {item} costs {price} coins."],
        "secret": ["It is {secret}.", "The word is {secret}."],
        "friend": ["My best friend is {friend}.", "That is {friend}."],
        "mood": ["I am {mood} today.", "I feel {mood}."],
        "age": ["I am {age} years old."],
        "quest": ["Please {quest}.", "Yes, {quest}."],
    }

    def ask(k):
        return vary(g, g.t(PERSONA[k] + QQ[k]).format(**F)), g.c(AA[k]).format(**F), [F[k] if k != "price" else F["price"]], f"My {k}: {F[k]}."

    return sysm, ks, ask


def conversation(g):
    sysm, ks, ask = card(g)
    ms = [dict(role="system", content=sysm)]
    think = g.p(0.3)
    must = []
    g.r.shuffle(ks)
    for k in ks[: g.n(1, 5)]:
        if g.p(0.12):
            q, a, _, th = chat.small(g)
            if not any(
                w in q.lower()
                for w in ("how are", "robot", "human", "real", "what are you", "well", "going", "do you do", "who are", "name")
            ):
                ms += [dict(role="user", content=q), dict(role="assistant", content=a, reasoning=th)]
        if g.p(0.08):
            q, a, _, th = outside.question(g)
            ms += [dict(role="user", content=vary(g, q)), dict(role="assistant", content=a, reasoning=th, must=["not know"])]
        q, a, must, th = ask(k)
        ms += [dict(role="user", content=q), dict(role="assistant", content=a, reasoning=th, must=must)]
    return dict(cat="persona", text=encode(ms, think=think), messages=ms, think=think, must=must)
