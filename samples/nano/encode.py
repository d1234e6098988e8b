"""DeepSeek-V3.2 chat/tool encoding (DSML), written from the facts sheet; checked against the official weather vector."""

import json

BOS, EOS, USER, ASST, TO, TC, D = (
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<think>",
    "</think>",
    "｜DSML｜",
)
TOOLS = f"""## Tools

You have access to a set of tools you can use to answer the user's question.
You can invoke functions by writing a "<{D}function_calls>" block like the following as part of your reply to the user:
<{D}function_calls>
<{D}invoke name="$FUNCTION_NAME">
<{D}parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</{D}parameter>
...
</{D}invoke>
<{D}invoke name="$FUNCTION_NAME2">
...
</{D}invoke>
</{D}function_calls>

String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects should use JSON format. The "string" attribute should be set to "true" for string type parameters and "false" for other types (numbers, booleans, arrays, objects).

If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking block. Here is an example:

<{D}function_calls>
...
</{D}function_calls>

<function_results>
...
</function_results>

<think>...thinking about results</think>

Here are the functions available in JSONSchema format:
<functions>
%s
</functions>
"""


def J(x):
    return json.dumps(x, ensure_ascii=False)


def calls(cs):
    o = []
    for name, args in cs:
        ps = "\n".join(
            f'<{D}parameter name="{k}" string="{"true" if isinstance(v, str) else "false"}">{v if isinstance(v, str) else J(v)}</{D}parameter>'
            for k, v in args.items()
        )
        o.append(f'<{D}invoke name="{name}">\n{ps}\n</{D}invoke>')
    return f"\n\n<{D}function_calls>\n" + "\n".join(o) + f"\n</{D}function_calls>"


def encode(msgs, tools=None, think=False, bos=True):
    """msgs: dicts role/content/(reasoning)/(calls=[(name,args)])/(results=[str]) ; role 'tool' carries results list."""
    last = max([i for i, m in enumerate(msgs) if m["role"] == "user"], default=-1)
    s = BOS if bos else ""
    if tools and (not msgs or msgs[0]["role"] != "system"):
        s += "\n\n" + TOOLS % "\n".join(J(t) for t in tools)
    for i, m in enumerate(msgs):
        r = m["role"]
        if r == "system":
            s += m["content"]
            if tools:
                s += "\n\n" + TOOLS % "\n".join(J(t) for t in tools)
        elif r == "user":
            s += USER + m["content"] + ASST + (TO if think and i == last else TC)
        elif r == "assistant":
            if think and i > last:
                s += (m.get("reasoning") or "") + TC
            s += m.get("content") or ""
            if m.get("calls"):
                s += calls(m["calls"])
            s += EOS
        elif r == "tool":
            s += "\n\n<function_results>" + "".join(f"\n<result>{x}</result>" for x in m["results"]) + "\n</function_results>\n\n"
            s += TO if think and i > last else TC
    return s
