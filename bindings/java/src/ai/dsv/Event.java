package ai.dsv;

import java.util.ArrayList;
import java.util.List;

/** As dsv_event: fields that a kind does not name are "", zero or empty. */
public record Event(
    EventKind kind,
    long request,
    String text,
    String toolName,
    String toolId,
    int toolIndex,
    FinishReason finishReason,
    Status status,
    int token,
    float logprob,
    List<TokenLogprob> top,
    long done,
    long total,
    long promptTokens,
    long cachedTokens,
    long completionTokens,
    long reasoningTokens) {

  /** One of the most likely tokens, best first. */
  public record TokenLogprob(int token, float logprob) {}

  /** Copies a polled event and frees it; null if it is null. */
  static Event take(RawEvent raw) {
    if (raw == null) return null;
    try {
      EventKind kind = EventKind.of(raw.getKind());
      // Fields that the kind does not have are not fetched, because every fetch crosses into native code.
      boolean tool = kind == EventKind.TOOL_BEGIN || kind == EventKind.TOOL_DELTA || kind == EventKind.TOOL_END;
      boolean token = kind == EventKind.TOKEN;
      boolean prefill = kind == EventKind.PREFILL;
      boolean finished = kind == EventKind.FINISHED;
      return new Event(
          kind,
          raw.getRequest(),
          raw.getText(),
          tool ? raw.getToolName() : "",
          tool ? raw.getToolId() : "",
          tool ? raw.getToolIndex() : 0,
          finished ? FinishReason.of(raw.getFinishReason()) : FinishReason.NONE,
          finished ? Status.of(raw.getStatus()) : Status.OK,
          token ? raw.getToken() : 0,
          token ? raw.getLogprob() : 0,
          token ? top(raw) : List.of(),
          prefill ? raw.getDone() : 0,
          prefill ? raw.getTotal() : 0,
          finished ? raw.getPromptTokens() : 0,
          finished ? raw.getCachedTokens() : 0,
          finished ? raw.getCompletionTokens() : 0,
          finished ? raw.getReasoningTokens() : 0);
    } finally {
      raw.delete();
    }
  }

  private static List<TokenLogprob> top(RawEvent raw) {
    int[] tokens = raw.topTokens();
    float[] logprobs = raw.topLogprobs();
    List<TokenLogprob> top = new ArrayList<>(tokens.length);
    for (int i = 0; i < tokens.length; i++) top.add(new TokenLogprob(tokens[i], logprobs[i]));
    return List.copyOf(top);
  }
}
