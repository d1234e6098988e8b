"""Small sums and logic, with steps when thinking."""

from corpus import chat, world
from corpus.source import vary
from corpus.sumwords import MORE
from corpus.words import FIRST, THINGS
from encode import encode


def prob(g):
    n1, n2 = g.c(FIRST), g.c(FIRST)
    while n2 == n1:
        n2 = g.c(FIRST)
    th = g.c(THINGS)
    k = g.n(0, 9)

    def pair(a, b):
        return g.split(lambda: (g.n(*a), g.n(*b)))

    if k in (0, 1, 3):
        st = [
            "{n} has {a} {t}.",
            "{n} had {a} {t}.",
            "There are {a} {t} in a box.",
            "{n} owns {a} {t}.",
            "{n} starts with {a} {t}.",
            "A shelf holds {a} {t}.",
            "We have {a} {t}.",
            "{a} {t} lie on the table.",
            "In the shop there are {a} {t}.",
            "At first there were {a} {t}.",
        ]
        ad = [
            "{n} finds {b} more.",
            "{m} gives {n} {b} more.",
            "{n} buys {b} more.",
            "Then {b} more arrive.",
            "{n} gets {b} more.",
            "{n} adds {b}.",
            "{b} new ones come in.",
            "{m} brings {b} more.",
            "After that {b} are added.",
        ]
        su = [
            "{n} gives {b} to {m}.",
            "{n} loses {b}.",
            "Then {b} are sold.",
            "{m} takes {b} away.",
            "{b} of them break.",
            "{n} throws {b} away.",
            "{n} sells {b}.",
            "After that {b} are lost.",
            "{m} steals {b}.",
        ]
        en = [
            "How many {t} does {n} have now?",
            "How many {t} are there?",
            "How many {t} are left?",
            "What is the number of {t} now?",
            "Count the {t}.",
            "How many {t} is that?",
            "How many {t} are there in the end?",
            "How many {t} remain?",
        ]
        x, y = pair((5, 80), (2, 30))
        tot = x
        ops = []
        steps = []
        for i in range(1 if k < 3 else g.n(2, 3)):
            z = y if i == 0 else g.n(2, 30)
            sub = g.p(0.5) and tot - z > 0
            ops.append((su if sub else ad, z))
            steps.append(f"{tot} {'-' if sub else '+'} {z} = {tot - z if sub else tot + z}.")
            tot += -z if sub else z
        ph = g.combo(st, *[o for o, _ in ops], en)
        q = " ".join([ph[0].replace("{a}", str(x))] + [p.replace("{b}", str(z)) for p, (_, z) in zip(ph[1:-1], ops)] + [ph[-1]])
        s = " ".join(steps)
        r = tot
        a = x
        b = 0
    elif k == 2:
        a, b = g.n(2, 12), g.n(2, 12)
        q = g.t(
            MORE["times"]
            + [
                "{n} has {a} boxes with {b} {t} each. How many {t} in total?",
                "Each of {a} shelves holds {b} {t}. How many {t} are there?",
                "{n} packs {b} {t} in every bag. How many {t} are in {a} bags?",
                "There are {a} rows of {b} {t}. How many {t} are there?",
                "{a} bags hold {b} {t} each. How many {t} are there?",
                "{n} buys {a} packs with {b} {t} in each pack. How many {t} does {n} have?",
                "There are {a} rows of {b} {t}. How many {t} is that?",
            ]
        )
        s = f"{a} x {b} = {a*b}."
        r = a * b
    elif k == 4:
        a, b = g.n(2, 9), g.n(2, 12)
        c = a * b + g.n(1, 40)
        q = g.t(
            MORE["change"]
            + [
                "{n} buys {a} {t} for {b} coppers each and pays with {c} coppers. How much change does {n} get?",
                "{a} {t} cost {b} coppers each. {n} gives {c} coppers. How much change?",
                "{n} has {c} coppers and buys {a} {t} at {b} coppers each. How many coppers are left?",
            ]
        )
        s = f"{a} x {b} = {a*b}. {c} - {a*b} = {c-a*b}."
        r = c - a * b
    elif k == 5:
        b, r = g.n(2, 9), g.n(2, 12)
        a = b * r
        q = g.t(
            MORE["share"]
            + [
                "{n} shares {a} {t} equally among {b} friends. How many {t} does each get?",
                "{a} {t} are packed in {b} equal boxes. How many {t} are in a box?",
                "If {b} people split {a} {t}, how many {t} does each one get?",
            ]
        )
        s = f"{a} / {b} = {r}."
    elif k == 6:
        i1, i2 = g.r.sample(list(world.ITEMS), 2)
        p1, p2 = world.ITEMS[i1][0], world.ITEMS[i2][0]
        a = g.n(1, 3)
        q = (
            g.t(
                MORE["cost"]
                + [
                    "How much do {a} x {i} and 1 x {j} cost in Saltmere?",
                    "What do I pay for {a} x {i} and 1 x {j}?",
                    "I want {a} x {i} and 1 x {j}. What is the total?",
                ]
            )
            .replace("{i}", i1)
            .replace("{j}", i2)
        )
        r = a * p1 + p2
        s = f"{i1} is {p1}. {i2} is {p2}. {a} x {p1} = {a*p1}. {a*p1} + {p2} = {r}."
        th = "coppers"
    elif k == 7:
        ps = g.r.sample(FIRST, 3)
        adj, w, l = g.c([("taller", "tallest", "shortest"), ("older", "oldest", "youngest"), ("faster", "fastest", "slowest")])
        top = g.p(0.5)
        q = (
            g.c(
                [
                    f"{{{ps[0]}}} is {adj} than {{{ps[1]}}}. {{{ps[1]}}} is {adj} than {{{ps[2]}}}. ",
                    f"{{{ps[1]}}} is {adj} than {{{ps[2]}}}. {{{ps[0]}}} is {adj} than {{{ps[1]}}}. ",
                ]
            )
            + f"Who is the {w if top else l}?"
        )
        r = ps[0] if top else ps[2]
        return q, f"{ps[0]} > {ps[1]} > {ps[2]}.", f"{r} is the {w if top else l}.", r
    elif k == 8:
        a = g.n(1, 12)
        b = g.n(1, 11)
        q = g.t(
            MORE["hour"]
            + [
                "A boat leaves at {a} o'clock and sails {b} hours. At which hour does it arrive?",
                "It is {a} o'clock. {n} comes in {b} hours. At which hour is that?",
                "{n} starts work at {a} o'clock and works {b} hours. At which hour is {n} done?",
            ]
        )
        r0 = a + b
        r = (r0 - 1) % 12 + 1
        s = f"{a} + {b} = {r0}." + (f" {r0} - 12 = {r0-12}." if r0 > 12 else "")
        q = q.format(a=a, b=b, n=n1)
        return q, s, f"At {r} o'clock.", f"{r} o'clock"
    else:
        xs = g.split(lambda: tuple(g.r.sample(range(1, 99), g.n(3, 5))))
        big = g.p(0.5)
        so = sorted(xs)
        q = g.t(MORE["extreme"] + ["Which number is the {w}: {x}?", "What is the {w} of {x}?", "Find the {w} number in {x}."]).format(
            w="largest" if big else "smallest", x=", ".join(map(str, xs))
        )
        r = so[-1] if big else so[0]
        return q, "Sorted: " + ", ".join(map(str, so)) + ".", f"It is {r}.", str(r)
    q = q.format(n=n1, m=n2, t=th, a=a, b=b if k != 6 else 0, c=c if k == 4 else 0)
    unit = "coppers" if k in (4, 6) else th
    return q, s, g.c([f"The answer is {r} {unit}.", f"{r} {unit}."]), str(r)


