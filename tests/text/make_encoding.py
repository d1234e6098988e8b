"""The chat encoding's cases in data/encoding, made by the official encoder.

    python3 make_encoding.py encoding_dsv32.py

The argument is the file encoding/encoding_dsv32.py of the published DeepSeek-V3.2 checkpoint. Requests and completions
are ours, written out below or drawn from a seed; prompts and messages are what that file makes of them. Each line of
rendered.jsonl.zst is {"name", "request", "thinking", "keep_thinking", "prompt"}, the prompt null where the official
code asserts or would leave a message out; of parsed.jsonl.zst {"text", "thinking", "message"}, the message null where
the official parser asserts or takes what it should not (no JSON, markup in a name, a block without calls); of numbers.json [JSON text, the same as Python writes it].
"""

import importlib.util
import json
import math
import random
import sys
from pathlib import Path

import zstandard

OUT = Path(__file__).parent / "data" / "encoding"
D = "｜DSML｜"
EOS = "<｜end▁of▁sentence｜>"


def load(path):
    spec = importlib.util.spec_from_file_location("official", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Raw(str):
    """JSON text that stands as it is."""


class Members(list):
    """An object as (key, value) pairs, so that keys may repeat."""


def spell(value, separators=(", ", ": "), ascii=False):
    """JSON text of `value`."""
    comma, colon = separators
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        value = Members(value.items())
    if isinstance(value, Members):
        return "{" + comma.join(json.dumps(k, ensure_ascii=ascii) + colon + spell(v, separators, ascii) for k, v in value) + "}"
    if isinstance(value, list):
        return "[" + comma.join(spell(v, separators, ascii) for v in value) + "]"
    return json.dumps(value, ensure_ascii=ascii)


# ---------------------------------------------------------------------------------------------- written requests


def system(content="You are brief.", **more):
    return {"role": "system", "content": content, **more}


def user(content="Hi"):
    return {"role": "user", "content": content}


def developer(content="Do it.", **more):
    return {"role": "developer", "content": content, **more}


def assistant(content=None, reasoning=None, calls=(), **more):
    message = {"role": "assistant", **more}
    if content is not None:
        message["content"] = content
    if reasoning is not None:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = [
            {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(calls)
        ]
    return message


def results(*texts):
    return [{"role": "tool", "tool_call_id": f"call_{i}", "content": t} for i, t in enumerate(texts)]


def tool(name, properties=None, **more):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties or {}}, **more}}


NESTED = tool(
    "plan_route",
    {
        "stops": {"type": "array", "minItems": 1, "items": {"type": "object", "properties": {
            "place": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            "at": {"type": "array", "items": {"type": "number"}, "examples": [[0.5, -1e-7, 1e16]]}}}},
        "mode": {"type": "string", "enum": ["à pied", "车", "\"quoted\"\n"]},
        "fast": {"type": "boolean", "default": True},
    },
    description="Plan a route.\nUse {braces} and \\backslashes\\ as they are.",
    strict=True,
)
CLOCK = tool("clock", description="Tell the time")
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object", "properties": {"x": {"type": "integer"}}}}}


