package ai.dsv;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Consumer;
import java.util.function.Function;

/**
 * A conversation on a session: messages, tools and the loop between them.
 *
 * <pre>{@code
 * Chat chat = new Chat(new Session(model));
 * for (Event event : chat.send("Hello! Who are you?")) {
 *   if (event.kind() == EventKind.CONTENT) System.out.print(event.text());
 * }
 * }</pre>
 *
 * When the model asks for a tool, the function runs inside poll() or the loop, its result goes back, and the answer
 * streams on. What it throws comes out of there; then the messages are as they were before the question. Of the methods,
 * cancel() may be called at any time from any thread, the others by one thread at a time and not by a tool.
 */
public final class Chat {
  private static final int MAX_ROUNDS = 8;

  private final Session session;
  private final Map<String, Tool> tools = new LinkedHashMap<>();
  private final List<Map<String, Object>> messages = new ArrayList<>();
  private final AtomicBoolean inUse = new AtomicBoolean();
  private final StringBuilder content = new StringBuilder();
  private final StringBuilder reasoning = new StringBuilder();
  private final List<ToolCall> calls = new ArrayList<>();
  private GenerateOptions options;
  private volatile boolean running;
  private boolean stopping;
  private int before; // messages before the question
  private volatile int answers; // started so far: a stream of an earlier one has ended
  private int rounds; // of tool calls in this answer

  private record ToolCall(String id, String name, String arguments) {}

  public Chat(Session session) {
    this.session = Objects.requireNonNull(session, "session is null");
  }

  /** OpenAI style, made of what Json takes; yours to read and, between answers, to change. */
  public List<Map<String, Object>> messages() {
    return messages;
  }

  /** Adds a system message. */
  public Chat system(String text) {
    messages.add(Json.object("role", "system", "content", Objects.requireNonNull(text, "text is null")));
    return this;
  }

  public Chat addTool(Tool tool) {
    tools.put(tool.name(), tool);
    return this;
  }

  /** See Tool. */
  public Chat addTool(String name, String description, String schema, Function<Map<String, Object>, Object> function) {
    return addTool(new Tool(name, description, schema, function));
  }

  /** True until the answer's last event has been polled. */
  public boolean isRunning() {
    return running;
  }

  /**
   * Starts an answer and returns at once: step the engine and poll(). Stops an answer that still runs. options: null
   * for the defaults.
   */
  public void start(String text, GenerateOptions options) {
    Objects.requireNonNull(text, "text is null");
    exclusively(() -> {
      stopNow();
      answers = answers + 1;
      before = messages.size();
      rounds = 0;
      this.options = options;
      messages.add(Json.object("role", "user", "content", text));
      request();
      return null;
    });
  }

  /** The answer's next event, or null. Tools run in here. */
  public Event poll() {
    return exclusively(this::pollNow);
  }

  /** Starts an answer and iterates over its events, stepping the engine. */
  public EventStream send(String text) {
    return send(text, null);
  }

  /** options: null for the defaults. */
  public EventStream send(String text, GenerateOptions options) {
    start(text, options);
    int mine = answers;
    return new EventStream(session.model().engine(), new EventStream.Source() {
      @Override
      public boolean running() {
        return running && answers == mine;
      }

      @Override
      public Event poll() {
        return Chat.this.poll();
      }

      @Override
      public void stop() {
        if (running()) Chat.this.stop();
      }
    });
  }

  /** The answer's text after all tools. */
  public String ask(String text) {
    return ask(text, null, event -> {});
  }

  /** Calls listener, on this thread, with every event. What it throws stops the answer and comes out. */
  public String ask(String text, GenerateOptions options, Consumer<Event> listener) {
    StringBuilder answer = new StringBuilder();
    try (EventStream events = send(text, options)) {
      for (Event event : events) {
        if (event.kind() == EventKind.CONTENT) answer.append(event.text());
        if (event.finishReason() == FinishReason.TOOL_CALLS) answer.setLength(0);
        listener.accept(event);
      }
    }
    return answer.toString();
  }

  /** From any thread: ends the answer soon. What there is of it stays in the messages. */
  public void cancel() {
    session.cancel();
  }

  /** Ends a running answer now; what there is of it stays in the messages. Nothing happens if none runs. */
  public void stop() {
    exclusively(() -> {
      stopNow();
      return null;
    });
  }

  private interface Action<T> {
    T run();
  }

  private <T> T exclusively(Action<T> action) {
    if (!inUse.compareAndSet(false, true)) {
      throw new DsvException(Status.BUSY,
          "a tool of this chat or another thread is using it: use the chat again when that has returned");
    }
    try {
      return action.run();
    } finally {
      inUse.set(false);
    }
  }

  private Event pollNow() {
    Event event = running ? session.poll() : null;
    if (event != null) take(event);
    return event;
  }

  private void stopNow() {
    if (!running) return;
    if (session.isClosed()) {
      running = false;
      return;
    }
    stopping = true;
    try {
      session.cancel();
      while (running) {
        if (pollNow() == null) session.model().engine().step(Engine.STEP_US);
      }
    } finally {
      running = false;
      stopping = false;
    }
  }

  private void request() {
    Map<String, Object> request = Json.object("messages", messages);
    if (!tools.isEmpty()) request.put("tools", tools.values().stream().map(Tool::declaration).toList());
    try {
      session.chat(Json.write(request), options);
      running = true;
    } catch (Throwable e) {
      fail();
      throw e;
    }
  }

  /** Back to before the question. */
  private void fail() {
    running = false;
    clear();
    if (messages.size() > before) messages.subList(before, messages.size()).clear();
  }

  private void clear() {
    content.setLength(0);
    reasoning.setLength(0);
    calls.clear();
  }

  private void take(Event event) {
    switch (event.kind()) {
      case CONTENT -> content.append(event.text());
      case REASONING -> reasoning.append(event.text());
      case TOOL_END -> calls.add(new ToolCall(event.toolId(), event.toolName(), event.text()));
      case FINISHED -> finish(event);
      default -> {}
    }
  }

  private void finish(Event event) {
    running = false;
    if (event.finishReason() == FinishReason.ERROR) {
      fail();
      throw new DsvException(event.status(), event.text());
    }
    boolean goesOn = event.finishReason() == FinishReason.TOOL_CALLS && !stopping;
    List<ToolCall> wanted = goesOn ? List.copyOf(calls) : List.of();
    Map<String, Object> message = Json.object("role", "assistant", "content", content.toString());
    if (reasoning.length() > 0) message.put("reasoning_content", reasoning.toString());
    if (!wanted.isEmpty()) message.put("tool_calls", wanted.stream().map(Chat::callMessage).toList());
    messages.add(message);
    clear();
    if (wanted.isEmpty()) return;
    try {
      if (++rounds > MAX_ROUNDS) {
        throw new DsvException(Status.UNSUPPORTED,
            "the model still asked for tools after " + MAX_ROUNDS + " rounds: ask for less at once");
      }
      for (ToolCall call : wanted) {
        messages.add(Json.object("role", "tool", "tool_call_id", call.id(), "content", result(call)));
      }
    } catch (Throwable e) {
      fail();
      throw e;
    }
    request();
  }

  private static Map<String, Object> callMessage(ToolCall call) {
    return Json.object("id", call.id(), "type", "function",
        "function", Json.object("name", call.name(), "arguments", call.arguments()));
  }

  /** A tool that does not exist is the model's mistake: it is told. */
  private String result(ToolCall call) {
    Tool tool = tools.get(call.name());
    return tool == null ? "error: there is no tool " + call.name() : tool.call(call.arguments());
  }
}
