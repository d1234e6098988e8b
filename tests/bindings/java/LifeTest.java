import ai.dsv.*;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Random;

/** Closing in any order, using after it, leaving it to the collector. */
public final class LifeTest {
  private static final String SPIN = "{\"messages\": [{\"role\": \"user\", \"content\": \"#spin\"}]}";

  private static String live() {
    HandleCounts counts = Dsv.liveHandles();
    return counts.getEngines() + " " + counts.getModels() + " " + counts.getSessions() + " " + counts.getTokenizers();
  }

  public static void main(String[] args) {
    Path checkpoint = Path.of(args[0]);

    Check.test("use after close", () -> {
      Engine engine = new Engine();
      Model model = new Model(engine, checkpoint);
      Session session = new Session(model);
      Tokenizer tokenizer = model.tokenizer();
      Chat chat = new Chat(session);
      for (int i = 0; i < 2; i++) session.close(); // twice is fine
      Check.that(session.isClosed(), "not closed");
      Check.refuses(Status.INVALID_ARGUMENT, session::poll, "this session is closed");
      Check.refuses(Status.INVALID_ARGUMENT, session::tokens, "this session is closed");
      Check.refuses(Status.INVALID_ARGUMENT, session::cancel, "this session is closed");
      Check.refuses(Status.INVALID_ARGUMENT, () -> chat.ask("Hi"), "this session is closed");
      Check.refuses(Status.INVALID_ARGUMENT, chat::cancel, "this session is closed");
      Check.equal(List.of(), chat.messages());
      tokenizer.close();
      Check.refuses(Status.INVALID_ARGUMENT, () -> tokenizer.encode("a"), "this tokenizer is closed");
      model.close();
      Check.refuses(Status.INVALID_ARGUMENT, model::info, "this model is closed");
      Check.refuses(Status.INVALID_ARGUMENT, () -> new Session(model), "this model is closed");
      engine.close();
      Check.refuses(Status.INVALID_ARGUMENT, () -> engine.step(1), "this engine is closed");
      Check.refuses(Status.INVALID_ARGUMENT, () -> new Model(engine, checkpoint), "this engine is closed");
      Check.equal("0 0 0 0", live());
    });

    Check.test("every order of closing, with a request running", () -> {
      Random random = new Random(1);
      for (int i = 0; i < 40; i++) {
        Engine engine = new Engine();
        Model model = new Model(engine, checkpoint);
        Session session = new Session(model);
        session.chat(SPIN, null);
        engine.step(1000);
        List<AutoCloseable> handles = new ArrayList<>(List.of(engine, model, session, model.tokenizer()));
        Collections.shuffle(handles, random);
        for (AutoCloseable handle : handles) handle.close();
        Check.equal("0 0 0 0", live());
      }
    });

    Check.test("a session works after its engine and model are closed natively", () -> {
      Engine engine = new Engine();
      Model model = new Model(engine, checkpoint);
      Session session = new Session(model);
      model.close();
      Check.equal("Hello there!", new Chat(session).ask("#hello"));
      engine.close();
      session.chat(SPIN, null);
      Check.refuses(Status.INVALID_ARGUMENT, () -> session.run(event -> {}), "this engine is closed");
      session.close();
      Check.equal("0 0 0 0", live());
    });

    Check.test("closed in its own loop and by its own tool", checkpoint, model -> {
      Session session = new Session(model);
      Check.refuses(Status.INVALID_ARGUMENT, () -> new Chat(session).ask("#spin", null, event -> session.close()),
          "this session is closed");
      Session second = new Session(model);
      Chat chat = new Chat(second).addTool("calculator", "Compute", "{}", arguments -> {
        second.close();
        return "42";
      });
      Check.refuses(Status.INVALID_ARGUMENT, () -> chat.ask("#calculator"), "this session is closed");
      Check.that(!chat.isRunning(), "the answer still runs");
    });

    Check.test("the collector closes what nobody closed", () -> {
      for (int i = 0; i < 10; i++) {
        Model model = new Model(new Engine(), checkpoint);
        model.tokenizer();
        Chat chat = new Chat(new Session(model));
        for (Event event : chat.send("#spin")) {
          if (event.kind() == EventKind.CONTENT) break;
        }
      }
      for (int i = 0; i < 500 && !live().equals("0 0 0 0"); i++) {
        System.gc();
        Thread.sleep(10);
      }
      Check.equal("0 0 0 0", live());
    });

    Check.test("options are collected while others are made", () -> {
      for (int i = 0; i < 50_000; i++) {
        GenerateOptions options = new GenerateOptions();
        options.addStop("stop " + i);
        options.setSeed(i);
        Check.equal((long) i, options.getSeed());
      }
    });

    Check.finish();
  }
}
