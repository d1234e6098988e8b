import ai.dsv.*;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/** Several threads on one engine. */
public final class ThreadTest {
  public static void main(String[] args) {
    Path checkpoint = Path.of(args[0]);

    Check.test("cancel from another thread", checkpoint, model -> {
      Chat chat = new Chat(new Session(model));
      CountDownLatch speaking = new CountDownLatch(1);
      Thread other = new Thread(() -> {
        try {
          speaking.await();
          chat.cancel();
        } catch (InterruptedException e) {
          throw new AssertionError(e);
        }
      });
      other.start();
      Event last = null;
      for (Event event : chat.send("#spin")) {
        if (event.kind() == EventKind.CONTENT) speaking.countDown();
        last = event;
      }
      other.join();
      Check.equal(FinishReason.CANCELLED, last.finishReason());
      Check.that(chat.messages().get(1).get("content").toString().startsWith("and on "), "what there was is lost");
      Check.equal("Hello there!", chat.ask("#hello"));
    });

    Check.test("the wrong thread uses a chat", checkpoint, model -> {
      Chat[] chat = new Chat[1];
      chat[0] = new Chat(new Session(model)).addTool("calculator", "Compute", "{}", arguments -> {
        Thread other = new Thread(() -> Check.refuses(Status.BUSY, chat[0]::poll, "another thread"));
        Throwable[] failed = new Throwable[1];
        other.setUncaughtExceptionHandler((thread, e) -> failed[0] = e);
        other.start();
        try {
          other.join();
        } catch (InterruptedException e) {
          throw new AssertionError(e);
        }
        if (failed[0] != null) throw new AssertionError(failed[0]);
        return "42";
      });
      Check.equal("That is all I know.", chat[0].ask("#calculator"));
    });

    Check.test("eight threads ask, one engine", checkpoint, model -> {
      ExecutorService pool = Executors.newFixedThreadPool(8);
      List<Future<Void>> done = new ArrayList<>();
      for (int i = 0; i < 8; i++) {
        done.add(pool.submit((Callable<Void>) () -> {
          try (Session session = new Session(model)) {
            for (int j = 0; j < 10; j++) Check.equal("Hello there!", new Chat(session).ask("#hello"));
          }
          return null;
        }));
      }
      for (Future<Void> one : done) one.get();
      pool.shutdown();
    });

    Check.test("closing everything under a thread that asks", () -> {
      long open = Dsv.liveHandles().getEngines(); // sessions above, which are left to the collector, hold theirs
      for (int i = 0; i < 20; i++) {
        Engine engine = new Engine();
        Model model = new Model(engine, checkpoint);
        Session session = new Session(model);
        CountDownLatch speaking = new CountDownLatch(1);
        Throwable[] thrown = new Throwable[1];
        Thread asking = new Thread(() -> {
          try {
            new Chat(session).ask("#spin", null, event -> speaking.countDown());
          } catch (Throwable e) {
            thrown[0] = e;
          }
        });
        asking.start();
        speaking.await();
        (i % 3 == 0 ? engine : i % 3 == 1 ? model : session).close();
        session.close();
        model.close();
        engine.close();
        asking.join();
        Check.that(thrown[0] instanceof DsvException e && e.getMessage().contains("is closed"), "thrown: " + thrown[0]);
      }
      Check.that(Dsv.liveHandles().getEngines() <= open, "engines stay open");
    });

    Check.finish();
  }
}
