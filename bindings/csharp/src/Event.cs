using System;
using System.Collections.Generic;

namespace Dsv {

/// <summary>One of the most likely tokens.</summary>
public struct TokenLogprob {
  internal TokenLogprob(int token, float logprob) {
    Token = token;
    Logprob = logprob;
  }

  public int Token { get; }
  public float Logprob { get; }
}

/// <summary>As dsv_event: fields that a kind does not name are "", zero or empty.</summary>
public sealed class Event {
  private static readonly TokenLogprob[] NoTokens = new TokenLogprob[0];

  private Event(RawEvent raw) {
    Kind = (EventKind)raw.Kind;
    Request = raw.Request;
    Text = raw.Text;
    ToolName = ToolId = "";
    Top = NoTokens;
    // Fields that the kind does not have are not fetched, because every fetch crosses into native code.
    switch (Kind) {
      case EventKind.Prefill:
        Done = raw.Done;
        Total = raw.Total;
        break;
      case EventKind.ToolBegin:
      case EventKind.ToolDelta:
      case EventKind.ToolEnd:
        ToolName = raw.ToolName;
        ToolId = raw.ToolId;
        ToolIndex = raw.ToolIndex;
        break;
      case EventKind.Token:
        Token = raw.Token;
        Logprob = raw.Logprob;
        Top = TopOf(raw);
        break;
      case EventKind.Finished:
        FinishReason = (FinishReason)raw.FinishReason;
        Status = (Status)raw.Status;
        PromptTokens = raw.PromptTokens;
        CachedTokens = raw.CachedTokens;
        CompletionTokens = raw.CompletionTokens;
        ReasoningTokens = raw.ReasoningTokens;
        break;
    }
  }

  public EventKind Kind { get; }
  public long Request { get; }
  public string Text { get; }
  public string ToolName { get; }
  public string ToolId { get; }
  public int ToolIndex { get; }
  public FinishReason FinishReason { get; }
  public Status Status { get; }
  public int Token { get; }
  public float Logprob { get; }
  /// <summary>The most likely tokens, best first.</summary>
  public IReadOnlyList<TokenLogprob> Top { get; }
  public long Done { get; }
  public long Total { get; }
  public long PromptTokens { get; }
  public long CachedTokens { get; }
  public long CompletionTokens { get; }
  public long ReasoningTokens { get; }

  public override string ToString() {
    return Kind == EventKind.Finished ? Kind + " " + FinishReason + " " + Text : Kind + " " + Text;
  }

  /// <summary>Copies a polled event and frees it; null if it is null.</summary>
  internal static Event Take(RawEvent raw) {
    if (raw == null) return null;
    try {
      return new Event(raw);
    } finally {
      raw.Delete();
    }
  }

  private static TokenLogprob[] TopOf(RawEvent raw) {
    int[] tokens = raw.TopTokens();
    float[] logprobs = raw.TopLogprobs();
    var top = new TokenLogprob[tokens.Length];
    for (int i = 0; i < top.Length; i++) top[i] = new TokenLogprob(tokens[i], logprobs[i]);
    return top;
  }
}

}
