"""Asks for the weather: the model calls a Python function and answers; a plot shows how sure it was of each token.

python3 weather.py [CHECKPOINT] [--png FILE]
"""

import argparse
import math
from typing import Annotated

import dsv


def get_weather(
    city: Annotated[str, "The city name"],
    date: Annotated[str, "The date in YYYY-MM-DD format"],
) -> dict:
    """Get the weather for a city and date"""
    print(f"[get_weather: {city}, {date}]")
    return {"sky": "rainy", "temperature": 14}


def plot(tokens, png):
    """tokens: (text, log probability) in the order they came."""
    try:
        import matplotlib
    except ImportError:
        print("There is no plot, because matplotlib is not installed (Debian: python3-matplotlib).")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(max(6, 0.25 * len(tokens)), 3.5))
    axes.bar(range(len(tokens)), [100 * math.exp(logprob) for _, logprob in tokens])
    labels = [ascii(text.replace("｜", "|").replace("▁", "_"))[1:-1].replace("$", r"\$") for text, _ in tokens]
    axes.set_xticks(range(len(tokens)), labels, rotation=90)
    axes.set_ylabel("probability, %")
    figure.tight_layout()
    figure.savefig(png)
    print(f"How sure the model was of each token: {png}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", help="its folder; default: the bundled one")
    parser.add_argument("--png", default="weather.png")
    arguments = parser.parse_args()
    path = arguments.checkpoint or dsv.bundled_checkpoint()
    tokens = []
    with dsv.Engine() as engine, dsv.Model(engine, path) as model, dsv.Session(model) as session:
        chat = dsv.Chat(session, system="You are a helpful assistant.", tools=[get_weather])
        tokenizer = model.tokenizer()
        question = "What is the weather in Lisbon on 2026-11-24?"
        for event in chat.send(question, temperature=0, max_tokens=100, logprobs=0):
            if event.kind == dsv.EventKind.CONTENT:
                print(event.text, end="", flush=True)
            elif event.kind == dsv.EventKind.TOKEN:
                tokens.append((tokenizer.decode([event.token]).decode(errors="replace"), event.logprob))
            elif event.finish_reason == dsv.FinishReason.TOOL_CALLS:
                tokens.clear()  # the plot is about the answer
    print()
    plot(tokens, arguments.png)


main()
