// The declarations of UnityEditor that the package uses.
namespace UnityEditor.Build {

public interface IOrderedCallback {
  int callbackOrder { get; }
}

public sealed class BuildPlayerContext {
  public void AddAdditionalPathToStreamingAssets(string directoryOrFile, string pathInStreamingAssets = null) {}
}

public abstract class BuildPlayerProcessor : IOrderedCallback {
  public virtual int callbackOrder {
    get { return 0; }
  }
  public abstract void PrepareForBuild(BuildPlayerContext buildPlayerContext);
}

}

namespace UnityEditor.Build.Reporting {
public sealed class BuildReport {}
}

namespace UnityEditor.UnityLinker {

public sealed class UnityLinkerBuildPipelineData {}

public interface IUnityLinkerProcessor : UnityEditor.Build.IOrderedCallback {
  string GenerateAdditionalLinkXmlFile(UnityEditor.Build.Reporting.BuildReport report, UnityLinkerBuildPipelineData data);
}

}
