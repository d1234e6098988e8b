using System;
using System.Collections.Generic;
using System.Linq;
using System.Text;
using System.Threading;

namespace Dsv {

/// <summary>A conversation on a session: messages, tools and the loop between them.
/// <code>
/// var chat = new Chat(new Session(model));
/// foreach (var e in chat.Send("Hello! Who are you?")) {
///   if (e.Kind == EventKind.Content) Console.Write(e.Text);
/// }
/// </code>
/// When the model asks for a tool, the function runs inside Poll() or the loop, its result goes back, and the answer
/// streams on. What it throws comes out of there; then the messages are as they were before the question. Of the methods,
/// Cancel() may be called at any time from any thread, the others by one thread at a time and not by a tool.</summary>
public sealed class Chat {
  private const int MaxRounds = 8;

  private readonly Session session;
  private readonly Dictionary<string, Tool> tools = new Dictionary<string, Tool>();
  private readonly StringBuilder content = new StringBuilder();
  private readonly StringBuilder reasoning = new StringBuilder();
  private readonly List<Event> calls = new List<Event>();
  private GenerateOptions options;
  private int inUse;
  private volatile bool running;
  private bool stopping;
  private int before;  // messages before the question
  private volatile int answers;  // started so far: a loop over an earlier one has ended
  private int rounds;  // of tool calls in this answer

  public Chat(Session session, string system = null) {
    if (session == null) throw new ArgumentNullException("session");
    this.session = session;
    Messages = new List<Dictionary<string, object>>();
    if (system != null) Messages.Add(Message("system", system));
  }

  /// <summary>OpenAI style, made of what Json takes; yours to read and, between answers, to change.</summary>
  public List<Dictionary<string, object>> Messages { get; }

  /// <summary>True until the answer's last event has been polled.</summary>
  public bool IsRunning {
    get { return running; }
  }

  public void AddTool(Tool tool) {
    if (tool == null) throw new ArgumentNullException("tool");
    tools[tool.Name] = tool;
  }

  /// <summary>See Tool.</summary>
  public void AddTool(string name, string description, string schema, Func<IDictionary<string, object>, object> function) {
    AddTool(new Tool(name, description, schema, function));
  }

  /// <summary>Starts an answer and returns at once: every frame, step the engine and Poll(). Stops an answer that still
  /// runs.</summary>
  public void Start(string text, GenerateOptions options = null) {
    if (text == null) throw new ArgumentNullException("text");
    Enter();
    try {
      StopNow();
      answers = answers + 1;
      before = Messages.Count;
      rounds = 0;
      this.options = options;
      Messages.Add(Message("user", text));
      Request();
    } finally {
      Leave();
    }
  }

  /// <summary>The answer's next event, or null. Tools run in here.</summary>
  public Event Poll() {
    Enter();
    try {
      return PollNow();
    } finally {
      Leave();
    }
  }

  /// <summary>Starts an answer and yields its events, stepping the engine. Leaving the loop early, also by an exception,
  /// stops the answer.</summary>
  public IEnumerable<Event> Send(string text, GenerateOptions options = null) {
    Start(text, options);
    return Stream(answers);
  }

  /// <summary>The answer's text after all tools. The listener is called, on this thread, with every event; what it throws
  /// stops the answer and comes out.</summary>
  public string Ask(string text, GenerateOptions options = null, Action<Event> listener = null) {
    var answer = new StringBuilder();
    foreach (Event next in Send(text, options)) {
      if (next.Kind == EventKind.Content) answer.Append(next.Text);
      if (next.FinishReason == FinishReason.ToolCalls) answer.Clear();
      if (listener != null) listener(next);
    }
    return answer.ToString();
  }

  /// <summary>From any thread: ends the answer soon. What there is of it stays in the messages.</summary>
  public void Cancel() {
    session.Cancel();
  }

  /// <summary>Ends a running answer now; what there is of it stays in the messages. Nothing happens if none runs.</summary>
  public void Stop() {
    Enter();
    try {
      StopNow();
    } finally {
      Leave();
    }
  }

