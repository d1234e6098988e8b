package ai.dsv;

import java.util.Map;
import java.util.Objects;
import java.util.function.Function;

/**
 * A function that the model may call.
 *
 * @param schema the parameters' JSON schema
 * @param function gets the arguments (String, Long, Double, Boolean, List, Map or null) by name; what it returns goes
 *     back as text, or as JSON if it is not a String
 */
public record Tool(String name, String description, String schema, Function<Map<String, Object>, Object> function) {
  public Tool {
    Objects.requireNonNull(name, "name is null");
    Objects.requireNonNull(description, "description is null");
    Objects.requireNonNull(schema, "schema is null: for no parameters give {\"type\": \"object\", \"properties\": {}}");
    Objects.requireNonNull(function, "function is null");
    Json.parseObject(schema); // says early what is wrong with it
  }

  Map<String, Object> declaration() {
    return Map.of("type", "function",
        "function", Json.object("name", name, "description", description, "parameters", Json.parseObject(schema)));
  }

  String call(String arguments) {
    Object result = function.apply(Json.parseObject(arguments));
    return result instanceof String text ? text : Json.write(result);
  }
}
