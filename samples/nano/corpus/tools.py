"""Tools nobody has seen: schemas with names, parameters and descriptions composed at random, and requests that use them."""

from corpus.pool import POOL, KNOWN
from corpus.source import an, bucket, cap, dumps, fill
from corpus.words import COMMON, ENUMS, NOUNS, PARAMS, VERBS, WORDS

LEAD = """{C}|Please {c}|Can you {c}|I want to {c}|I need you to {c}|Could you {c}|It is time to {c}|Let us {c}|Help me {c}
Go ahead and {c}|Would you {c}|My task for you: {c}|I would like you to {c}|You should {c}|Next, {c}|Now {c}|Kindly {c}
I'd like to {c}|We need to {c}|Time to {c}|Your job: {c}|Do this for me: {c}|Try to {c}|I have to {c}|Quickly {c}|Just {c}
Could you please {c}|Can you please {c}|I was asked to {c}|You can {c}|Today we {c}|First {c}|Hey, {c}|Hello, please {c}
{C} for me|{C} now|{C} please|{C} right away|Would you kindly {c}|Are you able to {c}|Is it possible to {c}|I wish to {c}"""
LEAD = LEAD.replace("\n", "|").split("|")
CONNECT = [
    " with ",
    ": ",
    ", ",
    " using ",
    ". Use ",
    " where ",
    " - ",
    "; ",
    ", namely ",
    ". Take ",
    "\n",
    " and use ",
    ". Details: ",
    " given ",
    " (",
    ". ",
    " based on ",
    ". Here is what you need: ",
    " by ",
    ", taking ",
    ". Parameters: ",
    " ",
]
PART = [
    "{l} {v}",
    "{l}: {v}",
    "{l} = {v}",
    "{l} is {v}",
    "{v} as {l}",
    "{v} for the {l}",
    "{l} set to {v}",
    "the {l} should be {v}",
    "{l} ({v})",
    "{v} ({l})",
    "the {l} {v}",
    "{l} of {v}",
    "{l} equal to {v}",
    "{v} as the {l}",
    "the {l} is {v}",
    "{l} -> {v}",
    "a {l} of {v}",
    "{v} is the {l}",
    "{l} must be {v}",
    "set {l} to {v}",
    "{l}={v}",
    "{v} for {l}",
    "{l} '{v}'",
]
JOIN = [", ", " and ", "; ", ", and ", ", also ", "\n", ". ", " / "]
AFTER = ["", "", "", "", " for the user", " and report the result", " in the system", " by its data", " on request"]


def label(description):
    text = description.lower()
    return text[4:] if text.startswith("the ") else text


