using System;
using System.Collections.Generic;

namespace Dsv {

/// <summary>A function that the model may call.</summary>
public sealed class Tool {
  private readonly Dictionary<string, object> parameters;
  private readonly Func<IDictionary<string, object>, object> function;

  /// <param name="name">What the model calls it.</param>
  /// <param name="description">What it does: the model reads this.</param>
  /// <param name="schema">The parameters' JSON schema.</param>
  /// <param name="function">Gets the arguments (string, long, double, bool, List&lt;object&gt;, Dictionary&lt;string,
  /// object&gt; or null) by name; what it returns goes back as text, or as JSON if it is not a string.</param>
  public Tool(string name, string description, string schema, Func<IDictionary<string, object>, object> function) {
    if (name == null) throw new ArgumentNullException("name");
    if (description == null) throw new ArgumentNullException("description");
    if (schema == null) {
      throw new ArgumentNullException("schema", "for no parameters give {\"type\": \"object\", \"properties\": {}}");
    }
    if (function == null) throw new ArgumentNullException("function");
    Name = name;
    Description = description;
    parameters = Json.ParseObject(schema);
    this.function = function;
  }

  public string Name { get; }
  public string Description { get; }

  internal Dictionary<string, object> Declaration() {
    return new Dictionary<string, object> {
      { "type", "function" },
      { "function", new Dictionary<string, object> {
          { "name", Name }, { "description", Description }, { "parameters", parameters } } }
    };
  }

  internal string Call(string arguments) {
    object result = function(Json.ParseObject(arguments));
    return result as string ?? Json.Write(result);
  }
}

}
