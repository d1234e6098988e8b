"""Conversations with the demo tools (samples/cli/demo_tools.json): clock, calculator and files, with loops of several calls."""

import json
import pathlib

from corpus import chat, outside, sums
from corpus.source import cap, fill, vary
from corpus.toolchat import listing
from corpus.tools import novel
from corpus.words import COLORS, COMMON, DAYS, THINGS, WORDS
from encode import encode

FILE = pathlib.Path(__file__).resolve().parents[2] / "cli" / "demo_tools.json"
SCHEMAS = [tool["function"] for tool in json.loads(FILE.read_text())]
SYSTEM = ["", "", "You are a helpful assistant.", "You can use tools.", "Use the tools when you need them.", "Answer briefly."]
FACTS = [
    ("The {w} key is under the {x}.", "{w} key", "under the {x}"),
    ("The password of the {w} gate is {c}.", "password", "{c}"),
    ("Meet {p} at {t}.", "{p}", "{t}"),
    ("{p} owes me {n} {th}.", "{p}", "{n} {th}"),
    ("Buy {n} {th}.", "{th}", "{n}"),
    ("The {w} boat is {col}.", "{w} boat", "{col}"),
    ("Call {p} on {d}.", "{p}", "{d}"),
    ("The code is {c}.", "code", "{c}"),
    ("The {w} costs {n} coins.", "{w}", "{n} coins"),
    ("{p} lives in {city}.", "{p}", "{city}"),
    ("port = {n}", "port", "{n}"),
    ("ERROR {c}: {w} {x} failed", "ERROR", "{c}"),
    ("[{t}] {p} opened the {w} door", "{w} door", "{t}"),
    ("name: {p}", "name", "{p}"),
    ("The next {w} meeting is on {d} at {t}.", "{w} meeting", "{d}"),
    ("The secret word is {v}.", "secret", "{v}"),
]


def line(g):
    """-> text of a line, what to look for, what the line says about it"""
    if not g.ho and g.p(0.3):  # any words: files are not written for us
        words = g.words(3, 9).split()
        return " ".join(words), words[0], words[-1]
    fields = dict(w=g.c(WORDS), x=g.c(WORDS + COMMON), c=g.code(), p=g.person(), t=g.clock(), n=g.n(2, 900), th=g.c(THINGS),
                  col=g.c(COLORS), d=g.c(DAYS), city=g.city(), v=g.value())  # fmt: skip
    return tuple(fill(part, fields) for part in g.c(FACTS))


def file_text(g):
    lines, seen = [], set()
    for _ in range(g.n(1, 6)):
        item = line(g)
        if item[1] not in seen:
            seen.add(item[1])
            lines.append(item)
    return lines


def folder(g):
    files = {g.filename(True) for _ in range(g.c([1, 2, 3, 4, 5, 6, 8, 12]))}
    folders = {g.c(WORDS + COMMON + ["bin", "lib", "src", "tests", "docs"]) + "/" for _ in range(g.c([0, 0, 0, 1, 2, 4]))}
    return sorted(files | folders)


def names(items):
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


class Loop:
    """Collects the messages of one user turn."""

    def __init__(self, g, messages, schemas):
        self.g, self.messages, self.schemas = g, messages, schemas
        self.first = True

    def user(self, text):
        self.messages.append(dict(role="user", content=vary(self.g, text, 0.2)))

    def call(self, thought, result, *calls):
        if self.first:
            thought = listing([dict(schema=s, name=s["name"]) for s in self.schemas]) + " " + thought
        self.first = False
        self.messages.append(dict(role="assistant", content="", reasoning=thought, calls=list(calls)))
        end = "\n" if not self.g.ho and self.g.p(0.25) else ""  # as files end
        results = result if isinstance(result, list) else [result]
        self.messages.append(dict(role="tool", results=[text + end for text in results]))

    def say(self, text, thought, must=()):
        self.messages.append(dict(role="assistant", content=text, reasoning=thought, must=list(must)))


ERRORS = [
    "error: no such file",
    "error: no such folder",
    "error: permission denied",
    "error: not a text file",
    "error: path is outside",
]