def show(value):
    """An argument as a user writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        items = [show(v) for v in value]
        return ", ".join(items[:-1]) + " and " + items[-1] if len(items) > 1 else items[0]
    if isinstance(value, dict):
        return dumps(value)
    return str(value)


def spoken(g, value):
    """Other ways to write the same argument."""
    if isinstance(value, bool) and g.p(0.4):
        return g.c(["yes", "on"]) if value else g.c(["no", "off"])
    if isinstance(value, list) and g.p(0.4):
        return g.c([", ".join(map(show, value)), dumps(value)])
    if isinstance(value, dict) and g.p(0.4):
        return " and ".join(f"{k} {show(v)}" for k, v in value.items())
    if isinstance(value, str) and g.p(0.15):
        return g.c(['"%s"', "'%s'"]) % value
    return show(value)


def numbers(g):
    return g.c(
        [
            lambda: g.split(lambda: g.n(0, 9)),
            lambda: g.split(lambda: g.n(0, 99)),
            lambda: g.split(lambda: g.n(100, 9999)),
            lambda: -g.n(1, 99),
            lambda: g.n(1, 90) * 1000,
        ]
    )()


MAKERS = {
    "string": lambda g: g.text(),
    "integer": numbers,
    "number": lambda g: g.c([lambda: g.n(1, 9999) / 10, lambda: g.n(1, 999) / 100, lambda: g.n(1, 500)])(),
    "boolean": lambda g: g.p(0.5),
    "object": lambda g: {g.c(PARAMS): g.c([lambda: g.c(WORDS), lambda: g.n(0, 99)])() for _ in range(g.n(1, 2))},
}

LISTS = {
    False: [lambda g: [g.c(WORDS + COMMON) for _ in range(g.n(1, 4))], lambda g: [g.person() for _ in range(g.n(1, 3))]],
    True: [lambda g: [g.n(0, 99) for _ in range(g.n(1, 4))]],
}


def spell(g, words):
    """An identifier from words, in one of the usual styles."""
    words = [w for part in words for w in part.lower().replace("-", " ").split()]
    k = g.n(0, 5)
    if k < 3:
        return "_".join(words)
    if k == 3:
        return words[0] + "".join(map(cap, words[1:]))
    return "".join(map(cap, words)) if k == 4 else "-".join(words) if g.p(0.3) else "_".join(words)


def opaque_name(g):
    """A name that says nothing, or something else than the description."""
    k = g.n(0, 5)
    if k == 0:
        return g.syl() + "_" + g.syl(1, 2)
    if k == 1:
        return spell(g, [g.c(g.c(VERBS)).replace("|", " "), g.c(NOUNS)])
    if k == 2:
        return g.c(["tool", "fn", "func", "action", "cmd", "op", "x"]) + g.c(["", "_"]) + str(g.n(1, 99))
    if k == 3:
        return g.c(g.c(VERBS)).split("|")[0] + "_" + g.syl()
    return g.syl() if k == 4 else spell(g, [g.c(WORDS), g.c(COMMON + WORDS)])


def parameter(g, noun, used):
    """-> name, type, description, maker, optional, enum"""
    while True:
        word = g.c(PARAMS) if g.p(0.75) else g.c(COMMON + NOUNS)
        first = lambda: g.c(WORDS) if g.p(0.5) else noun if g.p(0.5) else g.c(COMMON)
        text = word if g.p(0.45) else g.split(lambda: first() + " " + word)
        name = g.c([lambda: spell(g, [text]), lambda: spell(g, [text]), lambda: word, lambda: g.c(PARAMS), lambda: g.syl(1, 2)])()
        if name.isidentifier() and name not in used and text not in used:
            break
    used |= {name, text}
    kind = g.c(["string"] * 6 + ["integer"] * 3 + ["number", "boolean", "boolean", "enum", "enum", "array", "object"])
    if g.p(0.02):
        kind = "object"
    description = g.c(["The {l}", "The {l}", "The {l}", "{L}", "The {l} to use", "{L} of the {n}", "The {l} of the {n}"])
    description = description.replace("{l}", text).replace("{L}", cap(text)).replace("{n}", noun)
    if kind == "enum":
        choice = g.c(ENUMS) if g.p(0.6) else g.r.sample(WORDS, g.n(2, 4))
        return dict(name=name, type="string", text=text, description=description, make=lambda g: g.c(choice), enum=choice)
    if kind == "array":
        ints = g.p(0.4)
        make = g.c(LISTS[ints])
        return dict(name=name, type=kind, text=text, description=description, make=make, enum=None, ints=ints)
    return dict(name=name, type=kind, text=text, description=description, make=MAKERS[kind], enum=None)


def schema_of(g, name, description, params):
    properties = {}
    for p in params:
        item = {"type": p["type"]}
        if p["type"] == "array":
            item["items"] = {"type": "integer" if p.get("ints") else "string"}
        if p["described"]:
            item["description"] = p["description"]
        if p["enum"]:
            item["enum"] = p["enum"]
        properties[p["name"]] = item
    required = [p["name"] for p in params if not p["optional"]]
    return {
        "name": name,
        "description": description,
        "parameters": {"type": "object", "properties": properties, "required": required},
    }


def sorted_keys(value):
    """As many libraries write JSON."""
    if isinstance(value, dict):
        return {k: sorted_keys(value[k]) for k in sorted(value)}
    return value


def finished(g, tool):
    """In training some schemas come with sorted keys; the parameters then are in that order, too."""
    if not g.ho and g.p(0.15):
        tool["schema"] = sorted_keys(tool["schema"])
        tool["params"].sort(key=lambda p: p["name"])
    return tool


def novel(g, fits=None):
    """A tool whose name fits its description (fits) or not."""
    while True:  # pairs of verb and noun are held out by hash: the tools of the evaluation are new
        group = g.c(VERBS)
        verb, noun = g.c(group).replace("|", " "), g.c(NOUNS)
        if (bucket(verb + " " + noun, 10) == 0) == g.ho:
            break
    adjective = g.c(WORDS) if g.p(0.6) else g.c(COMMON)
    object_ = g.c(
        [
            lambda: f"the {adjective} {noun}",
            lambda: f"the {adjective} {noun}",
            lambda: f"the {noun}",
            lambda: an(noun),
            lambda: f"the {noun} of {an(g.c(NOUNS))}",
            lambda: f"{an(adjective)} {noun}",
            lambda: f"the {g.c(NOUNS)} {noun}",
        ]
    )()
    description = cap(verb) + " " + object_ + g.c(AFTER)
    if g.p(0.2):
        description += "."
    request_verb = g.c(group).replace("|", " ") if g.p(0.3) else verb
    used, params = set(), []
    counts = [0, 1, 1, 1, 2, 2, 2, 3, 3, 4] if g.ho else [0, 1, 1, 2, 2, 3, 3, 3, 4, 4]  # more of what is harder than in the evaluation
    for i in range(g.c(counts)):
        p = parameter(g, noun, used)
        described = g.p(0.95) or p["name"].replace("_", "").lower() != p["text"].replace(" ", "")
        params.append(dict(p, optional=i > 0 and g.p(0.3), described=described))
    fits = g.p(0.5) if fits is None else fits
    core = [w for w in object_.split() if w not in ("the", "a", "an", "of")]
    fitting = [[verb, *core], [verb, noun], [noun, verb], [*core, verb], [verb, *core]]
    name = spell(g, g.c(fitting)) if fits else opaque_name(g)
    schema = schema_of(g, name, description, params)
    keys = [g.c([g.syl(), g.c(PARAMS), g.c(PARAMS), g.c(WORDS) + "_" + g.c(PARAMS)]) for _ in range(g.n(1, 2))]
    keys = list(dict.fromkeys(keys))  # not a set, whose order differs from process to process
    results = [(k, g.c([lambda g: g.text(), lambda g: g.n(0, 9999), lambda g: g.value()])) for k in keys]
    answers = ["The " + " and the ".join(k.replace("_", " ") + " is {" + k + "}" for k in keys) + "."]
    return finished(g, dict(schema=schema, name=name, params=params, core=f"{request_verb} {object_}", requests=None, results=results,
                            answers=answers, sort="fits" if fits else "opaque"))  # fmt: skip


def known(g, rename=False):
    """One of the sixteen known tools; rename hides its name and some of its parameters' names."""
    name, descriptions, spec, requests, results, answers = g.c(POOL)
    params, names = [], set()
    for p in spec:
        new = p[0]
        if rename and g.p(0.6):
            new = g.c([g.syl(1, 2), g.c(PARAMS), g.syl(2, 2) + "_" + g.c(PARAMS), p[2].lower().split()[-1].strip(".")])
            if new in names or not new.isidentifier():
                new = p[0] + "_" + g.syl(1, 1)
        names.add(new)
        params.append(dict(name=new, key=p[0], type=p[1], text=label(p[2]), description=p[2], make=p[3], optional=bool(p[4]),
                           enum=None, described=True))  # fmt: skip
    description = g.c(descriptions)
    new_name = opaque_name(g) if rename else name
    schema = schema_of(g, new_name, description, params)
    core = description[0].lower() + description[1:]
    return finished(g, dict(schema=schema, name=new_name, params=params, core=core, requests=requests, results=results,
                            answers=answers, sort="opaque" if rename else "known"))  # fmt: skip


