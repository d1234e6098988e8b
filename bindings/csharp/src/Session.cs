using System;
using System.Collections.Generic;

namespace Dsv {

/// <summary>One conversation on a model. Chat is the friendlier way to talk through it.</summary>
public sealed class Session : Handle {
  private readonly object state = new object();
  private long request;  // the last one started
  private bool running;  // until its Finished has been polled

  public Session(Model model) : base(Create(model)) {
    Model = model;
  }

  public Model Model { get; }

  /// <summary>Starts {"messages": [...], "tools": [...]?, "response_format": {...}?}; returns the request's number.</summary>
  public long Chat(string request, GenerateOptions options = null) {
    return Started(Native.SessionChat(Number, request, options));
  }

  /// <summary>The same with raw tokens.</summary>
  public long Complete(int[] tokens, GenerateOptions options = null) {
    return Started(Native.SessionComplete(Number, tokens, options));
  }

  /// <summary>The next event that Engine.Step produced, or null.</summary>
  public Event Poll() {
    Event next = Event.Take(Native.SessionPoll(Number));
    if (next != null && next.Kind == EventKind.Finished) {
      lock (state) {
        if (next.Request == request) running = false;
      }
    }
    return next;
  }

  /// <summary>Steps the engine and yields the running request's events up to Finished; nothing if none runs. Leaving the
  /// loop early, also by an exception, cancels the request.</summary>
  public IEnumerable<Event> Events() {
    long mine;
    lock (state) mine = request;
    return EventsOf(mine);
  }

  private IEnumerable<Event> EventsOf(long mine) {
    try {
      while (Running(mine)) {
        Event next = Poll();
        if (next == null) {
          Model.Engine.Step(Engine.StepUs);
        } else {
          yield return next;
        }
      }
    } finally {
      if (!IsClosed && Running(mine)) Drain(mine);
    }
  }

  /// <summary>Ends the running request at the next token; its Finished says Cancelled.</summary>
  public void Cancel() {
    Native.SessionCancel(Number);
  }

  /// <summary>The tokens whose keys and values the session holds.</summary>
  public int[] Tokens() {
    return Native.SessionTokens(Number);
  }

  /// <summary>float [rows, vocab size] of positions [first, first + rows) of tokens.</summary>
  public float[] Logits(int[] tokens, long first, long rows, LogitsSource source = LogitsSource.Main) {
    return Native.SessionLogits(Number, tokens, first, rows, (int)source);
  }

  internal override void Close(long number) {
    Native.SessionClose(number);
  }

  private void Drain(long mine) {
    Cancel();
    while (Running(mine)) {
      if (Poll() == null) Model.Engine.Step(Engine.StepUs);
    }
  }

  private long Started(long number) {
    lock (state) {
      request = number;
      running = true;
    }
    return number;
  }

  private bool Running(long number) {
    lock (state) return running && request == number;
  }

  private static long Create(Model model) {
    if (model == null) throw new ArgumentNullException("model");
    return Native.SessionCreate(model.Number);
  }
}

}
