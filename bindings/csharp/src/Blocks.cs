using System;
using System.Runtime.InteropServices;
using System.Text;

namespace Dsv {

/// <summary>Text and arrays as they cross into native code: in behind their count, out as blocks to be freed.</summary>
internal static class Blocks {
  private const int CountBytes = 4;
  private const int HeaderBytes = 8;

  internal static byte[] FromText(string text, string name) {
    if (text == null) throw new ArgumentNullException(name, name + " is null: give text, or \"\" for none");
    for (int i = 0; i < text.Length; i++) {
      if (!char.IsSurrogate(text[i])) continue;
      if (i + 1 == text.Length || !char.IsSurrogatePair(text[i], text[i + 1])) {
        throw new DsvException(Status.InvalidArgument,
            string.Format("{0} has a lone surrogate (U+{1:X4}) at index {2}: it is not Unicode text, remove or replace it",
                name, (int)text[i], i));
      }
      i++;
    }
    int size = Encoding.UTF8.GetByteCount(text);
    var counted = new byte[CountBytes + size];
    BitConverter.GetBytes(size).CopyTo(counted, 0);
    Encoding.UTF8.GetBytes(text, 0, text.Length, counted, CountBytes);
    return counted;
  }

  internal static int[] FromIds(int[] ids, string name) {
    if (ids == null) throw new ArgumentNullException(name, name + " is null: give an array, it may be empty");
    var counted = new int[1 + ids.Length];
    counted[0] = ids.Length;
    ids.CopyTo(counted, 1);
    return counted;
  }

  internal static string TakeText(IntPtr block) {
    return block == IntPtr.Zero ? "" : Encoding.UTF8.GetString(TakeBytes(block));
  }

  internal static byte[] TakeBytes(IntPtr block) {
    return Take<byte>(block, 1, Marshal.Copy);
  }

  internal static int[] TakeIds(IntPtr block) {
    return Take<int>(block, 4, Marshal.Copy);
  }

  internal static float[] TakeFloats(IntPtr block) {
    return Take<float>(block, 4, Marshal.Copy);
  }

  private delegate void CopyOut<T>(IntPtr from, T[] to, int start, int count);

  private static T[] Take<T>(IntPtr block, int elementBytes, CopyOut<T> copy) {
    if (block == IntPtr.Zero) return new T[0];
    try {
      long count = Marshal.ReadInt64(block) / elementBytes;
      if (count > int.MaxValue) {
        throw new DsvException(Status.OutOfMemory, "the answer is larger than an array can be: ask for less at once");
      }
      var elements = new T[count];
      copy(IntPtr.Add(block, HeaderBytes), elements, 0, elements.Length);
      return elements;
    } finally {
      NativePINVOKE.FreeBlock(block);
    }
  }
}

}
