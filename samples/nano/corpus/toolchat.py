"""Conversations with tools: single, several and chained calls, answers from results and errors, ask-backs, and no call."""

from corpus import chat, outside, persona, sums
from corpus.source import OPENERS, dumps, fill
from corpus.tools import label, novel, one_call, show, toolbox
from encode import encode

SYSTEM = [
    "You are a helpful assistant.",
    "You are a helpful Assistant.",
    "You can use tools.",
    "Answer briefly.",
    "",
    "",
    "You are an assistant with tools. Use them when needed.",
    "You are a game character. Use the tools to act.",
    "You are nano, a small assistant.",
    "Help the user with your tools.",
]
AND = [" Also: ", " And then: ", " Also, ", "\n", " Then ", " And ", " After that: ", " In addition, ", " Next: ", " Plus: "]
ERRORS = [
    "not found",
    "no connection",
    "access denied",
    "out of stock",
    "timeout",
    "it is locked",
    "invalid input",
    "quota exceeded",
    "service unavailable",
    "no such entry",
    "permission denied",
    "already exists",
    "wrong password",
    "disk full",
]
ASK = ["Which {l} should I use?", "What should the {l} be?", "Please tell me the {l}.", "I need the {l}. What is it?"]


def error_result(g):
    reason = g.c(ERRORS) if g.p(0.7) else g.c(["busy with ", "cannot reach ", "unknown "]) + g.words(1, 2)
    text = g.c([dumps({"error": reason}), "error: " + reason, dumps({"status": "error", "message": reason})])
    answer = g.c(["Sorry, that did not work: {e}.", "I am sorry, there was an error: {e}.", "It failed: {e}."]).replace(
        "{e}", reason
    )
    return reason, text, answer


def listing(tools):
    return "; ".join(f"{t['schema']['description'].rstrip('.')} -> \"{t['name']}\"" for t in tools) + "."


def plan(tools, calls):
    """The thought before a call: what there is (purpose first, then name), what is needed, and where each value goes.
    Names stand in quotes: so they are the same tokens as in the schemas and in the call."""
    text = listing(tools)
    for call in calls:
        properties = call["tool"]["schema"]["parameters"]["properties"]
        text += f" I need \"{call['tool']['name']}\"."
        for name, value in call["arguments"].items():
            text += f" {label(properties[name].get('description', name))} -> \"{name}\": {show(value)}."
    return text


def no_call(g, ask, keys):
    if ask and g.p(0.6):
        q, a, must, thought = ask(g.c(keys))
    else:
        k = g.r.random()
        if k < 0.4:
            q, a, must, thought = chat.fact(g)
        elif k < 0.65:
            q, a, must, thought = chat.small(g)
        elif k < 0.8:
            q, a, must, thought = outside.question(g)
        else:
            q, thought, a, r = sums.calc(g)
            must = [r]
    return chat.vary(g, q), a, must, g.c(["No tool is needed. ", "I can answer this myself. ", ""]) + thought


UNABLE = ["I have no tool for that.", "Sorry, I have no tool that can do that.", "I cannot do that: I have no tool for it."]


def pick(g, tools, used):
    """Rather a tool that was not called yet: its name and parameters must be read from the schemas."""
    new = [t for t in tools if t["name"] not in used]
    tool = g.c(new if new and g.p(0.7) else tools)
    used.add(tool["name"])
    return tool


