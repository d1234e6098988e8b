package ai.dsv;

import java.nio.charset.StandardCharsets;
import java.util.Objects;

/** Text as it crosses into native code. JNI's own strings are modified UTF-8: they break emoji and NUL. */
final class Utf8 {
  private Utf8() {}

  static byte[] encode(String text, String name) {
    Objects.requireNonNull(text, () -> name + " is null: give text, or \"\" for none");
    for (int i = 0; i < text.length(); i++) {
      char unit = text.charAt(i);
      if (!Character.isSurrogate(unit)) continue;
      boolean pair = Character.isHighSurrogate(unit) && i + 1 < text.length()
          && Character.isLowSurrogate(text.charAt(i + 1));
      if (!pair) {
        throw new DsvException(Status.INVALID_ARGUMENT,
            String.format("%s has a lone surrogate (U+%04X) at index %d: it is not Unicode text, remove or replace it",
                name, (int) unit, i));
      }
      i++;
    }
    return text.getBytes(StandardCharsets.UTF_8);
  }

  static String decode(byte[] bytes) {
    return new String(bytes, StandardCharsets.UTF_8);
  }
}
