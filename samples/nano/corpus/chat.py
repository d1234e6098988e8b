"""Talk about Saltmere: facts, follow-ups, portraits, small talk, residents in character."""

from corpus import outside, world
from corpus.source import an, cap, vary
from encode import encode

SYSTEM = [
    "You are a helpful assistant.",
    "",
    "You live in Saltmere.",
    "Talk to the visitors of Saltmere.",
    "You are a helpful Assistant.",
    "You are an assistant in the town of Saltmere.",
    "You answer questions briefly.",
    "Be kind and brief.",
    "You are nano, a small assistant.",
    "Answer in short sentences.",
    "",
]

LEADS = """Tell me|Do you know|Can you tell me|I want to know|I would like to know|Could you tell me|Please say|Any idea|I wonder
Remind me|I forgot|Let me know|Say|Have you heard|Do you happen to know|Can you say|I need to know|Would you know
Please find out|Someone asked me|Would you tell me|I am asking|You surely know|Inform me|Explain""".replace("\n", "|").split("|")
INDIRECT = [  # how a direct question turns into a clause
    ("Where is ", " is"),
    ("Where does ", "does"),
    ("What does ", "does"),
    ("Who is ", " is"),
    ("What is ", " is"),
    ("When does ", "does"),
    ("Which street does ", "does"),
    ("How early does ", "does"),
    ("Who owns ", ""),
    ("Who sells ", ""),
    ("Who runs ", ""),
    ("Which shop sells ", ""),
    ("Where can I ", "can"),
    ("Where should I ", "should"),
    ("When is ", " is"),
    ("Who looks ", ""),
    ("Who commands ", ""),
    ("Who works ", ""),
    ("What can I ", "can"),
    ("Which day is ", " is"),
    ("Who keeps ", ""),
    ("On which day is ", " is"),
    ("At what hour does ", "does"),
]
THIRD = {"live": "lives", "work": "works", "like": "likes", "do": "does", "dislike": "dislikes", "hate": "hates", "cost": "costs", "open": "opens",
         "close": "closes", "sell": "sells", "carry": "carries", "start": "starts", "begin": "begins", "love": "loves", "enjoy": "enjoys",
         "lie": "lies", "have": "has", "stand": "stands", "take": "takes", "look": "looks", "bring": "brings", "spend": "spends"}  # fmt: skip


def recast(g, question):
    """A direct question as a request ("Do you know where Marta Quill lives?"), where grammar is easy; else unchanged."""
    if not g.p(0.35):
        return question
    for start, verb in INDIRECT:
        if not question.startswith(start) or not question.endswith("?") or "." in question[:-1] or ". " in question:
            continue
        lead = g.combo(LEADS, [start])[0]
        rest = question[len(start) : -1]
        question_words = start.strip().rsplit(" ", 1)[0] if verb in ("does", "can", "should") or verb == " is" else start.strip()
        question_words = question_words[0].lower() + question_words[1:]
        if verb == " is":
            if rest.split()[-1].endswith("ed") or " or " in rest:
                return question
            clause = f"{question_words} {rest} is"
        elif verb == "does":
            words = rest.split()
            at = [i for i, w in enumerate(words) if w in THIRD]
            if not at:
                return question
            words[at[0]] = THIRD[words[at[0]]]
            clause = f"{question_words} {' '.join(words)}"
        elif verb:
            if not rest.startswith("I ") and not start.endswith("I "):
                return question
            clause = (
                f"{question_words[:-len(verb)].strip()} I {verb} {rest}"
                if question_words.endswith(verb)
                else f"{question_words.rsplit(' ', 1)[0]} I {verb} {rest}"
            )
        else:
            clause = f"{question_words} {rest}"
        return f"{lead} {clause}{'?' if lead.startswith(('Do', 'Can', 'Could', 'Any', 'Have', 'Would')) else '.'}"
    return question


def fact(g):
    """One question about the world, in one of many wordings: -> question, answer, strings it must hold, thought."""
    q, a, m, th = plain_fact(g)
    return recast(g, q), a, m, th