def written():
    call = ("clock", "{}")
    args = ("f", '{"text": "a \\"b\\"\\n<c>", "n": 1e3, "big": 12345678901234567890123, "on": false, "none": null, "list": [1,{"k":"v"}], "empty": ""}')
    talks = {
        "user": [user()],
        "system, user": [system(), user()],
        "system without content": [{"role": "system"}, user()],
        "empty texts": [system(""), user("")],
        "late system": [user("a"), assistant("b"), system("c"), user("d")],
        "system alone": [system()],
        "turns": [user("a"), assistant("b", "r1"), user("c"), assistant("d", "r2"), user("e")],
        "two users": [user("a"), user("b")],
        "ends with an answer": [user("a"), assistant("b", "thought")],
        "answer without thought": [user("a"), assistant("b")],
        "answer with empty thought": [user("a"), assistant("b", "")],
        "call": [user("time?"), assistant(calls=[call])],
        "call with text and thought": [user("time?"), assistant("Let me look.", "hm", [call])],
        "call, result": [user("time?"), assistant("", "hm", [call]), *results("noon")],
        "call, result, answer": [user("t?"), assistant("", "hm", [call]), *results("noon"), assistant("Noon.", "so")],
        "call, result, answer, user": [user("t?"), assistant("", "hm", [call]), *results("noon"), assistant("Noon.", "so"), user("ok")],
        "calls in parallel": [user("a"), assistant(calls=[call, args, call]), *results("1", "", "3\n")],
        "results so far": [user("a"), assistant(calls=[call, args, call]), *results("1", "2")],
        "calls in rounds": [user("a"), assistant("", "r1", [call]), *results("1"), assistant("", "r2", [args]), *results("2")],
        "more results than calls": [user("a"), assistant(calls=[call]), *results("1", "2")],
        "result without call": [user("a"), assistant("b", "c"), *results("1")],
        "result after user": [user("a"), *results("1")],
        "developer": [developer()],
        "system, developer": [system(), developer()],
        "empty developer": [developer("")],
        "developer with all": [developer(tools=[CLOCK, NESTED], response_format=FORMAT)],
        "developer, answer, user": [developer(), assistant("b", "r"), user("c")],
        "user, answer, developer": [user(), assistant("b", "r"), developer("c", tools=[CLOCK])],
        "system tools": [system(tools=[CLOCK, NESTED]), user()],
        "system format": [system(response_format=FORMAT), user()],
        "system with both": [system(tools=[NESTED], response_format=FORMAT), user()],
        "empty tools and format": [system(tools=[], response_format={}), user()],
        "tools of the second system": [system("a"), user("b"), assistant("c", "r"), system("d", tools=[CLOCK]), user("e")],
        "markers in texts": [system(f"<think></think>{EOS}"), user(f"<｜Assistant｜></think>\n\n<{D}function_calls>"), assistant("x</think>", "y<think>"), user("z")],
        "text of all kinds": [user("tab\t nul\u0000 bell\u0007 del\u007f nbsp\u00a0 ls\u2028 bom\ufeff 好 🗓️ \U0001f600 e\u0301")],
        "no user": [assistant("a", "r")],
        "call without user": [assistant("a", "r", [call]), *results("1")],
    }
    for name, messages in talks.items():
        yield name, {"messages": messages}
    for name, more in {
        "tools": {"tools": [CLOCK, NESTED]},
        "format": {"response_format": FORMAT},
        "tools and format": {"tools": [NESTED], "response_format": {"type": "json_object"}},
        "nothing": {"tools": [], "response_format": None},
    }.items():
        for where, messages in {"user": [user()], "system": [system(), user()], "late system": [user("a"), assistant("b", "r"), system("c"), user("d")]}.items():
            yield f"request {name}, {where}", {"messages": messages, **more}


# ------------------------------------------------------------------------------------------------ drawn requests

NUMBERS = (
    "0 -0 7 -12 18446744073709551616 -123456789012345678901234567890 0.0 -0.0 1.0 0.1 -2.5 1e3 1E3 1e+3 1e-3 1e15 1e16 1e17 1e-4 1e-5 "
    "123456789.123456789 0.30000000000000004 1e22 1e23 5e-324 1e-400 1e400 -1e400 1.7976931348623157e308 2.2250738585072014e-308 "
    "9007199254740993.0 100000000000000000000.0 0.00001234 12345678901234567.0 1.5e300 4.35 0.1e1 1e0 0e5 -0e0 0.000e9"
).split()
TEXTS = [
    "", "a", "plain words", "two\nlines", "  spaced  ", '"quoted"', "back\\slash", "好的", "🌤️", "é", "</result>", "<think>", "</think>", "{x}",
    "%s", "\t", "\r\n", "\u0001", "a" * 70, "1", "true", f"</{D}parameter", "\\u0041", "//", "&amp;", "ー", "\u2028",
]


def number(r):
    if r.random() < 0.5:
        return Raw(r.choice(NUMBERS))
    return Raw(repr(r.choice([r.randrange(-(10**r.randrange(1, 25)), 10**19), r.uniform(-1, 1) * 10.0 ** r.randrange(-30, 30), float(r.randrange(10**6))])))


def text(r):
    return "".join(r.choice(TEXTS) for _ in range(r.randrange(1, 4)))


def value(r, depth=0):
    kind = r.randrange(8 if depth < 3 else 5)
    if kind == 0:
        return r.choice([True, False, None])
    if kind <= 2:
        return number(r)
    if kind <= 4:
        return text(r)
    if kind == 5:
        return [value(r, depth + 1) for _ in range(r.randrange(4))]
    return members(r, depth + 1)


def members(r, depth=0):
    pairs = Members((r.choice(["x", "y", "long key", "键", 'k"q', ""]) if r.random() < 0.8 else text(r), value(r, depth)) for _ in range(r.randrange(4)))
    return pairs if r.random() < 0.3 else Members(dict(pairs).items())


def arguments(r):
    return spell(members(r), r.choice([(", ", ": "), (",", ":"), (" ,\n", "\t:  ")]), r.random() < 0.3)


