// Functions that the model may call: it asks, they run here, and it answers from what they return.
//   ToolLoop "What is 123 times 456?" [CHECKPOINT]
using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using Dsv;

internal static class ToolLoop {
  /// <summary>"number operator number". A failure is a result too: the model reads it and can do something about it.
  /// </summary>
  private static object Calculate(IDictionary<string, object> arguments) {
    object expression;
    arguments.TryGetValue("expression", out expression);
    string[] part = Convert.ToString(expression).Trim().Split(' ');
    decimal a, b;
    if (part.Length != 3 || !decimal.TryParse(part[0], NumberStyles.Number, CultureInfo.InvariantCulture, out a) ||
        !decimal.TryParse(part[2], NumberStyles.Number, CultureInfo.InvariantCulture, out b)) {
      return "error: write it as number operator number, such as 12 * 3";
    }
    switch (part[1]) {
      case "+": return a + b;
      case "-": return a - b;
      case "*": return a * b;
      case "/": return b == 0 ? (object)"error: nothing can be divided by zero" : a / b;
      default: return "error: there is no operator " + part[1];
    }
  }

  private static void Main(string[] args) {
    var output = new StreamWriter(Console.OpenStandardOutput()) { AutoFlush = true };  // UTF-8, whatever the terminal
    string question = args.Length > 0 ? args[0] : "What is 123 times 456?";
    string checkpoint = args.Length > 1 ? args[1] : Library.BundledCheckpoint();

    using (var engine = new Engine())
    using (var model = new Model(engine, checkpoint))
    using (var session = new Session(model)) {
      var chat = new Chat(session);
      chat.AddTool("clock", "Tell the current date and time", @"{""type"": ""object"", ""properties"": {}, ""required"": []}",
                   arguments => DateTime.Now.ToString("s"));
      chat.AddTool("calculator", "Compute an arithmetic expression",
                   @"{""type"": ""object"", ""required"": [""expression""], ""properties"":
                     {""expression"": {""type"": ""string"", ""description"": ""The expression, such as 12 * (3 + 4)""}}}",
                   Calculate);
      foreach (Event e in chat.Send(question, new GenerateOptions { Temperature = 0, MaxTokens = 400 })) {
        if (e.Kind == EventKind.Content) output.Write(e.Text);
        if (e.Kind == EventKind.ToolEnd) output.WriteLine("[" + e.ToolName + " " + e.Text + "]");
      }
      output.WriteLine();
    }
  }
}
