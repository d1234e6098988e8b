package ai.dsv;

import java.nio.file.Path;

/** A tokenizer by itself. */
public final class Tokenizer extends Handle {
  /** path: a tokenizer.json. */
  public Tokenizer(Path path) {
    this(Native.tokenizerOpen(path.toString()));
  }

  Tokenizer(long number) {
    super(number, Native::tokenizerClose);
  }

  /** Ids without a BOS. */
  public int[] encode(String text) {
    return Native.tokenizerEncode(number, text);
  }

  /** UTF-8 bytes, because ids may cut a character. */
  public byte[] decode(int[] ids) {
    return Native.tokenizerDecode(number, ids);
  }
}