def calc(g):
    a, b = g.split(lambda: (g.n(1, 99), g.n(1, 99)))
    k = g.n(0, 2)
    if k == 2:
        a, b = g.n(2, 12), g.n(2, 12)
    if k == 1 and b > a:
        a, b = b, a
    o, r = [("+", a + b), ("-", a - b), ("x", a * b)][k]
    w = [["plus", "and"], ["minus", "minus"], ["times", "times"]][k]
    q = g.t(
        [
            "What is {a} {o} {b}?",
            "{a} {o} {b}",
            "Compute {a} {o} {b}.",
            "{a} {o} {b} = ?",
            "How much is {a} {o} {b}?",
            "What is {a} {w} {b}?",
            "How much is {a} {w} {b}?",
            "Please calculate {a} {w} {b}.",
        ]
    ).format(a=a, b=b, o=o, w=w[0])
    return q, f"{a} {o} {b} = {r}.", g.c([f"It is {r}.", f"{r}."]), str(r)


def conversation(g, think=None):
    ms = []
    s = g.c(chat.SYSTEM)
    if s:
        ms.append(dict(role="system", content=s))
    think = g.p(0.65) if think is None else think
    for _ in range(g.n(1, 3) if not g.ho and g.p(0.4) else 1):
        q, st, a, r = calc(g) if g.p(0.15) else prob(g)
        q = vary(g, q, 0.2).replace("{", "").replace("}", "")  # braces keep names from noise
        ms += [dict(role="user", content=q), dict(role="assistant", content=a, reasoning=st)]
    return dict(cat="sums", text=encode(ms, think=think), messages=ms, think=think, must=[r])
