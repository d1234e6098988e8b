package ai.dsv;

import java.lang.ref.Cleaner;
import java.util.function.LongConsumer;

/**
 * A number that stands for a native object, which lives until close() or until its Java object is collected, in any
 * order. Every method of the subclasses may be called from any thread; threads that step and poll one engine take
 * turns.
 */
public abstract class Handle implements AutoCloseable {
  final long number;
  private final Cleaner.Cleanable closing;
  private volatile boolean closed;

  Handle(long number, LongConsumer close) {
    this.number = number;
    closing = NativeLoader.CLEANER.register(this, () -> close.accept(number));
  }

  /** Any use after it throws DsvException. Closing twice is fine. */
  @Override
  public final void close() {
    closed = true;
    closing.clean();
  }

  public final boolean isClosed() {
    return closed;
  }
}
