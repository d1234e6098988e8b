"""Operations on a short text: repeat, pick, list, JSON, membership."""

from corpus import chat
from corpus.source import dumps
from encode import encode
from corpus.words import CITY


def conversation(g):
    k = 6 if not g.ho and g.p(0.2) else g.n(0, 6)  # membership is the hardest
    L = [g.value() for _ in range(g.n(3, 9))]
    s = g.c(chat.SYSTEM)
    if k == 0:
        q, a = "Repeat after me: " + " ".join(L), " ".join(L)
    elif k == 1:
        i = g.n(0, 2)
        q, a = f"What is the {['first', 'second', 'third'][i]} word in: {' '.join(L)}?", f"{L[i]}"
    elif k == 2:
        q, a = f"What is the last word in: {' '.join(L)}?", L[-1]
    elif k == 3:
        n, y, c = g.person(), g.n(5, 90), (g.c(CITY) if not g.ho and g.p(0.4) else g.Name())
        q = g.t(
            [
                "Make JSON from this: {n} is {y} years old and lives in {c}.",
                "Write name, age and city as JSON: {n} lives in {c} and is {y} years old.",
                "Turn this into JSON with name, age and city: {n} from {c} is {y}.",
                "Name, age and city as JSON please. {n}, aged {y}, lives in {c}.",
                "Extract the name, age and city. {c} is the home of {n}, who is {y}.",
                "Give me JSON with name, age and city: {n}, {y}, from {c}.",
                "Extract name, age and city as JSON. {n} lives in {c} and is {y} years old.",
            ]
        ).format(n=n, y=y, c=c)
        a = dumps({"name": n, "age": y, "city": c})
    elif k == 4:
        i = g.n(0, len(L) - 2)
        q, a = f"Which word comes after {L[i]} in: {' '.join(L)}?", L[i + 1]
    elif k == 5:
        q, a = "Make a list of these: " + ", ".join(L), "\n".join("- " + x for x in L)
    else:
        i = g.n(0, len(L) - 1)
        o = g.value()
        inn = g.p(0.5)
        w = L[i] if inn else o
        q, a = f"Is {w} in this list? {', '.join(L)}", g.c(["Yes, it is."]) if w in L else "No, it is not."
    ms = ([dict(role="system", content=s)] if s else []) + [
        dict(role="user", content=q),
        dict(role="assistant", content=a, reasoning="I read the text again."),
    ]
    return dict(cat="textop", text=encode(ms, think=g.p(0.2)), messages=ms, must=[a])
