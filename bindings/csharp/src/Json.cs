using System;
using System.Collections;
using System.Collections.Generic;
using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace Dsv {

/// <summary>JSON as Dictionary&lt;string, object&gt;, List&lt;object&gt;, string, long, double, bool and null, because
/// netstandard2.0 has none.</summary>
public static class Json {
  private const int Deepest = 200;

  public static object Parse(string text) {
    if (text == null) throw new ArgumentNullException("text");
    var reader = new Reader(text);
    return reader.All();
  }

  public static string Write(object value) {
    var output = new StringBuilder();
    Write(value, output, 0);
    return output.ToString();
  }

  internal static Dictionary<string, object> ParseObject(string text) {
    var parsed = Parse(text) as Dictionary<string, object>;
    if (parsed == null) throw Refuse("this JSON is not an object: put it in braces");
    return parsed;
  }

  private static DsvException Refuse(string sentence) {
    return new DsvException(Status.InvalidArgument, sentence);
  }

  private static void Write(object value, StringBuilder output, int depth) {
    if (depth > Deepest) throw Refuse("this value is nested too deeply for JSON, or holds itself");
    if (value == null) {
      output.Append("null");
    } else if (value is bool) {
      output.Append((bool)value ? "true" : "false");
    } else if (value is string) {
      WriteString((string)value, output);
    } else if (value is float || value is double) {
      double number = Convert.ToDouble(value, CultureInfo.InvariantCulture);
      if (double.IsNaN(number) || double.IsInfinity(number)) throw Refuse("JSON has no infinity and no NaN");
      output.Append(((IFormattable)value).ToString("R", CultureInfo.InvariantCulture));
    } else if (value is int || value is long || value is short || value is byte || value is uint || value is ulong ||
               value is decimal) {
      output.Append(((IFormattable)value).ToString(null, CultureInfo.InvariantCulture));
    } else if (value is IDictionary<string, object>) {
      string separator = "{";
      foreach (var pair in (IDictionary<string, object>)value) {
        output.Append(separator);
        WriteString(pair.Key, output);
        output.Append(':');
        Write(pair.Value, output, depth + 1);
        separator = ",";
      }
      output.Append(separator == "{" ? "{}" : "}");
    } else if (value is IEnumerable) {
      string separator = "[";
      foreach (object element in (IEnumerable)value) {
        output.Append(separator);
        Write(element, output, depth + 1);
        separator = ",";
      }
      output.Append(separator == "[" ? "[]" : "]");
    } else {
      throw Refuse("JSON has no " + value.GetType() +
          ": use string, numbers, bool, IDictionary<string, object>, IEnumerable or null");
    }
  }

  private static void WriteString(string text, StringBuilder output) {
    output.Append('"');
    foreach (char c in text) {
      if (c == '"' || c == '\\') {
        output.Append('\\').Append(c);
      } else if (c < 0x20) {
        output.AppendFormat(CultureInfo.InvariantCulture, "\\u{0:x4}", (int)c);
      } else {
        output.Append(c);
      }
    }
    output.Append('"');
  }

  private sealed class Reader {
    private const string Escapes = "\"\\/bfnrt";
    private const string Escaped = "\"\\/\b\f\n\r\t";
    private static readonly Regex Integer = new Regex("^-?(0|[1-9][0-9]{0,17})$");
    private static readonly Regex Number = new Regex("^-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?$");

    private readonly string text;
    private int at;

    internal Reader(string text) {
      this.text = text;
    }

    internal object All() {
      object value = Value(0);
      SkipSpace();
      if (at < text.Length) throw Error("the text goes on after the value");
      return value;
    }

    private object Value(int depth) {
      if (depth > Deepest) throw Error("it is nested too deeply");
      SkipSpace();
      switch (Peek()) {
        case '{': return Object(depth);
        case '[': return Array(depth);
        case '"': return String();
        case 't': return Word("true", true);
        case 'f': return Word("false", false);
        case 'n': return Word("null", null);
        default: return ReadNumber();
      }
    }

    private Dictionary<string, object> Object(int depth) {
      var result = new Dictionary<string, object>();
      at++;
      if (Skips('}')) return result;
      do {
        SkipSpace();
        string key = String();
        if (!Skips(':')) throw Error("a colon is missing");
        result[key] = Value(depth + 1);
      } while (Skips(','));
      if (!Skips('}')) throw Error("a closing brace is missing");
      return result;
    }

    private List<object> Array(int depth) {
      var result = new List<object>();
      at++;
      if (Skips(']')) return result;
      do {
        result.Add(Value(depth + 1));
      } while (Skips(','));
      if (!Skips(']')) throw Error("a closing bracket is missing");
      return result;
    }

    private object Word(string word, object value) {
      if (string.CompareOrdinal(text, at, word, 0, word.Length) != 0) throw Error("there is no such value");
      at += word.Length;
      return value;
    }

    private object ReadNumber() {
      int start = at;
      while (at < text.Length && "+-.0123456789eE".IndexOf(text[at]) >= 0) at++;
      string digits = text.Substring(start, at - start);
      if (Integer.IsMatch(digits)) return long.Parse(digits, CultureInfo.InvariantCulture);
      double number;
      if (Number.IsMatch(digits) && double.TryParse(digits, NumberStyles.Float, CultureInfo.InvariantCulture, out number)) {
        return number;
      }
      throw Error("there is no such value");
    }

    private string String() {
      if (Peek() != '"') throw Error("a string is missing");
      var result = new StringBuilder();
      for (at++; Peek() != '"'; at++) {
        char c = text[at];
        if (c < 0x20) throw Error("a control character is not escaped");
        result.Append(c == '\\' ? Escape() : c);
      }
      at++;
      return result.ToString();
    }

    private char Escape() {
      at++;
      char c = Peek();
      int plain = Escapes.IndexOf(c);
      if (plain >= 0) return Escaped[plain];
      ushort unit;
      if (c != 'u' || at + 4 >= text.Length ||
          !ushort.TryParse(text.Substring(at + 1, 4), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out unit)) {
        throw Error("there is no such escape");
      }
      at += 4;
      return (char)unit;
    }

    private char Peek() {
      if (at >= text.Length) throw Error("it ends too early");
      return text[at];
    }

    private void SkipSpace() {
      while (at < text.Length && " \t\r\n".IndexOf(text[at]) >= 0) at++;
    }

    private bool Skips(char c) {
      SkipSpace();
      if (at >= text.Length || text[at] != c) return false;
      at++;
      return true;
    }

    private DsvException Error(string what) {
      return Refuse("this is not JSON, because at index " + at + " " + what);
    }
  }
}

}
