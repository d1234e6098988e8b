// A chat in the terminal: type a line, read the answer as it comes; Ctrl-D leaves.
//   ChatLoop [CHECKPOINT]
using System;
using System.IO;
using Dsv;

internal static class ChatLoop {
  private static void Main(string[] args) {
    var output = new StreamWriter(Console.OpenStandardOutput()) { AutoFlush = true };  // UTF-8, whatever the terminal
    var input = new StreamReader(Console.OpenStandardInput());
    string checkpoint = args.Length > 0 ? args[0] : Library.BundledCheckpoint();
    var options = new GenerateOptions { Temperature = 0.7f, MaxTokens = 400 };

    using (var engine = new Engine())
    using (var model = new Model(engine, checkpoint))
    using (var session = new Session(model)) {
      var chat = new Chat(session, "You are friendly and brief.");  // it remembers the whole conversation
      for (string line; (line = input.ReadLine()) != null;) {
        try {
          foreach (Event e in chat.Send(line, options)) {
            if (e.Kind == EventKind.Content) output.Write(e.Text);
            if (e.Kind == EventKind.Finished) output.WriteLine("\n[{0}, {1} tokens]", e.FinishReason, e.CompletionTokens);
          }
        } catch (DsvException e) {
          output.WriteLine(e.Status + ": " + e.Message);  // the chat is as it was before the line
        }
      }
    }
  }
}