def plain_fact(g):
    """one question about the world -> (q, a, must, think)"""
    k = g.r.random()
    if k < 0.40:
        x = g.c(world.RES)
        rel = g.c(list(world.QA))
        q, a, m = world.QA[rel]
        f = dict(n=x["name"], F=x["name"].split()[0], **x)
        nm = x["name"] if g.p(0.75) else f["F"]
        return g.t(q).format(n=nm), g.c(a).format(**f), [v.format(**f) for v in m], f"{x['name']}: {rel} is {x[rel]}."
    if k < 0.47:
        x = g.c(world.RES)
        f = dict(n=x["name"], **x)
        (
            q,
            a,
        ) = (
            world.JOBQ[0],
            world.JOBQ[1],
        )
        if x["job"] in ("sailor", "apprentice", "captain"):
            return plain_fact(g)
        return g.t(q).format(**f), g.c(a).format(**f), [x["name"]], f"The {x['job']} is {x['name']}."
    if k < 0.62:
        i = g.c(list(world.ITEMS))
        p, s = world.ITEMS[i]
        rel = g.c(list(world.ITEMQ))
        q, a, m = world.ITEMQ[rel]
        f = dict(
            a=(
                an(i)
                if not i.startswith(("black", "sea", "dried", "saffron", "nutmeg", "bacon", "beeswax", "sail", "mint"))
                else i
            ),
            p=p,
            s=s["name"],
            o=s["owner"],
            st=s["street"],
        )
        f["A"] = cap(f["a"])
        return g.t(q).format(**f), g.c(a).format(**f), [v.format(**f) for v in m], f"{s['name']} sells {i} for {p}."
    if k < 0.74:
        x = g.c(world.SHOPS)
        rel = g.c(list(world.SHOPQ))
        q, a, m = world.SHOPQ[rel]
        it = [
            an(i) if not i.startswith(("black", "sea", "dried", "saffron", "nutmeg", "bacon", "beeswax", "sail", "mint")) else i
            for i, _ in x["items"]
        ]
        f = dict(
            s=x["name"],
            s1=cap(x["name"]),
            o=x["owner"],
            st=x["street"],
            opens=x["opens"],
            closes=x["closes"],
            list=", ".join(it[:3]) + " and " + it[3],
            i0=it[0],
            i3=it[3],
        )
        th = {
            "owner": "owner is {o}",
            "where": "street is {st}",
            "opens": "opens at {opens}",
            "closes": "closes at {closes}",
            "sells": "sells {list}",
        }[rel].format(**f)
        return g.t(q).format(**f), g.c(a).format(**f), [v.format(**f) for v in m], f"{f['s1']}: {th}."
    if k < 0.84:
        x = g.c(world.PLACES)
        rel = g.c(list(world.PLACEQ))
        q, a, m = world.PLACEQ[rel]
        f = dict(p=x["name"], P=cap(x["name"]), desc=x["desc"], where=x["where"], k=x["keeper"])
        return (
            g.t(q).format(**f),
            g.c(a).format(**f),
            [v.format(**f) for v in m],
            f"{f['P']}: {[x['desc'], x['where'], x['keeper']][['desc', 'where', 'keeper'].index(rel)]}.",
        )
    if k < 0.92:
        x = g.c(world.EVENTS)
        rel = g.c(list(world.EVQ))
        q, a, m = world.EVQ[rel]
        f = dict(e=x["name"], E=cap(x["name"]), d=x["day"], pl=x["place"], t=x["time"])
        return (
            g.t(q).format(**f),
            g.c(a).format(**f),
            [v.format(**f) for v in m],
            f"{f['E']}: {x['day']}, {x['place']}, {x['time']}.",
        )
    if k < 0.98:
        x = g.c(world.SHIPS)
        rel = g.c(list(world.SHIPQ))
        q, a, m = world.SHIPQ[rel]
        f = dict(s=x["name"], S=cap(x["name"]), c=x["captain"], cargo=x["cargo"], b=x["berth"])
        return (
            g.t(q).format(**f),
            g.c(a).format(**f),
            [v.format(**f) for v in m],
            f"{f['S']}: {x['captain']}, {x['cargo']}, berth {x['berth']}.",
        )
    nm = g.Name() + " " + g.Name()
    return (
        g.t(["Who is {n}?", "Where does {n} live?", "What does {n} do?", "Where does {n} work?"]).format(n=nm),
        g.c([f"I do not know anyone called {nm}.", f"There is no {nm} in Saltmere."]),
        [nm],
        f"I do not know {nm}.",
    )


def follow(g):
    """pronoun follow-up: two linked questions about one resident"""
    x = g.c(world.RES)
    he = "he" if x["g"] == "m" else "she"
    his = "his" if x["g"] == "m" else "her"
    F = x["name"].split()[0]
    rs = g.r.sample(["work", "street", "likes", "dislikes", "hobby"], 2)
    him = "him" if x["g"] == "m" else "her"
    Q = {
        "work": [f"Where does {he} work?", f"Where can I find {him}?", f"At which place does {he} work?", f"And where is {his} work?",
                 f"And {his} workplace?", f"What is {his} workplace?"],
        "street": [f"Where does {he} live?", f"Where is {his} home?", f"On which street does {he} live?", f"And {his} address?",
                   f"And where does {he} live?", f"What is {his} address?"],
        "likes": [f"What does {he} like?", f"What makes {him} happy?", f"What does {he} love?", f"And what does {he} like?",
                  f"What is {he} fond of?", f"What pleases {him}?"],
        "dislikes": [f"What does {he} dislike?", f"What does {he} hate?", f"What annoys {him}?", f"And what does {he} hate?",
                     f"What can {he} not stand?", f"What bothers {him}?"],
        "hobby": [f"What is {his} hobby?", f"What does {he} do for fun?", f"And {his} hobby?", f"How does {he} spend free time?",
                  f"What does {he} do in the evening?", f"What does {he} do after work?"],
    }  # fmt: skip
    A = {
        "work": f"{cap(he)} works at {x['work']}.",
        "street": f"{cap(he)} lives on {x['street']}.",
        "likes": f"{cap(he)} likes {x['likes']}.",
        "dislikes": f"{cap(he)} dislikes {x['dislikes']}.",
        "hobby": f"{cap(his)} hobby is {x['hobby']}.",
    }
    out = [
        (
            g.c([f"Who is {x['name']}?", f"Do you know {x['name']}?", f"Tell me about {x['name']}."]),
            g.c([f"{x['name']} is the {x['job']} of Saltmere.", f"{x['name']} is the {x['job']} and works at {x['work']}."]),
            [x["job"]],
            f"{x['name']} is the {x['job']}.",
        )
    ]
    for r in rs:
        out.append((g.t(Q[r]), A[r], [x[r]], f"{x['name']}: {r} is {x[r]}."))
    return out


