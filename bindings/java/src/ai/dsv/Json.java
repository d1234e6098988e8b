package ai.dsv;

import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/** JSON as Map, List, String, Long, Double, Boolean and null, because the JDK has none. */
public final class Json {
  private static final int DEEPEST = 200;

  private final String text;
  private int at;

  private Json(String text) {
    this.text = text;
  }

  /** A LinkedHashMap of alternating keys and values. */
  public static Map<String, Object> object(Object... pairs) {
    if (pairs.length % 2 != 0) throw new DsvException(Status.INVALID_ARGUMENT, "the last key has no value: give pairs");
    Map<String, Object> object = new LinkedHashMap<>();
    for (int i = 0; i < pairs.length; i += 2) object.put((String) pairs[i], pairs[i + 1]);
    return object;
  }

  public static Object parse(String text) {
    Json json = new Json(Objects.requireNonNull(text, "text is null"));
    Object value = json.value(0);
    json.skipSpace();
    if (json.at < text.length()) throw json.error("the text goes on after the value");
    return value;
  }

  @SuppressWarnings("unchecked") // value() makes no other maps
  static Map<String, Object> parseObject(String text) {
    if (parse(text) instanceof Map<?, ?> object) return (Map<String, Object>) object;
    throw new DsvException(Status.INVALID_ARGUMENT, "this JSON is not an object: put it in braces");
  }

  public static String write(Object value) {
    StringBuilder out = new StringBuilder();
    write(value, out, 0);
    return out.toString();
  }

  private static void write(Object value, StringBuilder out, int depth) {
    if (depth > DEEPEST) throw new DsvException(Status.INVALID_ARGUMENT, "this value is nested too deeply for JSON, or holds itself");
    if (value == null || value instanceof Boolean) {
      out.append(value);
    } else if (value instanceof Number number) {
      if (!Double.isFinite(number.doubleValue())) throw new DsvException(Status.INVALID_ARGUMENT, "JSON has no " + value);
      out.append(number);
    } else if (value instanceof CharSequence string) {
      writeString(string, out);
    } else if (value instanceof Map<?, ?> map) {
      String separator = "{";
      for (Map.Entry<?, ?> entry : map.entrySet()) {
        out.append(separator);
        writeString(String.valueOf(entry.getKey()), out);
        out.append(':');
        write(entry.getValue(), out, depth + 1);
        separator = ",";
      }
      out.append(map.isEmpty() ? "{}" : "}");
    } else if (value instanceof Collection<?> list) {
      String separator = "[";
      for (Object element : list) {
        out.append(separator);
        write(element, out, depth + 1);
        separator = ",";
      }
      out.append(list.isEmpty() ? "[]" : "]");
    } else {
      throw new DsvException(Status.INVALID_ARGUMENT,
          "JSON has no " + value.getClass().getName() + ": use String, numbers, Boolean, Map, Collection or null");
    }
  }

  private static void writeString(CharSequence string, StringBuilder out) {
    out.append('"');
    for (int i = 0; i < string.length(); i++) {
      char c = string.charAt(i);
      if (c == '"' || c == '\\') {
        out.append('\\').append(c);
      } else if (c < 0x20) {
        out.append(String.format("\\u%04x", (int) c));
      } else {
        out.append(c);
      }
    }
    out.append('"');
  }

  private Object value(int depth) {
    if (depth > DEEPEST) throw error("it is nested too deeply");
    skipSpace();
    switch (peek()) {
      case '{': {
        Map<String, Object> object = new LinkedHashMap<>();
        at++;
        if (skips('}')) return object;
        do {
          skipSpace();
          String key = string();
          if (!skips(':')) throw error("a colon is missing");
          object.put(key, value(depth + 1));
        } while (skips(','));
        if (!skips('}')) throw error("a closing brace is missing");
        return object;
      }
      case '[': {
        List<Object> list = new ArrayList<>();
        at++;
        if (skips(']')) return list;
        do {
          list.add(value(depth + 1));
        } while (skips(','));
        if (!skips(']')) throw error("a closing bracket is missing");
        return list;
      }
      case '"':
        return string();
      case 't':
        return word("true", true);
      case 'f':
        return word("false", false);
      case 'n':
        return word("null", null);
      default:
        return number();
    }
  }

  private Object word(String word, Object value) {
    if (!text.startsWith(word, at)) throw error("there is no such value");
    at += word.length();
    return value;
  }

  private Object number() {
    int start = at;
    while (at < text.length() && "+-.0123456789eE".indexOf(text.charAt(at)) >= 0) at++;
    String digits = text.substring(start, at);
    try {
      if (digits.matches("-?(0|[1-9][0-9]{0,17})")) return Long.valueOf(digits);
      if (digits.matches("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")) return Double.valueOf(digits);
    } catch (NumberFormatException e) {
      throw error("this is no number");
    }
    throw error("there is no such value");
  }

  private String string() {
    if (peek() != '"') throw error("a string is missing");
    StringBuilder out = new StringBuilder();
    for (at++; peek() != '"'; at++) {
      char c = text.charAt(at);
      if (c < 0x20) throw error("a control character is not escaped");
      out.append(c == '\\' ? escaped() : c);
    }
    at++;
    return out.toString();
  }

  private char escaped() {
    at++;
    char c = peek();
    int plain = "\"\\/bfnrt".indexOf(c);
    if (plain >= 0) return "\"\\/\b\f\n\r\t".charAt(plain);
    if (c != 'u' || at + 4 >= text.length() || !text.substring(at + 1, at + 5).matches("[0-9a-fA-F]{4}")) {
      throw error("there is no such escape");
    }
    at += 4;
    return (char) Integer.parseInt(text.substring(at - 3, at + 1), 16);
  }

  private char peek() {
    if (at >= text.length()) throw error("it ends too early");
    return text.charAt(at);
  }

  private void skipSpace() {
    while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) at++;
  }

  private boolean skips(char c) {
    skipSpace();
    if (at >= text.length() || text.charAt(at) != c) return false;
    at++;
    return true;
  }

  private DsvException error(String what) {
    return new DsvException(Status.INVALID_ARGUMENT, "this is not JSON, because at index " + at + " " + what);
  }
}
