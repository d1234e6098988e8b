// The declarations of Unity that the package and its sample use, with Unity's names that could clash with theirs.
using System;

namespace UnityEngine {

public class Object {}
public class Component : Object {}
public class Behaviour : Component {}
public class MonoBehaviour : Behaviour {}
public sealed class Event {}

[AttributeUsage(AttributeTargets.Field)]
public sealed class SerializeField : Attribute {}

public static class Time {
  public static int frameCount { get; set; }
}

public static class Application {
  public static string streamingAssetsPath { get; set; }
}

}