def turn(g, kind, tools, messages, ask=None, keys=(), used=None):
    """Appends one user turn and everything up to its final answer. used: the names of the tools called so far."""
    used = set() if used is None else used

    def user(text):
        messages.append(dict(role="user", content=text))

    def said(text, thought, must=()):
        messages.append(dict(role="assistant", content=text, reasoning=thought, must=list(must)))

    def called(calls, thought):
        messages.append(
            dict(role="assistant", content="", reasoning=thought, calls=[(c["tool"]["name"], c["arguments"]) for c in calls])
        )

    if kind == "none":
        q, a, must, thought = no_call(g, ask, keys)
        user(q)
        return said(a, thought, must)
    if kind == "unable":
        words = {w for t in tools for w in t["core"].split()} - {"the", "a", "an", "of"}
        other = novel(g)
        while words & set(other["core"].split()):
            other = novel(g)
        user(one_call(g, other)["request"])
        return said(g.c(UNABLE), listing(tools) + " None of them does that.", ["no tool"])
    if kind == "ask":
        able = [t for t in tools if any(not p["optional"] for p in t["params"])]
        if not able:
            return turn(g, "one", tools, messages, ask, keys, used)
        tool = pick(g, able, used)
        i = g.c([i for i, p in enumerate(tool["params"]) if not p["optional"]])
        call = one_call(g, tool, missing=i)
        p = tool["params"][i]
        value = p["make"](g)
        user(call["request"])
        said(g.c(ASK).replace("{l}", p["text"]), listing([tool]) + f" The {p['text']} is missing.", [p["text"]])
        user(
            g.c(["{v}", "{v}", "It is {v}.", "{v}.", "The {l} is {v}.", "Use {v}", "Take {v}."])
            .replace("{v}", show(value))
            .replace("{l}", p["text"])
        )
        call["arguments"][p["name"]] = value
        call["answer"] = fill(call["answer"], {p.get("key", ""): show(value)})
        called([call], plan(tools, [call]))
        calls = [call]
    else:
        count = {"one": 1, "several": 2 if g.p(0.8) else 3}[kind]
        first = pick(g, tools, used)
        calls = [one_call(g, first)]
        while len(calls) < count:
            calls.append(one_call(g, first if g.p(0.2) else pick(g, tools, used)))
        text = calls[0]["request"]
        for call in calls[1:]:
            joint = g.c(AND) if text[-1] in ".?!" else ". " if g.p(0.3) else g.c(["; ", "\n", ", and ", ". Also "])
            text += joint + call["request"]
        if g.p(0.12):
            text = g.c(OPENERS) + text
        user(text)
        called(calls, plan(tools, calls))
    if kind == "one" and g.p(0.1):
        reason, text, answer = error_result(g)
        messages.append(dict(role="tool", results=[text]))
        return said(answer, f"The call failed: {reason}.", [reason])
    results = []
    for call in calls:
        text = dumps(call["result"])
        if call["tool"]["sort"] in ("fits", "opaque") and len(call["result"]) == 1 and g.p(0.2):
            value = show(*call["result"].values())
            text, call["answer"] = value, g.c(["The result is {v}.", "It says {v}.", "The answer is {v}."]).replace("{v}", value)
        elif g.p(0.1):
            text = "\n".join(f"{k}: {show(v)}" for k, v in call["result"].items())
        results.append(text)
    messages.append(dict(role="tool", results=results))
    must = [v for c in calls for v in c["must"]]
    thought = g.c(["The result is here. ", "I have the result. "]) + "I will answer with " + (", ".join(must) or "it") + "."
    said(" ".join(c["answer"] for c in calls), thought, must)


def conversation(g, kind=None, sort=None, think=None, turns=None):
    think = g.p(0.4) if think is None else think
    tools = toolbox(g, sort)
    system, ask, keys = g.c(SYSTEM), None, ()
    if g.p(0.15):
        system, keys, ask = persona.card(g)
    messages = [dict(role="system", content=system)] if system else []
    turns = turns or (g.c([1, 1, 1, 2]) if think else g.c([2, 3, 3, 4, 5, 6]))
    kinds, used = [], set()
    for _ in range(turns):
        k = kind or g.c(["one"] * 7 + ["several"] * 6 + ["none"] * 3 + ["ask", "unable"])
        kinds.append(k)
        turn(g, k, tools, messages, ask, keys, used)
    schemas = [t["schema"] for t in tools]
    return dict(cat="tools", text=encode(messages, schemas, think), messages=messages, tools=schemas, think=think,
                kinds=kinds, boxes=tools)  # fmt: skip