def small(g):
    q, a = g.c(world.SMALL)
    return g.t(q), g.c(a), [], "Just small talk."


WHO = ["Who are you?", "What is your name?", "And you are?", "Tell me who you are.", "Who am I talking to?", "What are you called?",
       "Do you have a name?", "Introduce yourself.", "Which model are you?", "What should I call you?", "May I know your name?"]  # fmt: skip
I_AM = ["I am nano, a very small language model.", "My name is nano. I am a very small language model.", "I am nano. Ask me about Saltmere."]


def identity(g):
    """Who the model is, when no role was given."""
    return g.t(WHO), g.c(I_AM), ["nano"], "I am nano."


def conversation(g):
    ms = []
    s = g.c(SYSTEM)
    res = None
    if g.p(0.3):
        x = g.c(world.RES)
        res = x
        s = g.c(
            [
                "You are {name}, the {job} of Saltmere.",
                "You are {name}, {job} in Saltmere. Stay in character.",
                "Play the role of {name}, the {job}.",
            ]
        ).format(**x)
    if s:
        ms.append(dict(role="system", content=s))
    think = g.p(0.35)
    turns = g.n(1, 5)
    qs = []
    while len(qs) < turns:
        k = g.r.random()
        if res and k < 0.5:
            r = g.c(["name", "job", "work", "street", "likes", "dislikes", "hobby"])
            q = {
                "name": ["What is your name?", "Who are you?", "And you are?", "May I ask your name?"],
                "job": ["What do you do?", "What is your job?", "What is your work?", "What do you do for a living?"],
                "work": ["Where do you work?", "Where can I find you during the day?", "At which place do you work?"],
                "street": ["Where do you live?", "Where is your home?", "On which street do you live?"],
                "likes": ["What do you like?", "What makes you happy?", "What are you fond of?"],
                "dislikes": ["What do you dislike?", "What annoys you?", "What can you not stand?"],
                "hobby": ["What is your hobby?", "What do you do for fun?", "How do you spend your evenings?"],
            }[r]
            a = {
                "name": ["I am {name}.", "My name is {name}."],
                "job": ["I am the {job} of Saltmere.", "I am the {job} here."],
                "work": ["I work at {work}.", "You can find me at {work}."],
                "street": ["I live on {street}.", "My home is on {street}."],
                "likes": ["I like {likes}.", "I am very fond of {likes}."],
                "dislikes": ["I cannot stand {dislikes}.", "I dislike {dislikes}."],
                "hobby": ["I enjoy {hobby}.", "My hobby is {hobby}."],
            }[r]
            qs.append((g.t(q), g.c(a).format(**res), [res[r]], f"I am {res['name']}. My {r}: {res[r]}."))
        elif k < 0.62:
            qs.append(fact(g))
        elif k < 0.74:
            qs += follow(g)
        elif k < 0.80:
            qs.append(profile(g))
        elif k < 0.90:
            qs.append(outside.question(g))
        elif k < 0.93 and not res:
            qs.append(identity(g))
        else:
            qs.append(small(g))
    for q, a, m, th in qs:
        ms += [dict(role="user", content=vary(g, q)), dict(role="assistant", content=a, reasoning=th, must=m)]
    return dict(cat="chat", text=encode(ms, think=think), messages=ms, think=think, must=qs[-1][2])


def profile(g):
    x = g.c(world.RES)
    he = "He" if x["g"] == "m" else "She"
    return (
        g.t(
            ["Tell me everything about {n}.", "What do you know about {n}?", "Give me a portrait of {n}.", "Describe {n} to me."]
        ).format(n=x["name"]),
        f"{x['name']} is the {x['job']} and works at {x['work']}. {he} lives on {x['street']}, likes {x['likes']} and dislikes {x['dislikes']}. In the evening {he.lower()} enjoys {x['hobby']}.",
        [x["job"], x["work"], x["street"], x["likes"]],
        f"{x['name']} is the {x['job']}.",
    )
