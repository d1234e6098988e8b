"""Writes the evaluation suites (SUITES.md): held-out values, wordings and tools, from fixed seeds.

python suites.py DIR [--n 200]             one FILE.jsonl per group in DIR, and all.jsonl
python suites.py --quick FILE.jsonl        the small set of the test command (tests/nano/quick.jsonl)
"""

import argparse
import json
import os

from corpus import chat, demo, ledgers, outside, persona, source, sums, textops, toolchat


def openai(messages, tools):
    """Our messages as OpenAI writes them."""
    out, number = [], 0
    for m in messages:
        if m["role"] == "tool":
            for i, text in enumerate(m["results"]):
                out.append(dict(role="tool", tool_call_id=f"call_{number - len(m['results']) + i}", content=text))
            continue
        row = dict(role=m["role"], content=m["content"])
        if m.get("calls"):
            row["tool_calls"] = []
            for name, arguments in m["calls"]:
                function = dict(name=name, arguments=source.dumps(arguments))
                row["tool_calls"].append(dict(id=f"call_{number}", type="function", function=function))
                number += 1
        if m.get("reasoning"):
            row["reasoning_content"] = m["reasoning"]
        out.append(row)
    last = max(i for i, m in enumerate(out) if m["role"] == "user")
    for m in out[:last]:
        m.pop("reasoning_content", None)
    return out


def case(document, turn, check, tokens):
    """The case that asks for message `turn` of a document."""
    row = dict(messages=openai(document["messages"][:turn], document.get("tools")))
    if document.get("tools"):
        row["tools"] = [dict(type="function", function=t) for t in document["tools"]]
    return dict(row, thinking=document["think"], max_tokens=tokens, check=check)


def contains(values):
    return dict(type="contains_all", values=list(values))


def single(make, think):
    """One question, one answer."""

    def build(g):
        q, a, must, thought = make(g)
        if not must:
            return None
        messages = [dict(role="system", content="You are a helpful assistant."), dict(role="user", content=g.noise(q))]
        return case(dict(messages=messages, think=think), 2, contains(must), 96)

    return build


def talk(make, check=contains, least=3, think=None, tokens=128):
    """The last answer of a conversation."""

    def build(g):
        d = make(g)
        if think is not None and d["think"] != think:
            return None
        must = d["must"]
        if not must or len(d["messages"]) < least:
            return None
        return case(d, len(d["messages"]) - 1, check(must), tokens)

    return build


def first_call(d):
    return next((i for i, m in enumerate(d["messages"]) if m.get("calls")), None)


def calls_check(message):
    return dict(type="tool_calls", calls=[dict(name=n, arguments=a) for n, a in message["calls"]])


def call(kind, sort, think):
    """The call for a request; the called tool is of the given sort among tools of all sorts."""

    def build(g):
        d = toolchat.conversation(g, kind, None, think, turns=1)
        i = first_call(d)
        if i is None or (kind != "several" and len(d["messages"][i]["calls"]) > 1):
            return None
        sorts = {t["name"]: t["sort"] for t in d["boxes"]}
        if any(sorts[name] != sort for name, _ in d["messages"][i]["calls"]):
            return None
        if kind == "several" and len(d["messages"][i]["calls"]) != 2:
            return None
        return case(d, i, calls_check(d["messages"][i]), 512 if think else 320)

    return build


def answer(think, error):
    def build(g):
        d = toolchat.conversation(g, "one", None, think, turns=1)
        last = d["messages"][-1]
        failed = last["reasoning"].startswith("The call failed")
        if failed != error or not last["must"]:
            return None
        return case(d, len(d["messages"]) - 1, contains(last["must"]), 192)

    return build


def no_call(g):
    d = toolchat.conversation(g, "none", None, False, turns=1)
    return case(d, len(d["messages"]) - 1, dict(type="no_tool_call"), 128)


def unable(g):
    d = toolchat.conversation(g, "unable", None, False, turns=1)
    return case(d, len(d["messages"]) - 1, contains(["no tool"]), 64)


def ask_back(g):
    d = toolchat.conversation(g, "ask", None, False, turns=1)
    if d["messages"][-1].get("calls") or first_call(d) is None or len([m for m in d["messages"] if m["role"] == "user"]) < 2:
        return None
    i = first_call(d)
    return case(d, i, calls_check(d["messages"][i]), 320)


def demo_call(kind, think):
    def build(g):
        d = demo.conversation(g, kind, think, turns=1, all_tools=True)
        i = first_call(d)
        return case(d, i, calls_check(d["messages"][i]), 320)

    return build


def demo_second(think):
    """The second call of a chain, after the file list."""

    def build(g):
        d = demo.conversation(g, "chain", think, turns=1, all_tools=True)
        at = [i for i, m in enumerate(d["messages"]) if m.get("calls")]
        return case(d, at[1], calls_check(d["messages"][at[1]]), 256)

    return build


def demo_answer(kind, think):
    def build(g):
        d = demo.conversation(g, kind, think, turns=1, all_tools=True)
        must = d["messages"][-1]["must"]
        return case(d, len(d["messages"]) - 1, contains(must), 256)

    return build


