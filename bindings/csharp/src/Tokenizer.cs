namespace Dsv {

/// <summary>A tokenizer by itself.</summary>
public sealed class Tokenizer : Handle {
  /// <summary>path: a tokenizer.json.</summary>
  public Tokenizer(string path) : this(Native.TokenizerOpen(path)) {}

  internal Tokenizer(long number) : base(number) {}

  /// <summary>Ids without a BOS.</summary>
  public int[] Encode(string text) {
    return Native.TokenizerEncode(Number, text);
  }

  /// <summary>UTF-8 bytes, because ids may cut a character.</summary>
  public byte[] Decode(int[] ids) {
    return Native.TokenizerDecode(Number, ids);
  }

  internal override void Close(long number) {
    Native.TokenizerClose(number);
  }
}

}
