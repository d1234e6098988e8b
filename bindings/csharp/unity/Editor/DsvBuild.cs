using System.IO;
using UnityEditor.Build;
using UnityEditor.Build.Reporting;
using UnityEditor.UnityLinker;

namespace Dsv.Editor {

/// <summary>What a build needs besides scripts and plugins: the bundled checkpoint, and link.xml, which Unity does not look
/// for in packages.</summary>
internal sealed class DsvBuild : BuildPlayerProcessor, IUnityLinkerProcessor {
  public override int callbackOrder {
    get { return 0; }
  }

  public override void PrepareForBuild(BuildPlayerContext context) {
    string nano = Path.GetFullPath("Packages/ai.dsv/nano~");
    if (Directory.Exists(nano)) context.AddAdditionalPathToStreamingAssets(nano, "dsv/nano");
  }

  public string GenerateAdditionalLinkXmlFile(BuildReport report, UnityLinkerBuildPipelineData data) {
    return Path.GetFullPath("Packages/ai.dsv/Runtime/link.xml");
  }
}

}