def toolbox(g, sort=None, size=None):
    """One to five tools with different names and purposes."""
    tools, names, seen = [], set(), set()
    size = size or g.c([1, 2, 2, 3, 3, 4, 5])
    for _ in range(size * 3):
        if len(tools) == size:
            break
        k = sort or g.c(["known"] * 3 + ["renamed"] * 2 + ["fits"] * 5 + ["opaque"] * 5)
        if k == "known" or k == "renamed":
            tool = known(g, k == "renamed")
        else:
            tool = novel(g, k == "fits")
        key = tool["core"].split()[-1]
        if tool["name"] in names or tool["core"] in seen or (key in seen and g.p(0.8)):
            continue
        names.add(tool["name"])
        seen |= {tool["core"], key}
        tools.append(tool)
    return tools


def compose(g, tool, values):
    """A request for a call with the given (label, value text) pairs, put together from parts."""
    core = tool["core"]
    segments = [(p["text"], "v%d" % i) for i, p in enumerate(tool["params"]) if i in values]
    lead, connect, part = g.combo(LEAD, CONNECT, PART)
    if g.p(0.5):
        g.r.shuffle(segments)
    mixed = g.p(0.4)
    pieces = [
        (g.c(PART) if mixed and i and not g.hot else part).replace("{l}", l).replace("{v}", "{" + v + "}")
        for i, (l, v) in enumerate(segments)
    ]
    if g.p(0.12):  # the values alone
        pieces = ["{" + v + "}" for _, v in segments] if len(segments) == 1 else pieces
    body = g.c(JOIN).join(pieces)
    text = lead.replace("{C}", cap(core)).replace("{c}", core)
    end = g.c([".", ".", "", "?" if lead.startswith(("Can", "Cou", "Wou", "Are", "Is")) else "!"])
    if not segments:
        return text + end
    if g.p(0.15):
        return g.c(["With ", "Using ", "Given ", "For ", "Take "]) + body + ", " + text[0].lower() + text[1:] + "."
    if connect == " (":
        return text + " (" + body + ")" + end
    return text + connect + body + end