def failed(g, loop, what):
    error = g.c(ERRORS)
    loop.call(f'I need "{what[0]}".', error, what)
    reason = error[7:]
    loop.say(g.c(["Sorry, that did not work: {e}.", "It failed: {e}.", "I am sorry, there was an error: {e}."]).replace("{e}", reason),
             f"The call failed: {reason}.", [reason])  # fmt: skip


def use_clock(g, loop):
    date, clock, day = g.date(), g.clock(), g.c(DAYS)
    kind = g.c(["time", "time", "date", "day"])
    loop.user(g.t({
        "time": ["What time is it?", "What is the time?", "Tell me the time.", "How late is it?", "Do you have the time?", "Current time?",
                 "time please", "Can you tell me what time it is?", "What time is it now?", "What does your clock show?", "Look at the clock.", "Check the clock.",
                 "What hour is it?", "Read the clock for me.", "I need to know the time.", "Have a look at the clock, please.", "Do you know how late it is?",
                 "Show me the time.", "Is there a clock? What time is it?", "Use the clock.", "How late do we have it?", "What is on the clock?",
                 "The time?", "Now is when?", "Is it late?", "What does the clock say?"],
        "date": ["What is the date?", "Which date is it today?", "Tell me today's date.", "Today's date?", "What is the date today?",
                 "Which date do we have?", "The date, please.", "Tell me the date.", "What is the current date?", "I need today's date.",
                 "What is the day and month today?", "date?", "Do you know the date?", "Give me the current date."],
        "day": ["What day is it?", "Which day of the week is it?", "What weekday is today?", "Is it Monday today?", "Which day is it?", "The weekday, please.", "Tell me the day of the week.", "What is today?",
                "Is today a Sunday?", "Which day do we have?", "day of the week?", "Do you know which day it is?", "What day is it today?"],
    }[kind]))  # fmt: skip
    loop.call("I need \"clock\".", f"{day} {date} {clock}:{g.n(0, 59):02d}", ("clock", {}))
    value = {"time": clock, "date": date, "day": day}[kind]
    loop.say(g.c({"time": ["It is {v}.", "The time is {v}."], "date": ["Today is {v}.", "The date is {v}."], "day": ["It is {v}.", "Today is {v}."]}[kind]).replace("{v}", value),
             f"The clock says {value}.", [value])  # fmt: skip


def expression(g):
    a, b, c = g.num(g.n(1, 5)), g.num(g.n(1, 4)), g.num(g.n(1, 3))
    k = g.n(0, 8)
    if g.p(0.12):
        a, b = g.n(1, 9999) / 10, g.c([b, g.n(1, 999) / 10])
    if k < 5:
        op, word = g.c([("+", "plus"), ("-", "minus"), ("*", "times"), ("/", "divided by")])
        said = g.c([f"{a} {word} {b}", f"{a} {op} {b}", f"{a}{op}{b}", f"{a} {'x' if op == '*' else op} {b}"])
        return said, f"{a} {op} {b}"
    text = {5: f"{a} + {b} - {c}", 6: f"({a} + {b}) * {c}", 7: f"{a} * {b} + {c}", 8: f"{a} * ({b} - {c})"}[k]
    said = text.replace("*", "x") if g.p(0.2) else text.replace(" ", "") if g.p(0.2) else text
    return said, text


def compute(text):
    value = eval(text, {"__builtins__": {}})  # our own arithmetic
    return str(value) if isinstance(value, int) else f"{value:.10g}"


def use_calculator(g, loop):
    said, text = expression(g)
    value = compute(text)
    loop.user(g.t(["What's {e}?", "What does {e} make?", "Please compute {e}.", "What is {e}?", "Compute {e}.", "{e}", "How much is {e}?", "Calculate {e}.", "{e} = ?", "Please work out {e}.", "I need {e}.",
                   "Tell me the result of {e}.", "Use the calculator: {e}", "Solve {e}.", "What do you get for {e}?", "Can you compute {e}?"]).replace("{e}", "{" + said + "}"))  # fmt: skip
    loop.messages[-1]["content"] = loop.messages[-1]["content"].replace("{" + said + "}", said)
    loop.call(f"I need \"calculator\". \"expression\": {text}.", value, ("calculator", {"expression": text}))
    loop.say(g.c([f"It is {value}.", f"The result is {value}.", f"{said} is {value}."]), f"The result is {value}.", [value])


