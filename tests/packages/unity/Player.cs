using System;
using System.IO;
using System.Reflection;
using UnityEngine;

/// <summary>Player STREAMING_ASSETS SCRIPTED JSON_FILE...: two characters talk, frame by frame, as Unity would call them.
/// </summary>
internal static class Player {
  private static void Send(Npc npc, string message) {
    MethodInfo method = typeof(Npc).GetMethod(message, BindingFlags.Instance | BindingFlags.NonPublic);
    method.Invoke(npc, null);
  }

  private static int Talk(Npc[] npcs, string text) {
    int frames = 0;
    foreach (Npc npc in npcs) npc.Say(text);
    for (; frames < 100000 && Array.Exists(npcs, npc => npc.IsTalking); frames++) {
      Time.frameCount++;
      foreach (Npc npc in npcs) Send(npc, "Update");
      System.Threading.Thread.Sleep(1);
    }
    return frames;
  }

  private static int Main(string[] args) {
    Application.streamingAssetsPath = args[0];
    for (int i = 2; i < args.Length; i++) Dsv.Json.Parse(File.ReadAllText(args[i]));
    var npcs = new[] { new Npc(), new Npc() };
    foreach (Npc npc in npcs) Send(npc, "Awake");
    int frames = Talk(npcs, "Good day!");
    bool spoke = Array.TrueForAll(npcs, npc => npc.Text.Length > 0);
    foreach (Npc npc in npcs) Send(npc, "OnDestroy");
    Dsv.HandleCounts left = Dsv.Library.LiveHandles();
    if (!spoke || frames < 2 || left.Engines + left.Models + left.Sessions != 0) {
      Console.WriteLine("{0} frames, spoke: {1}, left: {2} {3} {4}", frames, spoke, left.Engines, left.Models, left.Sessions);
      return 1;
    }
    Console.WriteLine("ok: {0} frames", frames);
    return 0;
  }
}
