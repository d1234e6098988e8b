import ai.dsv.*;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;

/** Every failure is an exception with its status and a sentence that says what to do. */
public final class ErrorTest {
  private static final String HELLO = "{\"messages\": [{\"role\": \"user\", \"content\": \"#hello\"}]}";

  public static void main(String[] args) {
    Path checkpoint = Path.of(args[0]);

    Check.test("files", () -> {
      try (Engine engine = new Engine()) {
        Path missing = Path.of("no-such-folder");
        Check.refuses(Status.IO, () -> new Model(engine, missing), "no-such-folder");
        Check.refuses(Status.IO, () -> engine.plan(missing, null), "no-such-folder");
        Check.refuses(Status.IO, () -> engine.inspect(missing, null), "no-such-folder");
        Check.refuses(Status.IO, () -> new Tokenizer(Path.of("no-such-file")), "no-such-file");
        Path broken = Files.createTempDirectory("dsv-test-");
        Path config = Files.writeString(broken.resolve("config.json"), "{\"model_type\": ");
        Check.refuses(Status.INVALID_FILE, () -> new Model(engine, broken), "config.json");
        Check.refuses(Status.INVALID_FILE, () -> new Tokenizer(config), "config.json");
        Files.delete(config);
        Files.delete(broken);
        Model model = Model.start(engine, missing, null);
        Check.refuses(Status.IO, () -> model.waitFor(Duration.ofMinutes(1)), "no-such-folder");
        Check.refuses(Status.IO, model::progress, "no-such-folder");
        Check.refuses(Status.NOT_READY, () -> new Session(model));
        model.close();
      }
      Check.equal(0L, Dsv.liveHandles().getModels());
    });

    Check.test("loading in the background", () -> {
      try (Engine engine = new Engine(); Model model = Model.start(engine, checkpoint, null)) {
        while (!model.waitFor(Duration.ofMillis(1))) Check.that(model.progress().getState() <= Dsv.LOAD_READY, "it failed");
        LoadProgress progress = model.progress();
        Check.equal(Dsv.LOAD_READY, progress.getState());
        Check.equal(progress.getTotal(), progress.getDone());
        model.cancelLoad(); // too late: nothing happens
        Check.equal("Hello there!", new Chat(new Session(model)).ask("#hello"));
      }
    });

    Check.test("plans and numbers", checkpoint, model -> {
      Engine engine = model.engine();
      MemoryPlan plan = engine.plan(checkpoint, null);
      Check.equal(plan.getTotalBytes(),
          plan.getWeightBytes() + plan.getWeightCopyBytes() + plan.getKvPoolBytes() + plan.getScratchBytes());
      Check.that(engine.inspect(checkpoint, null).contains("\"lm_head.weight\""), "no lm_head");
      ModelInfo info = model.info();
      Check.that(info.getHasChat() && !info.getHasMtp() && info.getEosToken() == 1, "info");
      Check.that(model.memory().getKvPagesTotal() > 0, "no pages");
      ModelOptions options = new ModelOptions();
      options.setWeightBudgetBytes(1000);
      Check.refuses(Status.BUDGET, () -> new Model(engine, checkpoint, options), "weight_budget_bytes");
      ModelOptions raw = new ModelOptions();
      raw.setChatProfile("none");
      raw.setContextTokens(64);
      try (Model tokensOnly = new Model(engine, checkpoint, raw)) {
        Check.equal(64L, tokensOnly.info().getContextTokens());
        Check.equal(64L, raw.getContextTokens());
        Check.equal("none", raw.getChatProfile());
        Check.refuses(Status.UNSUPPORTED, () -> new Chat(new Session(tokensOnly)).ask("Hi"));
      }
    });

    Check.test("options out of range", checkpoint, model -> {
      Session session = new Session(model);
      GenerateOptions options = new GenerateOptions();
      options.setTopP(2);
      Check.refuses(Status.INVALID_ARGUMENT, () -> session.chat(HELLO, options), "top_p");
      options.setTopP(1);
      options.setTemperature(Float.NaN);
      Check.refuses(Status.INVALID_ARGUMENT, () -> session.chat(HELLO, options), "temperature");
      GenerateOptions stops = new GenerateOptions();
      for (int i = 0; i < 17; i++) stops.addStop("x" + i);
      Check.refuses(Status.INVALID_ARGUMENT, () -> session.chat(HELLO, stops), "stop");
      EngineOptions engine = new EngineOptions();
      engine.setBackend("abacus");
      Check.refuses(Status.UNSUPPORTED, () -> new Engine(engine), "abacus");
      Check.refuses(Status.INVALID_ARGUMENT, () -> engine.setBackend("a\0b"), "NUL");
      engine.setBackend("");
      engine.setThreads(-1);
      Check.refuses(Status.INVALID_ARGUMENT, () -> new Engine(engine), "threads");
    });

    Check.test("requests", checkpoint, model -> {
      Session session = new Session(model);
      for (String bad : new String[] {"", "{", "[]", "{}", "{\"messages\": 1}", "{\"messages\": [{\"role\": \"king\"}]}", "\0"}) {
        Check.refuses(Status.INVALID_ARGUMENT, () -> session.chat(bad, null));
      }
      Check.refuses(Status.INVALID_ARGUMENT, () -> session.complete(new int[] {-1}, null), "-1");
      Check.refuses(Status.INVALID_ARGUMENT, () -> session.complete(new int[] {1 << 30}, null));
      Check.refuses(Status.INVALID_ARGUMENT, () -> session.complete(new int[0], null));
      Check.refuses(Status.INVALID_ARGUMENT, () -> session.logits(new int[] {5}, 0, 2, Dsv.LOGITS_MAIN));
      Check.refuses(Status.INVALID_ARGUMENT, () -> session.logits(new int[] {5}, -1, 1, Dsv.LOGITS_MAIN));
      Check.refuses(Status.INVALID_ARGUMENT, () -> session.logits(new int[] {5}, 0, Long.MAX_VALUE, Dsv.LOGITS_MAIN));
      Check.refuses(Status.INVALID_ARGUMENT, () -> session.logits(new int[] {5}, 0, 1, 7), "source");
      Check.refuses(Status.INVALID_ARGUMENT, () -> model.tokenizer().decode(new int[] {-5}));
      session.chat(HELLO, null);
      Check.refuses(Status.BUSY, () -> session.chat(HELLO, null));
      session.run(event -> {});
    });

    Check.test("null", checkpoint, model -> {
      Session session = new Session(model);
      Chat chat = new Chat(session);
      Check.thrown(NullPointerException.class, () -> new Model(null, checkpoint));
      Check.thrown(NullPointerException.class, () -> new Model(model.engine(), null));
      Check.thrown(NullPointerException.class, () -> new Session(null));
      Check.thrown(NullPointerException.class, () -> new Tokenizer((Path) null));
      Check.refusesNull("session is null", () -> new Chat(null));
      Check.refusesNull("text is null", () -> chat.ask(null));
      Check.refusesNull("text is null", () -> chat.system(null));
      Check.refusesNull("request is null", () -> session.chat(null, null));
      Check.refusesNull("tokens is null", () -> session.complete(null, null));
      Check.refusesNull("ids is null", () -> model.tokenizer().decode(null));
      Check.refusesNull("text is null", () -> model.tokenizer().encode(null));
      Check.refusesNull("text is null", () -> new GenerateOptions().addStop(null));
      Check.thrown(NullPointerException.class, () -> Dsv.chatEncode(null, 0));
      Check.thrown(NullPointerException.class, () -> Dsv.hasFeature(null));
      Check.thrown(NullPointerException.class, () -> chat.ask("#hello", null, null));
      Check.that(!chat.isRunning(), "the answer still runs");
      Check.equal("Hello there!", chat.ask("#hello"));
    });

    Check.finish();
  }
}