def use_list(g, loop):
    path = g.c([".", ".", g.c(WORDS + COMMON), g.c(WORDS) + "/" + g.c(COMMON)])
    here = ["What files are here?", "List the files.", "Which files are there?", "Show me the files.", "What is in this folder?", "ls",
            "Show the current folder.", "List the files in this folder.", "Do I have any files here?", "What files do I have?"]  # fmt: skip
    there = ["What is in the folder {p}?", "List the files in {p}.", "Show me the folder {p}.", "Which files are in {p}?", "Look into {p}.",
             "What files does the folder {p} hold?", "ls {p}", "What is in {p}?", "What is inside {p}?", "Show me {p}.", "Open {p}.",
             "What does {p} hold?", "The contents of {p}, please.", "Look at {p}.", "What do I have in {p}?", "Show what is in {p}."]  # fmt: skip
    loop.user(g.t(here if path == "." else there).replace("{p}", "{" + path + "}"))
    loop.messages[-1]["content"] = loop.messages[-1]["content"].replace("{" + path + "}", path)
    if g.p(0.12):
        return failed(g, loop, ("list_files", {"path": path}))
    files = folder(g) if g.p(0.93) else []
    loop.call(f"I need \"list_files\". \"path\": {path}.", "\n".join(files) or "(empty)", ("list_files", {"path": path}))
    if not files:
        return loop.say("There are no files.", "The folder is empty.", ["no files"])
    loop.say(g.c(["There are these files: {f}.", "The files are {f}.", "I see {f}."]).replace("{f}", names(files)) if len(files) > 1 else f"There is one file: {files[0]}.",
             "I name the files.", files)  # fmt: skip


def quoted(text):
    return text.rstrip(".")


def ask_file(g, loop, path, templates, **fields):
    text = g.t(templates)
    fields["p"] = path
    loop.user(text)
    loop.messages[-1]["content"] = fill(loop.messages[-1]["content"], fields)


def use_read(g, loop):
    path, lines = g.path(True), file_text(g)
    text = "\n".join(l[0] for l in lines)
    kind = g.c(["all", "fact", "fact"])
    if kind == "all":
        ask_file(g, loop, path, ["Please read {p}.", "Can you read {p}?", "Open the file {p}.", "Could you show me {p}?", "What does the file {p} contain?",
                                 "Please read the file {p} to me.", "I want to see {p}.", "Read me {p}.", "Read {p}.", "What does {p} say?", "Show me {p}.", "What is in {p}?", "Open {p} and read it to me.", "cat {p}",
                                 "Read the file {p}.", "Print {p}.", "What is written in {p}?", "Show the contents of {p}."])  # fmt: skip
    else:
        item = g.c(lines)
        ask_file(g, loop, path, ["Read {p} and tell me about the {k}.", "What does {p} say about {k}?", "Look in {p}: what about {k}?",
                                 "I need to know about {k}. It is in {p}.", "In {p}, what is said about {k}?", "Read {p}. What about {k}?"], k=item[1])  # fmt: skip
    if g.p(0.12):
        return failed(g, loop, ("read_file", {"path": path}))
    loop.call(f"I need \"read_file\". \"path\": {path}.", text, ("read_file", {"path": path}))
    if kind == "all":
        loop.say(g.c(["It says:\n{t}", "The file says:\n{t}"]).replace("{t}", text), "I show the text.", [text])
    else:
        loop.say(g.c(["It says: {t}", "{t}"]).replace("{t}", item[0]), f"The line is: {item[0]}", [item[2]])