def outside_question(g):
    q, _, _, _ = outside.question(g)
    messages = [dict(role="system", content=g.c(chat.SYSTEM)), dict(role="user", content=g.noise(q))]
    if not messages[0]["content"]:
        messages = messages[1:]
    return case(dict(messages=messages, think=g.p(0.3)), len(messages), contains(["not know"]), 64)


def retrieval(count, tokens, two=False, think=False):
    def build(g):
        d = ledgers.conversation(g, int(tokens * 0.95) - 60, nq=1, two=two, think=think)
        size = count(d["text"])
        if not tokens * 0.8 < size <= tokens:
            return None
        return case(d, len(d["messages"]) - 1, contains(d["must"]), 64)

    return build


def text_operation(g):
    d = textops.conversation(g)
    d["think"] = False
    return case(d, len(d["messages"]) - 1, dict(type="exact", value=d["messages"][-1]["content"]), 192)


def number(must):
    text = must[0]
    return dict(type="number", value=text) if text.isdigit() else contains(must)


def turns(least):
    return lambda make: talk(make, least=least)


def plain_suites():
    """name -> builder; each is also made with held-out wording, and most with typos."""
    s = dict(
        facts=single(chat.fact, False), facts_thinking=single(chat.fact, True), identity=single(chat.identity, False), multi_turn=talk(chat.conversation, least=5),
        persona=talk(persona.conversation), known_tools=call("one", "known", False), known_tools_thinking=call("one", "known", True),
        fitting_tools=call("one", "fits", False), fitting_tools_thinking=call("one", "fits", True),
        opaque_tools=call("one", "opaque", False), opaque_tools_thinking=call("one", "opaque", True),
        several_known=call("several", "known", False), several_fitting=call("several", "fits", False),
        several_opaque=call("several", "opaque", False), several_fitting_thinking=call("several", "fits", True),
        no_call=no_call, unable=unable, results=answer(False, False), results_thinking=answer(True, False), errors=answer(False, True),
        ask_back=ask_back, sums_thinking=talk(lambda g: sums.conversation(g, True), number),
        sums_direct=talk(lambda g: sums.conversation(g, False), number), text=text_operation, outside=outside_question,
        demo_clock=demo_call("clock", False), demo_calculator=demo_call("calculator", False), demo_list=demo_call("list", False),
        demo_read=demo_call("read", False), demo_find=demo_call("find", False), demo_first=demo_call("chain", True),
        demo_second=demo_second(False), demo_second_thinking=demo_second(True), demo_answer=demo_answer("read", False),
        demo_chain_answer=demo_answer("chain", True), demo_two=demo_call("two", False),
    )  # fmt: skip
    return s


NO_TYPOS = {"results", "results_thinking", "errors", "ask_back", "text"}


def long_suites(count):
    s = {f"retrieval_{t}": retrieval(count, t) for t in (512, 1024, 2048, 4096, 8192)}
    s["retrieval_two_1024"] = retrieval(count, 1024, two=True)
    s["retrieval_thinking_1024"] = retrieval(count, 1024, think=True)
    return s


def generate(name, build, count, wording=False, noise=0, seed=0):
    """`count` cases of one suite; the seed depends on the suite's name only."""
    g = source.Source(source.bucket(name, 1 << 30) + seed, True, wording, noise)
    rows = []
    while len(rows) < count:
        row = build(g)
        if row:
            rows.append(dict(id=f"{name}-{len(rows):04d}", suite=name, **row))
    return rows


def everything(count, tokens, long_count=None):
    """-> {group: rows}"""
    plain = plain_suites()
    groups = {"values": [], "wording": [], "typos": [], "long": []}
    for name, build in plain.items():
        groups["values"] += generate(name, build, count)
        groups["wording"] += generate(name + "_wording", build, count, wording=True)
        if name not in NO_TYPOS:
            groups["typos"] += generate(name + "_typos", build, count, noise=1)
    for name, build in long_suites(tokens).items():
        groups["long"] += generate(name, build, long_count or count)
    return groups


def write(path, rows):
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(path, len(rows), "cases", os.path.getsize(path), "bytes")


QUICK = ("demo_clock", "demo_calculator", "demo_list", "demo_read", "demo_find", "demo_answer", "identity", "facts", "multi_turn",
         "persona", "known_tools", "fitting_tools", "opaque_tools", "several_fitting", "no_call", "results", "sums_direct",
         "sums_thinking", "outside", "retrieval_512", "retrieval_2048")  # fmt: skip


def quick(tokens, each=10):
    builders = plain_suites() | long_suites(tokens)
    return [row for name in QUICK for row in generate(name, builders[name], each, seed=77)]


if __name__ == "__main__":
    import packing

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--quick")
    parser.add_argument(
        "--tokenizer", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "checkpoint/tokenizer.json")
    )
    a = parser.parse_args()
    tokens = packing.Tokens(a.tokenizer)
    count = lambda text: len(tokens.enc(text))
    if a.quick:
        write(a.quick, quick(count))
    if a.folder:
        os.makedirs(a.folder, exist_ok=True)
        groups = everything(a.n, count)
        for group, rows in groups.items():
            write(os.path.join(a.folder, group + ".jsonl"), rows)
