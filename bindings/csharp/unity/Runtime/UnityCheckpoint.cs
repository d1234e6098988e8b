using System.IO;

namespace Dsv {

/// <summary>The small checkpoint that comes with the package. A build carries it as StreamingAssets/dsv/nano.</summary>
public static class UnityCheckpoint {
  /// <summary>Its folder, in the editor and in a build.</summary>
  public static string Folder {
    get {
#if UNITY_EDITOR
      return Path.GetFullPath("Packages/ai.dsv/nano~");
#else
      return Path.Combine(UnityEngine.Application.streamingAssetsPath, "dsv/nano");
#endif
    }
  }
}

}