def use_find(g, loop):
    path, lines = g.path(True), file_text(g)
    item = g.c(lines)
    if g.p(0.4):  # any word of the line
        item = (item[0], g.c([w for w in item[0].replace(":", " ").rstrip(".").split() if len(w) > 2] or [item[1]]), item[2])
    ask_file(g, loop, path, ["Please find {k} in {p}.", "Can you find {k} in {p}?", "Find the word {k} in {p}.", "Does the file {p} contain {k}?",
                             "Search for {k} in {p}.", "Is {k} in {p}?", "Where is {k} in {p}?", "On which line of {p} is {k}?",
                             "What does {p} say about {k}? Search for it.", "Find the line with {k} in {p}.", "Find {k} in {p}.", "Search {p} for {k}.", "Where does {p} mention {k}?", "Does {p} mention {k}?", "grep {k} {p}",
                             "Look for {k} in {p}.", "Is there something about {k} in {p}?", "Find the text {k} in the file {p}.",
                             "Which line of {p} has {k}?", "Search the file {p} for the word {k}."], k=item[1])  # fmt: skip
    call = ("find_in_file", {"path": path, "text": item[1]})
    if g.p(0.1):
        return failed(g, loop, call)
    thought = f"I need \"find_in_file\". \"path\": {path}. \"text\": {item[1]}."
    if g.p(0.12):
        loop.call(thought, "no match", call)
        return loop.say(g.c(["No, {p} does not mention {k}.", "There is no match for {k} in {p}."]).replace("{p}", path).replace("{k}", item[1]),
                        "There is no match.", [item[1]])  # fmt: skip
    number = g.n(1, 99)
    if g.p(0.15):
        more = g.c(["See also {k}.", "Ask about {k} again.", "{k}: checked", "{k} is in the list.", "{k}, as before."]).replace("{k}", item[1])
        found = f"{number}: {item[0]}\n{number + g.n(1, 9)}: {more}"
        loop.call(thought, found, call)
        return loop.say("I found it in two lines:\n" + found, "Two lines match.", [item[0], more])
    loop.call(thought, f"{number}: {item[0]}", call)
    loop.say(g.c(["Line {n} says: {t}", "Yes, line {n}: {t}", "I found it in line {n}: {t}"]).replace("{n}", str(number)).replace("{t}", item[0]),
             f"Line {number} matches.", [item[2]])  # fmt: skip


def use_chain(g, loop):
    """List, then read or find, then answer."""
    base = g.c([".", g.c(WORDS + COMMON)])
    place = "here" if base == "." else "in the folder {base}"
    files = [f for f in folder(g) if not f.endswith("/")] or [g.filename(True)]
    lines = file_text(g)
    item = g.c(lines)
    kind = g.c(["first", "last", "named", "find"])
    chosen = files[0] if kind == "first" else files[-1] if kind == "last" else g.c(files)
    stem = chosen.split(".")[0]
    path = chosen if base == "." else base + "/" + chosen
    if kind in ("first", "last"):
        templates = ["List the files {place} and read the {kind} one.", "Read me the {kind} file {place}.", "Look at the files {place} and show me the {kind} one.",
                     "What does the {kind} file {place} say?", "Open the {kind} file {place}."]  # fmt: skip
    elif kind == "named":
        templates = ["List the files {place} and read the {stem} file.", "Is there a {stem} file {place}? Read it.", "Find the {stem} file {place} and read it to me.",
                     "Look for a file about {stem} {place} and read it.", "What does the {stem} file {place} say?"]  # fmt: skip
    else:
        templates = ["List the files {place} and find {k} in the {stem} file.", "Look {place} for the {stem} file and search it for {k}.",
                     "What does the {stem} file {place} say about {k}?", "Search the {stem} file {place} for {k}.",
                     "Which line of the {stem} file {place} has {k}?", "Is {k} in the {stem} file {place}?",
                     "Where does the {stem} file {place} mention {k}?", "Look up {k} in the {stem} file {place}.",
                     "List the files {place} and search the {stem} one for {k}.", "Find {k} in the {stem} file {place}."]  # fmt: skip
    ask_file(g, loop, path, [t.replace("{place}", place) for t in templates], kind=kind, stem=stem, base=base, k=item[1])
    loop.call(f"First I need \"list_files\". \"path\": {base}.", "\n".join(files), ("list_files", {"path": base}))
    if kind == "find":
        number = g.n(1, 30)
        loop.call(f"The file is {chosen}. I need \"find_in_file\". \"path\": {path}. \"text\": {item[1]}.", f"{number}: {item[0]}",
                  ("find_in_file", {"path": path, "text": item[1]}))  # fmt: skip
        return loop.say(f"Line {number} of {chosen} says: {item[0]}", f"Line {number} matches.", [item[2]])
    text = "\n".join(l[0] for l in lines)
    loop.call(f"The file is {chosen}. I need \"read_file\". \"path\": {path}.", text, ("read_file", {"path": path}))
    loop.say(f"{chosen} says:\n{text}", "I show the text.", [text])


