using System;
using Dsv;

internal static class Quickstart {
  private static void Main() {
    using (var engine = new Engine())
    using (var model = new Model(engine, Library.BundledCheckpoint()))
      foreach (var e in new Chat(new Session(model)).Send("Hello! Who are you?"))
        if (e.Kind == EventKind.Content) Console.Write(e.Text);
  }
}
