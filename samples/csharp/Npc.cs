// A character that talks, for Unity: put it on objects and call Say(). All of them share one engine, which gets a few
// milliseconds of every frame; nothing ever waits.
using System;
using Dsv;
using UnityEngine;

public sealed class Npc : MonoBehaviour {
  [SerializeField] private string persona = "You are Brakka, a smith. You are brief.";
  [SerializeField] private int budgetMicroseconds = 2000;

  private static Engine engine;
  private static Model model;
  private static int alive, steppedFrame;

  private Session session;
  private Chat chat;
  private string question;

  /// <summary>What has been said so far of the newest answer: show it.</summary>
  public string Text { get; private set; } = "";

  public bool IsTalking {
    get { return question != null || (chat != null && chat.IsRunning); }
  }

  /// <summary>An answer that still runs is stopped.</summary>
  public void Say(string text) {
    question = text;
  }

  private void Awake() {
    if (alive++ > 0) return;
    engine = new Engine();
    model = Model.Start(engine, UnityCheckpoint.Folder);  // loads in the background
    steppedFrame = -1;
  }

  private void Update() {
    if (chat == null) {
      if (!model.Wait(TimeSpan.Zero)) return;  // still loading
      session = new Session(model);
      chat = new Chat(session, persona);
    }
    if (question != null) {
      string asked = question;
      question = null;
      Text = "";
      chat.Start(asked, new GenerateOptions { MaxTokens = 200 });
    }
    if (steppedFrame != Time.frameCount) {
      steppedFrame = Time.frameCount;
      engine.Step(budgetMicroseconds);  // once a frame, for everybody
    }
    for (var e = chat.Poll(); e != null; e = chat.Poll()) {  // Event alone could be UnityEngine's
      if (e.Kind == EventKind.Content) Text += e.Text;
    }
  }

  private void OnDestroy() {
    if (session != null) session.Dispose();
    if (--alive > 0) return;
    model.Dispose();
    engine.Dispose();
  }
}
