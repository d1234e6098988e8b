import ai.dsv.*;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** Answers by polling, iterator and listener, on the scripted checkpoint. */
public final class ChatTest {
  public static void main(String[] args) {
    Path checkpoint = Path.of(args[0]);

    Check.test("polling every frame", checkpoint, model -> {
      Chat chat = new Chat(new Session(model));
      chat.start("Hi #hello", null);
      StringBuilder said = new StringBuilder();
      int frames = 0;
      while (chat.isRunning()) {
        model.engine().step(1);
        frames++;
        for (Event event; (event = chat.poll()) != null;) {
          if (event.kind() == EventKind.CONTENT) said.append(event.text());
        }
      }
      Check.equal("Hello there!", said.toString());
      Check.that(frames > 1, "a budget of 1 us took all in one frame");
      Check.equal(null, chat.poll());
      Check.equal("[{role=user, content=Hi #hello}, {role=assistant, content=Hello there!}]", chat.messages().toString());
    });

    Check.test("two chats share the frames", checkpoint, model -> {
      Chat[] chats = {new Chat(new Session(model)), new Chat(new Session(model))};
      StringBuilder[] said = {new StringBuilder(), new StringBuilder()};
      chats[0].start("#hello", null);
      chats[1].start("#emoji", null);
      while (chats[0].isRunning() || chats[1].isRunning()) {
        model.engine().step(500);
        for (int i = 0; i < 2; i++) {
          for (Event event; (event = chats[i].poll()) != null;) {
            if (event.kind() == EventKind.CONTENT) said[i].append(event.text());
          }
        }
      }
      Check.equal("Hello there!", said[0].toString());
      Check.equal("A hand: \uD83D\uDC4D and that is all.", said[1].toString());
    });

    Check.test("a loop belongs to its own request", checkpoint, model -> {
      Session session = new Session(model);
      Check.that(!session.events().hasNext(), "events without a request");
      Chat chat = new Chat(session);
      EventStream left = chat.send("#hello");
      Check.that(left.hasNext(), "no event");
      EventStream next = chat.send("#hello");
      left.close();
      StringBuilder said = new StringBuilder();
      for (Event event : next) {
        if (event.kind() == EventKind.CONTENT) said.append(event.text());
      }
      Check.equal("Hello there!", said.toString());
      Check.that(!session.events().hasNext(), "events after the last");
    });

    Check.test("iterator: kinds, usage, once", checkpoint, model -> {
      Chat chat = new Chat(new Session(model)).system("Be brief.");
      List<EventKind> kinds = new ArrayList<>();
      Event last = null;
      EventStream stream = chat.send("#hello");
      for (Event event : stream) {
        kinds.add(event.kind());
        last = event;
      }
      Check.equal(EventKind.PREFILL, kinds.get(0));
      Check.equal(FinishReason.STOP, last.finishReason());
      Check.equal(Status.OK, last.status());
      Check.equal(4L, last.completionTokens()); // three pieces and the end
      Check.that(last.promptTokens() > 10, "few prompt tokens: " + last);
      Check.that(!stream.hasNext(), "the stream goes on");
      Check.thrown(java.util.NoSuchElementException.class, stream::next);
      Event second = null;
      for (Event event : chat.send("#hello")) second = event;
      Check.that(second.cachedTokens() >= last.promptTokens(), "the first turn was computed again: " + second);
    });

    Check.test("leaving a loop early, then asking again", checkpoint, model -> {
      Chat chat = new Chat(new Session(model));
      try (EventStream stream = chat.send("#spin")) {
        int contents = 0;
        for (Event event : stream) {
          if (event.kind() == EventKind.CONTENT && ++contents == 3) break;
        }
      }
      Check.that(!chat.isRunning(), "the answer still runs");
      Check.that(chat.messages().get(1).get("content").toString().startsWith("and on and on "), "" + chat.messages());
      Check.equal("Hello there!", chat.ask("#hello"));
      for (Event event : chat.send("#spin")) {
        if (event.kind() == EventKind.CONTENT) break; // without close: the next question stops it
      }
      Check.equal("So be it.", chat.ask("And now?"));
    });

    Check.test("listener, and what it throws", checkpoint, model -> {
      Session session = new Session(model);
      Chat chat = new Chat(session);
      List<String> heard = new ArrayList<>();
      Check.equal("Hello there!", chat.ask("#hello", null, event -> {
        if (event.kind() == EventKind.CONTENT) heard.add(event.text());
      }));
      Check.equal(List.of("Hello", " there", "!"), heard);
      IllegalStateException mine = new IllegalStateException("enough");
      Check.equal(mine, Check.thrown(IllegalStateException.class, () -> chat.ask("#spin", null, event -> {
        if (event.kind() == EventKind.CONTENT) throw mine;
      })));
      Check.that(!chat.isRunning(), "the answer still runs");
      Check.equal(0, model.engine().step(1000));
      // An Error, and a checked exception smuggled out, come back as they are.
      AssertionError error = new AssertionError("also enough");
      Check.equal(error, Check.thrown(AssertionError.class, () -> chat.ask("#spin", null, event -> {
        throw error;
      })));
      Check.equal("Hello there!", chat.ask("#hello"));
    });

    Check.test("listener on a session, and what it throws", checkpoint, model -> {
      Session session = new Session(model);
      String request = "{\"messages\": [{\"role\": \"user\", \"content\": \"#spin\"}]}";
      session.chat(request, null);
      IllegalStateException mine = new IllegalStateException("enough");
      Check.equal(mine, Check.thrown(IllegalStateException.class, () -> session.run(event -> {
        if (event.kind() == EventKind.CONTENT) throw mine;
      })));
      Check.equal(0, model.engine().step(1000));
      long first = session.chat(request.replace("#spin", "#hello"), null);
      StringBuilder said = new StringBuilder();
      session.run(event -> {
        Check.equal(first, event.request());
        said.append(event.text());
      });
      Check.equal("Hello there!", said.toString());
      Check.that(session.tokens().length >= 6, "the session holds no tokens");
    });

    Check.test("thinking", checkpoint, model -> {
      Chat chat = new Chat(new Session(model));
      GenerateOptions options = new GenerateOptions();
      options.setThinking(true);
      StringBuilder thought = new StringBuilder();
      long[] tokens = new long[1];
      Check.equal("So be it.", chat.ask("#think", options, event -> {
        if (event.kind() == EventKind.REASONING) thought.append(event.text());
        if (event.kind() == EventKind.FINISHED) tokens[0] = event.reasoningTokens();
      }));
      Check.equal("Hmm, hmm.", thought.toString());
      Check.that(tokens[0] >= 2, "reasoning tokens: " + tokens[0]);
      Check.equal("Hmm, hmm.", chat.messages().get(1).get("reasoning_content"));
    });

    Check.test("options: length, stop strings, bias, log probabilities", checkpoint, model -> {
      Session session = new Session(model);
      GenerateOptions options = new GenerateOptions();
      options.setMaxTokens(2);
      Check.equal("Hello there", new Chat(session).ask("#hello", options, event -> {
        if (event.kind() == EventKind.FINISHED) Check.equal(FinishReason.LENGTH, event.finishReason());
      }));
      options = new GenerateOptions();
      options.addStop("on and");
      options.addStop("\uD83D\uDC4D");
      Check.equal("and ", new Chat(session).ask("#spin", options, event -> {
        if (event.kind() == EventKind.FINISHED) Check.equal(FinishReason.STOP_STRING, event.finishReason());
      }));
      Check.equal("A hand: ", new Chat(session).ask("#emoji", options, event -> {}));

      GenerateOptions counted = new GenerateOptions();
      counted.setLogprobs(2);
      counted.setTemperature(0);
      List<Event> tokens = new ArrayList<>();
      new Chat(session).ask("#hello", counted, event -> {
        if (event.kind() == EventKind.TOKEN) tokens.add(event);
      });
      Check.equal(4, tokens.size());
      for (Event token : tokens) {
        Check.equal(2, token.top().size());
        Check.equal(token.token(), token.top().get(0).token());
        Check.that(token.logprob() <= 0 && token.logprob() > -0.01, "log probability " + token.logprob());
      }
      counted.addLogitBias(tokens.get(0).token(), Float.NEGATIVE_INFINITY);
      Check.that(!new Chat(session).ask("#hello", counted, event -> {}).startsWith("Hello"), "the bias did nothing");
    });

    Check.test("raw tokens and logits", checkpoint, model -> {
      Session session = new Session(model);
      try (Tokenizer tokenizer = model.tokenizer()) {
        int[] prompt = tokenizer.encode("#hello<｜Assistant｜></think>");
        Check.equal(1, prompt.length);
        session.complete(prompt, null);
        StringBuilder said = new StringBuilder();
        session.run(event -> said.append(event.text()));
        Check.equal("Hello there!", said.toString());
        float[] logits = session.logits(prompt, 0, 1, Dsv.LOGITS_MAIN);
        Check.equal(model.info().getVocabSize(), logits.length);
        int best = 0;
        for (int i = 0; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
        Check.equal("Hello", new String(tokenizer.decode(new int[] {best}), java.nio.charset.StandardCharsets.UTF_8));
      }
    });

    Check.test("encode and parse", () -> {
      String prompt = Dsv.chatEncode("{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}", Dsv.CHAT_THINKING);
      Check.equal("<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜><think>", prompt);
      Object message = Json.parse(Dsv.chatParse("Hmm</think>Yes", Dsv.CHAT_THINKING));
      Check.equal("Hmm", ((java.util.Map<?, ?>) message).get("reasoning_content"));
      Check.that(Dsv.version() > 0 && Dsv.hasFeature("backend.cpu") && !Dsv.hasFeature("flying"), Dsv.buildInfo());
      Check.that(!Dsv.cpuTargets().isEmpty(), "no CPU targets");
    });

    Check.finish();
  }
}