  private void Enter() {
    if (Interlocked.CompareExchange(ref inUse, 1, 0) != 0) {
      throw new DsvException(Status.Busy,
          "a tool of this chat or another thread is using it: use the chat again when that has returned");
    }
  }

  private void Leave() {
    Volatile.Write(ref inUse, 0);
  }

  private IEnumerable<Event> Stream(int mine) {
    try {
      while (running && answers == mine) {
        Event next = Poll();
        if (next == null) {
          session.Model.Engine.Step(Engine.StepUs);
        } else {
          yield return next;
        }
      }
    } finally {
      if (running && answers == mine) Stop();
    }
  }

  private Event PollNow() {
    Event next = running ? session.Poll() : null;
    if (next != null) Take(next);
    return next;
  }

  private void StopNow() {
    if (!running) return;
    if (session.IsClosed) {
      running = false;
      return;
    }
    stopping = true;
    try {
      session.Cancel();
      while (running) {
        if (PollNow() == null) session.Model.Engine.Step(Engine.StepUs);
      }
    } finally {
      running = stopping = false;
    }
  }

  private void Request() {
    var request = new Dictionary<string, object> { { "messages", Messages } };
    if (tools.Count > 0) request["tools"] = tools.Values.Select(tool => tool.Declaration()).ToList();
    try {
      session.Chat(Json.Write(request), options);
      running = true;
    } catch {
      Fail();
      throw;
    }
  }

  /// <summary>Back to before the question.</summary>
  private void Fail() {
    running = false;
    Clear();
    if (Messages.Count > before) Messages.RemoveRange(before, Messages.Count - before);
  }

  private void Clear() {
    content.Clear();
    reasoning.Clear();
    calls.Clear();
  }

  private void Take(Event next) {
    switch (next.Kind) {
      case EventKind.Content:
        content.Append(next.Text);
        break;
      case EventKind.Reasoning:
        reasoning.Append(next.Text);
        break;
      case EventKind.ToolEnd:
        calls.Add(next);
        break;
      case EventKind.Finished:
        Finish(next);
        break;
    }
  }

  private void Finish(Event end) {
    running = false;
    if (end.FinishReason == FinishReason.Error) {
      Fail();
      throw new DsvException(end.Status, end.Text);
    }
    bool goesOn = end.FinishReason == FinishReason.ToolCalls && !stopping;
    Event[] wanted = goesOn ? calls.ToArray() : new Event[0];
    var message = Message("assistant", content.ToString());
    if (reasoning.Length > 0) message["reasoning_content"] = reasoning.ToString();
    if (wanted.Length > 0) message["tool_calls"] = wanted.Select(CallMessage).ToList();
    Messages.Add(message);
    Clear();
    if (wanted.Length == 0) return;
    try {
      if (++rounds > MaxRounds) {
        throw new DsvException(Status.Unsupported,
            "the model still asked for tools after " + MaxRounds + " rounds: ask for less at once");
      }
      foreach (Event call in wanted) {
        var result = Message("tool", Result(call));
        result["tool_call_id"] = call.ToolId;
        Messages.Add(result);
      }
    } catch {
      Fail();
      throw;
    }
    Request();
  }

  private static Dictionary<string, object> Message(string role, string text) {
    return new Dictionary<string, object> { { "role", role }, { "content", text } };
  }

  private static Dictionary<string, object> CallMessage(Event call) {
    return new Dictionary<string, object> {
      { "id", call.ToolId },
      { "type", "function" },
      { "function", new Dictionary<string, object> { { "name", call.ToolName }, { "arguments", call.Text } } }
    };
  }

  /// <summary>A tool that does not exist is the model's mistake: it is told.</summary>
  private string Result(Event call) {
    Tool tool;
    return tools.TryGetValue(call.ToolName, out tool) ? tool.Call(call.Text) : "error: there is no tool " + call.ToolName;
  }
}

}
