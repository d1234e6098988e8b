"""Long contexts: ledgers, logs and notes, with questions about single lines; lists to read back."""

from corpus import world
from corpus.source import cap, vary
from corpus.words import COLORS, THINGS, WORDS
from encode import encode


def filler(g):
    x = g.n(0, 3)
    if x == 0:
        r = g.c(world.RES)
        return g.c(
            [
                f"{r['name']} was seen at {r['work']} today.",
                f"{r['name']} spent the evening with {r['hobby']}.",
                f"{r['name']} complained about {r['dislikes']}.",
            ]
        )
    if x == 1:
        s = g.c(world.SHIPS)
        return g.c([f"{cap(s['name'])} came in with {s['cargo']}.", f"{cap(s['name'])} left berth {s['berth']} at dawn."])
    if x == 2:
        e = g.c(world.EVENTS)
        return f"{cap(e['name'])} is on {e['day']} at {e['place']}."
    return g.c(
        [
            "The tide was low and the wind was mild.",
            "Fog came in from the sea.",
            "The gulls were loud.",
            "Nothing else happened.",
            "Rain fell on Mast Row.",
            "The bells rang twice.",
            "A cat slept on the wall.",
        ]
    )


def lines(g, kind, seen):
    """-> line, key, question templates, answer, value"""
    while True:
        if kind == 0:
            k = g.c([g.Name, g.two, lambda: g.Name() + " " + g.Name()])()
            v = g.value()
            if k not in seen:
                return (
                    f"{k}: {v}",
                    k,
                    [
                        "What is the value for {k}?",
                        "What is noted for {k}?",
                        "Which value belongs to {k}?",
                        "Find the entry for {k}.",
                    ],
                    ["The value for {k} is {v}.", "{k}: {v}"],
                    v,
                )
        elif kind == 1:
            k = "the " + g.c(WORDS).capitalize() + " " + g.syl(2, 2).capitalize()
            n = g.n(2, 999)
            th = g.c(THINGS)
            v = f"{n} {th}"
            if k not in seen:
                return (
                    f"[{g.clock()}] {cap(k)} unloaded {v} at berth {g.n(1, 40)}.",
                    k,
                    [
                        "What did {k} unload?",
                        "Which goods came off {k}?",
                        "How much did {k} unload and of what?",
                        "What was the cargo of {k}?",
                    ],
                    ["{k} unloaded {v}.", "It unloaded {v}."],
                    v,
                )
        elif kind == 2:
            k = g.Name()
            v = g.two() + "-" + str(g.n(10, 99))
            if k not in seen:
                return (
                    f"The password of {k} is {v}.",
                    k,
                    [
                        "What is the password of {k}?",
                        "Tell me the password of {k}.",
                        "Which password does {k} use?",
                        "I forgot the password of {k}.",
                    ],
                    ["The password of {k} is {v}.", "It is {v}."],
                    v,
                )
        elif kind == 3:
            k = g.code()
            v = g.person()
            if k not in seen:
                return (
                    f"Crate {k} belongs to {v}, weight {g.n(5, 900)} pounds.",
                    k,
                    [
                        "Who owns crate {k}?",
                        "To whom does crate {k} belong?",
                        "Whose crate is {k}?",
                        "Name the owner of crate {k}.",
                    ],
                    ["Crate {k} belongs to {v}.", "{v} owns crate {k}."],
                    v,
                )
        else:
            k = g.Name() + " " + g.Name()
            v = f"{g.c(COLORS)} {g.c(['door', 'hat', 'boat', 'coat', 'lamp', 'horse'])}"
            if k not in seen:
                return (
                    f"Dear friend, {k} bought a {v} for {g.n(3, 900)} coppers.",
                    k,
                    ["What did {k} buy?", "Which thing did {k} buy?", "What was bought by {k}?", "Tell me what {k} bought."],
                    ["{k} bought a {v}.", "A {v}."],
                    v,
                )