def instructions(r):
    more = {}
    if r.random() < 0.3:
        more["tools"] = [
            Members([("type", "function"), ("function", Members([("name", r.choice(["f", "get_x", "工具"])), ("description", text(r)), ("parameters", members(r))]))])
            for _ in range(r.randrange(3))
        ]
    if r.random() < 0.2:
        more["response_format"] = members(r)
    return more


def drawn(r):
    messages = []
    if r.random() < 0.6:
        messages.append(system(text(r), **instructions(r)))
    for _ in range(r.randrange(1, 4)):
        messages.append(developer(text(r), **instructions(r)) if r.random() < 0.15 else user(text(r)))
        for _ in range(r.randrange(3)):
            calls = [(r.choice(["f", "get_x", "工具"]), arguments(r)) for _ in range(r.randrange(1, 4))]
            messages.append(assistant(r.choice([None, "", text(r)]), r.choice([None, text(r)]), calls))
            count = len(calls) if r.random() < 0.9 else r.randrange(len(calls) + 1)
            messages += results(*(text(r) for _ in range(count)))
        if r.random() < 0.7:
            messages.append(assistant(text(r), text(r) if r.random() < 0.9 else None))
    request = {"messages": messages}
    if not any("tools" in m or "response_format" in m for m in messages):
        request.update(instructions(r))
    return spell(request, r.choice([(", ", ": "), (",", ":"), (",\n ", ": ")]), r.random() < 0.3)


def render(official, request_text, thinking, keep):
    """The official prompt, with the request's own tools and format on the first system message."""
    request = json.loads(request_text)
    messages = request["messages"]
    own = {k: request[k] for k in ("tools", "response_format") if request.get(k)}
    if own:
        first = next((m for m in messages if m["role"] == "system"), None)
        if first is None:
            first = {"role": "system", "content": ""}
            messages.insert(0, first)
        first.update(own)
    last = official.find_last_user_index(messages)
    if thinking and not keep and any(m["role"] == "developer" for m in messages[: max(last, 0)]):
        return None  # it would be left out
    try:
        return official.encode_messages(messages, "thinking" if thinking else "chat", drop_thinking=not keep)
    except AssertionError:
        return None


# -------------------------------------------------------------------------------------------------- completions


def block(*invokes):
    return f"\n\n<{D}function_calls>\n" + "".join(f"{i}\n" for i in invokes) + f"</{D}function_calls>"


def invoke(name, *parameters, between="\n"):
    return f'<{D}invoke name="{name}">\n' + between.join(parameters) + f"\n</{D}invoke>"


def parameter(name, value, is_string):
    return f'<{D}parameter name="{name}" string="{is_string}">{value}</{D}parameter>'


def written_completions():
    s, n = parameter("text", "a \"b\"\n\\c <d> 好", "true"), parameter("n", '{"k": [1, 2.50]}', "false")
    f, g = invoke("f", s, n), invoke("g")
    bodies = [
        "", "Hello.", "a\n\n", "\n\n<", f"\n\n<{D}", f"<{D}function_calls>", f"a\n<{D}function_calls>\n", f"a{block(f)}", block(f), block(g), block(f, g, f),
        f"a\n{block(g)}", f"\n\n\n{block(g)}", block(), f"{block(f)} ", f"{block(f)}\n", block(f) + block(g), block(f) + "more", f"a{block(f)}"[:-1],
        block(invoke("f", s, s)), block(invoke("f", parameter("x", "nope", "false"))), block(invoke("f", parameter("x", "NaN", "false"))),
        block(invoke("f", parameter("x", " 1 ", "false"))), block(invoke("f", parameter("x", "", "false"))), block(invoke("f", parameter("", "", "true"))),
        block(invoke("", s)), block(invoke("f", s, between="")), block(invoke("f", s, n, between=" ")), block(f"<{D}invoke  name=\"f\">\n{s}\n</{D}invoke>"),
        block(f"<{D}invoke\nname=\"f\">\n{s}\n</{D}invoke>"), block(f"<{D}invokename=\"f\">\n{s}\n</{D}invoke>"), block(f'<{D}invoke name="f">{s}\n</{D}invoke>'),
        block(f'<{D}invoke name="f">\n\n{s}\n</{D}invoke>'), block(f'<{D}invoke name="f">\n</{D}invoke>'), block(f'<{D}invoke name="f">\n\n\n</{D}invoke>'),
        block(f'<{D}invoke name="f" x="1">\n{s}\n</{D}invoke>'), block(f'<{D}invoke name="f">\n{s}\n</{D}invoke >'), block("junk"), block(f, "junk"),
        block(invoke("f", f"{s}junk")), block(invoke("f", "junk", s)), block(invoke("f", parameter("x", f"<{D}invoke name=\"g\">", "true"))),
        block(invoke("f", parameter("x", "< / </ </p>", "true"))), block(invoke("f", parameter('a" string="true">b', "c", "true"))),
        block(invoke("f", parameter("a", "b", "maybe"))), block(invoke("f", f'<{D}parameter string="true" name="a">b</{D}parameter>')),
        f"{block(f)[:-1]} >", block(f).replace("function_calls>\n", "function_calls>", 1), block(f).replace("function_calls>\n", "function_calls >\n", 1),
        "a<think>b", "a</think>b", f"a{EOS}b", f"{D}", f"a<｜begin▁of▁sentence｜>",
    ]
    thoughts = ["", "hm", "hm\n\n", "a</think", f"x{block(g)}", "<think>", D, "</think>"]
    for body in bodies:
        yield body + EOS, False
        yield f"hm</think>{body}{EOS}", True
    for thought in thoughts:
        yield f"{thought}</think>Yes.{EOS}", True
        yield f"{thought}</think>{block(f)}{EOS}", True
    for bare in ["Yes.", block(f), "hm", f"hm{block(f)}"]:
        yield bare, False
        yield bare, True
        yield f"hm</think>{bare}", True


