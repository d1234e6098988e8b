package ai.dsv;

import java.util.Iterator;
import java.util.NoSuchElementException;

/**
 * The events of one answer, once; steps the engine meanwhile. Whoever leaves the loop early closes the stream, which
 * stops the answer; the next answer does it too.
 */
public final class EventStream implements Iterable<Event>, Iterator<Event>, AutoCloseable {
  interface Source {
    boolean running();

    Event poll();

    void stop();
  }

  private final Engine engine;
  private final Source source;
  private Event next;

  EventStream(Engine engine, Source source) {
    this.engine = engine;
    this.source = source;
  }

  @Override
  public Iterator<Event> iterator() {
    return this;
  }

  /** Waits for the next event. */
  @Override
  public boolean hasNext() {
    while (next == null && source.running()) {
      next = source.poll();
      if (next == null) engine.step(Engine.STEP_US);
    }
    return next != null;
  }

  @Override
  public Event next() {
    if (!hasNext()) throw new NoSuchElementException("the answer has ended");
    Event event = next;
    next = null;
    return event;
  }

  @Override
  public void close() {
    next = null;
    source.stop();
  }
}