def optional_parts(request, keys):
    """Drops each [...] whose placeholders have no value."""
    out, i = "", 0
    while i < len(request):
        if request[i] == "[":
            j = request.index("]", i)
            part = request[i + 1 : j]
            if all(piece.split("}")[0] in keys for piece in part.split("{")[1:]):
                out += part
            i = j + 1
        else:
            out += request[i]
            i += 1
    return out


def one_call(g, tool, missing=None):
    """-> request text, arguments, result, answer, strings the answer must hold. missing: index of a parameter left out."""
    values = {i: p["make"](g) for i, p in enumerate(tool["params"]) if i != missing and not (p["optional"] and g.p(0.5))}
    if tool["requests"] and missing is None and not g.p(0.35):
        keys = {tool["params"][i]["key"]: i for i in values}
        template = optional_parts(g.t(tool["requests"]), keys)
        for key, i in keys.items():
            template = template.replace("{" + key + "}", "{v%d}" % i)
    else:
        template = compose(g, tool, values)
    said = {"v%d" % i: spoken(g, v) if not tool["requests"] else show(v) for i, v in values.items()}
    request = fill(g.noise(template), said)
    # in the request's order: whether an optional parameter is given needs no decision of its own then
    mentioned = sorted(values, key=lambda i: (template.find("{v%d}" % i) % (len(template) + 1), i))
    arguments = {tool["params"][i]["name"]: values[i] for i in mentioned}
    result = {k: make(g) for k, make in tool["results"]}
    fields = {tool["params"][i].get("key", ""): show(v) for i, v in values.items()}
    fields |= {k: show(v) for k, v in result.items()}
    template = g.c(tool["answers"])
    answer = cap(fill(template, fields))
    must = [show(v) for k, v in result.items() if all("{" + k + "}" in a for a in tool["answers"])]
    return dict(tool=tool, request=request, arguments=arguments, result=result, answer=answer, must=must)


def is_known(name):
    return name in KNOWN
