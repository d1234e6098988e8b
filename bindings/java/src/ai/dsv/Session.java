package ai.dsv;

import java.util.function.Consumer;

/** One conversation on a model. Chat is the friendlier way to talk through it. */
public final class Session extends Handle {
  private final Model model;

  public Session(Model model) {
    super(Native.sessionCreate(model.number), Native::sessionClose);
    this.model = model;
  }

  public Model model() {
    return model;
  }

  /**
   * Starts {"messages": [...], "tools": [...]?, "response_format": {...}?} and returns the request's number. options:
   * null for the defaults.
   */
  public long chat(String request, GenerateOptions options) {
    return Native.sessionChat(number, request, options);
  }

  /** The same with raw tokens. */
  public long complete(int[] tokens, GenerateOptions options) {
    return Native.sessionComplete(number, tokens, options);
  }

  /** The next event that Engine.step produced, or null. */
  public Event poll() {
    return Event.take(Native.sessionPoll(number));
  }

  /** Steps the engine and iterates over the running request's events up to FINISHED. */
  public EventStream events() {
    return new EventStream(model.engine(), new EventStream.Source() {
      private boolean finished;

      @Override
      public boolean running() {
        return !finished;
      }

      @Override
      public Event poll() {
        Event event = Session.this.poll();
        finished |= event != null && event.kind() == EventKind.FINISHED;
        return event;
      }

      @Override
      public void stop() {
        if (finished || isClosed()) return;
        cancel();
        while (!finished) {
          if (poll() == null) model.engine().step(Engine.STEP_US);
        }
      }
    });
  }

  /** Steps the engine and calls listener, on this thread, with every event up to FINISHED. What it throws stops the request. */
  public void run(Consumer<Event> listener) {
    try (EventStream events = events()) {
      events.forEachRemaining(listener);
    }
  }

  /** Ends the running request at the next token; its FINISHED says CANCELLED. */
  public void cancel() {
    Native.sessionCancel(number);
  }

  /** The tokens whose keys and values the session holds. */
  public int[] tokens() {
    return Native.sessionTokens(number);
  }

  /**
   * float [rows, vocab size] of positions [first, first + rows) of tokens. source: Dsv.LOGITS_MAIN or
   * Dsv.LOGITS_DRAFT.
   */
  public float[] logits(int[] tokens, long first, long rows, int source) {
    return Native.sessionLogits(number, tokens, first, rows, source);
  }
}
