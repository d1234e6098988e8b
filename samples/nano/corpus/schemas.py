"""Questions about the tools themselves: what each does, which one does what, its parameters, their order and types; and about
a request: what it gives for which parameter. A call needs all of these look-ups at once; asked one at a time they are learnt
much sooner. Names stand in quotes, as in the schemas and in calls, so that they are the same tokens there."""

from corpus.source import dumps, vary
from corpus.tools import label, one_call, show, toolbox
from corpus.toolchat import SYSTEM
from encode import encode

ALL = ["Which parameters does {t} take?", "What are the parameters of {t}?", "List the parameters of {t}.", "What does {t} need?"]
FIRST = ["What is the first parameter of {t}?", "Which parameter of {t} comes first?", "Name the first parameter of {t}."]
NEXT = ["Which parameter of {t} comes after {p}?", "What follows {p} in {t}?", "{t}: what is next after {p}?"]
NEED = ["Which parameters of {t} are required?", "What must I give {t}?", "What is required for {t}?"]
WHAT = ["What does {t} do?", "What is {t} for?", "What is the purpose of {t}?", "Describe {t}."]
WHICH = ["Which tool is for this: {d}?", "What is the tool called that does this: {d}?", "{d}: which tool?", "Name the tool for: {d}."]
PARAM = ["Which parameter of {t} is {l}?", "In {t}, what is {l} called?", "{t}: where does {l} go?", "Which parameter takes {l} in {t}?"]
TYPE = ["What type is {p} of {t}?", "Which type has {p} in {t}?", "{t}: the type of {p}?"]
TOOLS = ["Which tools do you have?", "List your tools.", "What are your tools?", "Name all your tools."]
GIVES = ["Which parameters does this give?", "Which parameters are given?", "Name the parameters that are set here.", "What is given?"]
VALUE = ["What is {l}?", "What does it give for {l}?", "Which value has {l}?", "The value of {l}?", "And {l}?"]
AS_JSON = ["Write the arguments as JSON.", "The arguments, as JSON?", "As JSON, please.", "Which arguments does the call get?"]
TAKES = ["Which parameter gets {v}?", "Where does {v} go?", "{v} is for which parameter?", "Which parameter is {v}?"]
# Most often what is hardest: from a description back to the name before it.
KINDS = ["param"] * 6 + ["which"] * 3 + ["all"] * 2 + ["type"] * 2 + ["first", "next", "need", "what", "tools"]


def quoted(names):
    names = [f'"{n}"' for n in names]
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


def question(g, tools):
    """-> templates, fields, answer"""
    able = [t for t in tools if t["params"]]
    tool = g.c(able if able and g.p(0.9) else tools)
    schema = tool["schema"]
    properties = schema["parameters"]["properties"]
    names, t = list(properties), f'"{tool["name"]}"'
    kind = g.c(KINDS)
    if kind == "tools":
        return TOOLS, {}, quoted([x["name"] for x in tools]) + "."
    if kind == "what":
        return WHAT, dict(t=t), schema["description"].rstrip(".") + "."
    if kind == "which":
        return WHICH, dict(d=schema["description"].rstrip(".")), t + "."
    if kind == "all" or not names:
        return ALL, dict(t=t), quoted(names) + "." if names else "None."
    if kind == "first":
        return FIRST, dict(t=t), f'"{names[0]}".'
    if kind == "need":
        required = schema["parameters"]["required"]
        return NEED, dict(t=t), quoted(required) + "." if required else "None."
    i = g.n(0, len(names) - 1)
    name = names[i]
    if kind == "next":
        return NEXT, dict(t=t, p=f'"{name}"'), f'"{names[i + 1]}".' if i + 1 < len(names) else "None."
    item = properties[name]
    if kind == "type":
        kinds = " of " + item["items"]["type"] if item["type"] == "array" else ""
        return TYPE, dict(t=t, p=f'"{name}"'), f'"{item["type"]}"{kinds}.'
    return PARAM, dict(t=t, l="the " + label(item.get("description", name))), f'"{name}".'


def about_request(g, tools):
    """A request and questions about it -> [(user's text, answer)]"""
    tool = g.c([t for t in tools if t["params"]])
    call = one_call(g, tool)
    given, properties = call["arguments"], tool["schema"]["parameters"]["properties"]
    if not given:
        return []
    values = [show(v) for v in given.values()]
    turns = []
    for i in range(g.n(1, 3)):
        kind = g.c(["json", "json", "json", "gives", "value", "takes"] if i == 0 else ["value", "value", "takes"])
        name = g.c(list(given))
        value = show(given[name])
        if kind == "takes" and values.count(value) > 1:
            kind = "gives"
        what = "the " + label(properties[name].get("description", name))
        text = vary(g, g.c(dict(json=AS_JSON, gives=GIVES, value=VALUE, takes=TAKES)[kind]), 0.1)
        text = text.replace("{l}", what).replace("{v}", value)
        answer = dict(json=dumps(given), gives=quoted(list(given)) + ".", value=value + ".", takes=f'"{name}".')[kind]
        turns.append((text if i else call["request"] + g.c([" ", "\n", " -- "]) + text, answer))
    return turns


def conversation(g):
    tools = []
    while sum(len(t["schema"]["parameters"]["properties"]) for t in tools) < 3:  # else there is little to ask
        tools = toolbox(g, size=g.c([1, 2, 3, 3, 4, 5]))
    schemas = [t["schema"] for t in tools]
    system = g.c(SYSTEM)
    if g.p(0.5):  # as text of the system's: without the 230 tokens that say how to call
        system, schemas = "\n".join([system, *map(dumps, schemas)]).strip(), []
    messages = [dict(role="system", content=system)] if system else []
    turns, length = [], g.n(6, 20)
    while len(turns) < length:
        if g.p(0.4):
            turns += about_request(g, tools)
            continue
        templates, fields, answer = question(g, tools)
        text = vary(g, g.c(templates), 0.2)
        for key, value in fields.items():
            text = text.replace("{" + key + "}", value)
        turns.append((text, answer))
    for text, answer in turns:
        messages.append(dict(role="user", content=text))
        messages.append(dict(role="assistant", content=answer, reasoning="", must=[answer]))
    return dict(cat="schemas", text=encode(messages, schemas, False), messages=messages, tools=schemas, think=False)
