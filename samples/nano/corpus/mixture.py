"""Which documents, how often. Probabilities are per document; token shares follow from the lengths."""

from corpus import chat, demo, ledgers, persona, schemas, sums, textops, toolchat

MIX = dict(
    chat=0.38, persona=0.09, tools=0.30, schemas=0.13, demo=0.055, sums=0.36, textops=0.045, long=0.085, repeat=0.012
)


def document(g, length, mix=MIX):
    """One document of at most about `length` tokens: dict(cat, text, messages, think, tools)."""
    u = g.r.random() * sum(mix.values())
    for kind, share in mix.items():
        u -= share
        if u < 0:
            break
    if kind in ("long", "repeat"):
        limit = int(length * 0.93) - 120
        x = g.r.random()
        if x < 0.35:
            tokens = g.r.uniform(120, min(500, limit))
        elif x < 0.7:
            tokens = g.r.uniform(300, min(1000, limit))
        else:
            tokens = g.r.uniform(400, limit)
        return ledgers.conversation(g, int(tokens)) if kind == "long" else ledgers.repeat(g, min(int(tokens), 700))
    rooms = dict(chat=chat, persona=persona, tools=toolchat, schemas=schemas, demo=demo, sums=sums, textops=textops)
    return rooms[kind].conversation(g)
