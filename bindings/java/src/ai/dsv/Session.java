package ai.dsv;

import java.util.function.Consumer;

/** One conversation on a model. Chat is the friendlier way to talk through it. */
public final class Session extends Handle {
  private final Model model;
  private long request; // the last one started
  private boolean running; // until its FINISHED has been polled

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
    return started(Native.sessionChat(number, request, options));
  }

  /** The same with raw tokens. */
  public long complete(int[] tokens, GenerateOptions options) {
    return started(Native.sessionComplete(number, tokens, options));
  }

  private synchronized long started(long started) {
    request = started;
    running = true;
    return started;
  }

  private synchronized boolean running(long request) {
    return running && this.request == request;
  }

  /** The next event that Engine.step produced, or null. */
  public Event poll() {
    Event event = Event.take(Native.sessionPoll(number));
    if (event != null && event.kind() == EventKind.FINISHED) {
      synchronized (this) {
        if (event.request() == request) running = false;
      }
    }
    return event;
  }

  /** Steps the engine and iterates over the running request's events up to FINISHED; over nothing if none runs. */
  public synchronized EventStream events() {
    long mine = request;
    return new EventStream(model.engine(), new EventStream.Source() {
      @Override
      public boolean running() {
        return Session.this.running(mine);
      }

      @Override
      public Event poll() {
        return Session.this.poll();
      }

      @Override
      public void stop() {
        if (isClosed() || !running()) return;
        cancel();
        while (running()) {
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