def drawn_completion(official, r):
    """A completion as the official encoder renders it, most of them then damaged."""
    message = assistant(r.choice([None, text(r)]), text(r), [(r.choice(["f", "get_x"]), arguments(r)) for _ in range(r.randrange(4))])
    thinking = r.random() < 0.5
    # In thinking mode the message must follow the last user message, else precede it.
    done = official.render_message(0, [message] if thinking else [message, user()], "thinking")
    pieces = [EOS, "</think>", "<think>", "\n", "\n\n", "<", ">", '"', "/", D, f"<{D}invoke", f"</{D}invoke>", f"<{D}parameter", f"</{D}parameter>", " ", "x", " name=\"", ' string="true">']
    for _ in range(r.choice([0, 0, 1, 1, 2, 3])):
        at, end = r.randrange(len(done) + 1), 0
        if r.random() < 0.7:  # near the markup
            marks = [i for i, c in enumerate(done) if c in '<>"\n']
            at = r.choice(marks) if marks else at
        end = min(len(done), at + r.choice([0, 0, 1, 1, 2, 8]))
        done = done[:at] + r.choice(["", "", r.choice(pieces)]) + done[end:]
    return done, thinking


def parse(official, completion, thinking):
    try:
        message = official.parse_message_from_completion_text(completion, "thinking" if thinking else "chat")
    except AssertionError:
        return None

    def refuse(word):
        raise ValueError(word)

    for call in message["tool_calls"]:
        try:
            keys = json.loads(call["function"]["arguments"], parse_constant=refuse)
        except ValueError:
            return None
        if any(D in name for name in [call["function"]["name"], *keys]):
            return None  # a name has swallowed broken markup
    if not message["tool_calls"] and f"<{D}function_calls" in completion:
        return None  # it has let a block without calls fall under the table
    return message


def pack(name, rows):
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    (OUT / name).write_bytes(zstandard.ZstdCompressor(level=19).compress(lines))
    print(name, len(rows), "cases,", len(lines), "bytes")


def main():
    official = load(sys.argv[1])
    r = random.Random(20)
    requests = [(name, spell(request)) for name, request in written()]
    requests += [(f"drawn {i}", drawn(r)) for i in range(300)]
    rendered = []
    for name, request in requests:
        for thinking in (False, True):
            for keep in (False, True) if thinking else (False,):
                prompt = render(official, request, thinking, keep)
                rendered.append({"name": name, "request": request, "thinking": thinking, "keep_thinking": keep, "prompt": prompt})
    pack("rendered.jsonl.zst", rendered)

    completions = list(written_completions()) + [drawn_completion(official, r) for _ in range(1500)]
    pack("parsed.jsonl.zst", [{"text": t, "thinking": k, "message": parse(official, t, k)} for t, k in completions])

    numbers = NUMBERS + [str(number(r)) for _ in range(400)]
    pairs = [[n, json.dumps(json.loads(n))] for n in numbers]
    assert any(math.isinf(json.loads(n)) for n in numbers)
    (OUT / "numbers.json").write_text("[\n" + ",\n".join(json.dumps(p) for p in pairs) + "\n]\n")


if __name__ == "__main__":
    main()
