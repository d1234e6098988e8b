using System;
using System.Collections;
using System.Collections.Generic;
using System.Linq;
using Dsv;

/// <summary>What the tests share: named cases, and expectations that say what they saw.</summary>
internal static class Check {
  private static int failures;

  internal static int Failures {
    get { return failures; }
  }

  internal static void Test(string name, Action action) {
    try {
      action();
      Console.WriteLine("ok " + name);
    } catch (Exception e) {
      failures++;
      Console.WriteLine("FAILED " + name);
      Console.WriteLine(e);
    }
  }

  /// <summary>A case with an engine and the checkpoint of its own.</summary>
  internal static void Test(string name, string checkpoint, Action<Model> action) {
    Test(name, () => {
      using (var engine = new Engine())
      using (var model = new Model(engine, checkpoint)) {
        action(model);
      }
    });
  }

  internal static void That(bool holds, string what) {
    if (!holds) throw new InvalidOperationException(what);
  }

  /// <summary>Lists are compared element by element.</summary>
  internal static void Equal(object expected, object actual) {
    string wanted = Show(expected), seen = Show(actual);
    if (wanted != seen) throw new InvalidOperationException("expected <" + wanted + "> but saw <" + seen + ">");
  }

  /// <summary>Returns what the action threw.</summary>
  internal static T Thrown<T>(Action action) where T : Exception {
    try {
      action();
    } catch (T e) {
      return e;
    } catch (Exception e) {
      throw new InvalidOperationException("expected " + typeof(T) + " but saw " + e, e);
    }
    throw new InvalidOperationException("expected " + typeof(T) + ", but nothing was thrown");
  }

  /// <summary>The sentence must contain every part.</summary>
  internal static void Refuses(Status status, Action action, params string[] parts) {
    var e = Thrown<DsvException>(action);
    Equal(status, e.Status);
    foreach (string part in parts) That(e.Message.Contains(part), "\"" + e.Message + "\" does not say " + part);
  }

  internal static void RefusesNull(string name, Action action) {
    Equal(name, Thrown<ArgumentNullException>(action).ParamName);
  }

  private static string Show(object value) {
    if (value == null) return "null";
    if (value is string) return (string)value;
    var pairs = value as IDictionary<string, object>;
    if (pairs != null) return "{" + string.Join(", ", pairs.Select(pair => pair.Key + "=" + Show(pair.Value))) + "}";
    var list = value as IEnumerable;
    if (list != null) return "[" + string.Join(", ", list.Cast<object>().Select(Show)) + "]";
    return Convert.ToString(value, System.Globalization.CultureInfo.InvariantCulture);
  }
}