HEAD = [
    "Here is the ledger:",
    "This is the log of the harbour:",
    "Remember these notes:",
    "Read this list:",
    "The archive says:",
    "My notes:",
]
LTOK = [10.7, 24.1, 14.4, 22.7, 19.5]  # tokens per line, measured with the 2048 vocabulary
FTOK = 10.8


def conversation(g, ntok, nq=None, kind=None, two=None, think=None):
    """a context of about ntok tokens, then questions"""
    kind = g.n(0, 4) if kind is None else kind
    needle = g.p(0.25)
    seen = {}
    body = []
    tok = 30
    mix = g.p(0.2)
    while tok < ntok - 40:
        if needle and g.p(0.85):
            body.append(filler(g))
            tok += FTOK
            continue
        kk = g.n(0, 4) if mix else kind
        l = lines(g, kk, seen)
        seen[l[1]] = l
        body.append(l[0])
        tok += LTOK[kk]
    if not seen:
        l = lines(g, kind, seen)
        seen[l[1]] = l
        body.insert(g.n(0, len(body)), l[0])
    sep = "\n" if not needle or g.p(0.5) else " "
    ctx = g.c(HEAD) + "\n" + sep.join(body)
    keys = list(seen)
    ms = []
    insys = g.p(0.4)
    if insys:
        ms.append(dict(role="system", content=g.c(["You are a clerk. ", "You are a helpful assistant. ", ""]) + ctx))
    elif g.p(0.5):
        ms.append(dict(role="system", content="You are a helpful assistant."))
    nq = nq or (g.n(4, 10) if ntok < 900 else g.n(6, 14))
    think = g.p(0.2) if think is None else think
    first = True
    must = []
    for _ in range(nq):
        if two or (two is None and g.p(0.15) and len(keys) > 1):
            ks = g.r.sample(keys, 2) if len(keys) > 1 else keys * 2
            L = [seen[k] for k in ks]
            q = " And: ".join(g.t(l[2]).format(k=l[1]) for l in L)
            a = " ".join(cap(l[3][0].format(k=l[1], v=l[4])) for l in L)
            must = [l[4] for l in L]
            th = "; ".join(l[0] for l in L)
        elif g.p(0.06) and nq > 1:
            k = g.syl().capitalize()
            if k in seen:
                continue
            q = g.t(
                ["What is the value for {k}?", "What is the password of {k}?", "What did {k} buy?", "What is noted for {k}?"]
            ).format(k=k)
            a = f"There is no entry for {k}."
            th = f"{k} is not there."
            must = [a]
        elif g.p(0.08) and nq > 1 and len(body) > 4:
            i = g.n(0, len(body) - 3)
            n = g.n(2, 3)
            q = g.c(["Continue after this line: ", "Which lines follow this one? "]) + body[i]
            a = "\n".join(body[i + 1 : i + 1 + n])
            must = [a]
            th = "I copy the lines."
        else:
            l = seen[g.c(keys)]
            q = g.t(l[2]).format(k=l[1])
            a = cap(g.c(l[3]).format(k=l[1], v=l[4]))
            must = [l[4]]
            th = l[0]
        if first and not insys:
            q = ctx + "\n\n" + q
        first = False
        ms += [dict(role="user", content=q), dict(role="assistant", content=a, reasoning=th)]
    return dict(cat="long", text=encode(ms, think=think), messages=ms, think=think, must=must)


def repeat(g, ntok):
    """pure induction: read a list back"""
    kind = g.n(0, 4)
    seen = {}
    body = []
    tok = 30
    while tok < ntok / 2 - 20:
        l = lines(g, kind, seen)
        seen[l[1]] = l
        body.append(l[0])
        tok += LTOK[kind]
    t = "\n".join(body) or "nothing"
    if g.p(0.3):
        r = body[:]
        g.r.shuffle(r)
        q, a = "Shuffle these lines:\n" + t, "\n".join(r)
    else:
        q, a = "Read this back to me:\n" + t, t
    ms = [dict(role="user", content=q), dict(role="assistant", content=a, reasoning="I copy the lines.")]
    return dict(cat="repeat", text=encode(ms), messages=ms)
