import { afterEach, describe, expect, it, vi } from "vitest";
import { drawn, filters, first, floats } from "../src/lib/filters";

/** A file of two tensors, as safetensors has it. */
function file(): Uint8Array {
  const weights = new Float32Array([1, -1, 0, 0.5, 2, 2, 2, 2]);
  const header = {
    __metadata__: { format: "pt" },
    "fc.weight": { dtype: "F32", shape: [1, 2], data_offsets: [32, 40] },
    "conv1.weight": { dtype: "F32", shape: [2, 1, 2, 2], data_offsets: [0, 32] },
  };
  const text = new TextEncoder().encode(JSON.stringify(header));
  const whole = new Uint8Array(8 + text.length + 40);
  new DataView(whole.buffer).setBigUint64(0, BigInt(text.length), true);
  whole.set(text, 8);
  whole.set(new Uint8Array(weights.buffer), 8 + text.length);
  return whole;
}

afterEach(() => vi.unstubAllGlobals());

describe("the first filters", () => {
  it.each([true, false])("are fetched and no more (the server gives parts: %s)", async (parts) => {
    const whole = file();
    let sent = 0;
    vi.stubGlobal("fetch", async (_: string, init: RequestInit) => {
      const [from, to] = /bytes=(\d+)-(\d+)/.exec(new Headers(init.headers).get("Range")!)!.slice(1).map(Number);
      const body = parts ? whole.slice(from, to! + 1) : whole;
      sent += body.length;
      return new Response(body as Uint8Array<ArrayBuffer>, { status: parts ? 206 : 200 });
    });
    const found = await filters("/f");
    expect(found).toMatchObject({ name: "conv1.weight", count: 2, channels: 1, h: 2, w: 2 });
    expect([...found!.data]).toEqual([1, -1, 0, 0.5, 2, 2, 2, 2]);
    if (parts) expect(sent).toBe(whole.length - 8);
  });
  it("are drawn about grey, each by its own greatest weight", () => {
    const found = { name: "", count: 1, channels: 1, h: 1, w: 3, data: new Float32Array([2, 0, -2]) };
    expect([...drawn(found, 0)].filter((_, n) => n % 4 === 0)).toEqual([255, 128, 0]);
  });
  it("are none where a network begins otherwise", () => {
    expect(first({ "a.weight": { dtype: "F32", shape: [8, 16, 3, 3], data_offsets: [0, 1] } })).toBeNull();
  });
  it("come in bfloat16 too", () => {
    expect([...floats(new Uint16Array([0x3f80, 0xc000]).buffer, "BF16")!]).toEqual([1, -2]);
    expect(floats(new ArrayBuffer(2), "I8")).toBeNull();
  });
});
