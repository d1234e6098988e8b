import ai.dsv.*;

public class Quickstart {
  public static void main(String[] args) {
    try (Engine engine = new Engine(); Model model = new Model(engine, Dsv.bundledCheckpoint())) {
      for (Event event : new Chat(new Session(model)).send("Hello! Who are you?")) {
        if (event.kind() == EventKind.CONTENT) System.out.print(event.text());
      }
    }
  }
}