def use_two(g, loop):
    """Two independent calls at once."""
    a, b = g.path(True), g.path(True)
    x, y = line(g)[0], line(g)[0]
    if g.p(0.5):
        ask_file(
            g,
            loop,
            a,
            ["Read {p} and {q}.", "Show me {p} and also {q}.", "What do {p} and {q} say?", "Read the files {p} and {q}."],
            q=b,
        )
        loop.call(
            f"I need \"read_file\". \"path\": {a}. I need \"read_file\". \"path\": {b}.",
            [x, y],
            ("read_file", {"path": a}),
            ("read_file", {"path": b}),
        )
        return loop.say(f"{a} says: {x}\n{b} says: {y}", "I show both.", [x, y])
    said, text = expression(g)
    value, clock = compute(text), g.clock()
    loop.user(
        g.t(
            [
                "What time is it, and what is [e]?",
                "Tell me the time and compute [e].",
                "Time please. And [e]?",
                "I need the time. Also, how much is [e]?",
            ]
        )
    )
    loop.messages[-1]["content"] = loop.messages[-1]["content"].replace("[e]", said)
    loop.call(f"I need \"clock\". I need \"calculator\". \"expression\": {text}.", [f"{g.c(DAYS)} {g.date()} {clock}:{g.n(0, 59):02d}", value],
              ("clock", {}), ("calculator", {"expression": text}))  # fmt: skip
    loop.say(f"It is {clock}. The result is {value}.", "I have both.", [clock, value])


def use_none(g, loop):
    k = g.r.random()
    q, a, must, thought = chat.small(g) if k < 0.4 else chat.fact(g) if k < 0.75 else outside.question(g)
    loop.user(q)
    loop.say(a, "No tool is needed. " + thought, must)


NEEDS = dict(
    clock=["clock"],
    calculator=["calculator"],
    list=["list_files"],
    read=["read_file"],
    find=["find_in_file"],
    chain=["list_files", "read_file", "find_in_file"],
    two=["clock", "calculator", "read_file"],
    none=[],
)
USES = dict(
    clock=use_clock,
    calculator=use_calculator,
    list=use_list,
    read=use_read,
    find=use_find,
    chain=use_chain,
    two=use_two,
    none=use_none,
)


def conversation(g, kind=None, think=None, turns=None, all_tools=None):
    think = g.p(0.4) if think is None else think
    schemas = list(SCHEMAS)
    if not all_tools and g.p(0.5):
        schemas = g.r.sample(schemas, g.c([1, 2, 2, 3, 4, 5, 5]))
        if g.p(0.5):
            schemas.sort(key=SCHEMAS.index)
        if g.p(0.4):
            schemas.insert(g.n(0, len(schemas)), novel(g)["schema"])
    names = {t["name"] for t in schemas}
    kinds = ["clock", "list"] + ["calculator", "read", "find", "chain", "none"] * 2 + ["two"]
    kinds = [k for k in kinds if names.issuperset(NEEDS[k])]
    system = g.c(SYSTEM)
    messages = [dict(role="system", content=system)] if system else []
    for _ in range(turns or (g.c([1, 1, 2]) if think else g.n(1, 4))):
        USES[kind or g.c(kinds)](g, Loop(g, messages, schemas))
    return dict(cat="demo", text=encode(messages, schemas, think), messages=messages, tools=schemas, think=think)
