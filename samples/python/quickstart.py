import sys
import dsv

path = sys.argv[1] if len(sys.argv) > 1 else dsv.bundled_checkpoint()
with dsv.Engine() as engine, dsv.Model(engine, path) as model, dsv.Session(model) as session:
    chat = dsv.Chat(session, system="You are brief.")
    for event in chat.send("Hello! Who are you?"):
        if event.kind == dsv.EventKind.CONTENT:
            print(event.text, end="", flush=True)
print()
