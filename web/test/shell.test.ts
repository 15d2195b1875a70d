import { afterEach, describe, expect, it, vi } from "vitest";

import { ApiError, address, get, layered, post, upload } from "../src/lib/api";
import { speak, speech, short } from "../src/lib/i18n.svelte";
import { link, parse } from "../src/lib/router.svelte";
import { liveFrame, rgb, sprite } from "../src/lib/sprite";

afterEach(() => vi.unstubAllGlobals());

const answering = (response: Response) => {
  const asked = vi.fn((_url: string, _init?: RequestInit) => Promise.resolve(response));
  vi.stubGlobal("fetch", asked);
  return asked;
};

describe("addresses", () => {
  it("come back as they were written, whatever the layer's name holds", () => {
    const name = "block.1/conv 3×3?#%";
    const hash = link("unit", ["net", name, 7], { picture: "a&b", key: null });
    expect(parse(hash)).toEqual({ page: "unit", parts: ["net", name, "7"], query: { picture: "a&b" } });
    expect(address("look", "k", name)).toBe(`/api/look/k/${encodeURIComponent(name)}`);
    // a layer's / and % are escaped twice: servers take %2F for a / that divides
    expect(decodeURIComponent(address("look", "k", layered("a/b")))).toBe("/api/look/k/a%2Fb");
    expect(decodeURIComponent(layered(name))).toBe(name);
  });
  it("open Look by default, and survive a hash typed by hand", () => {
    expect(parse("").page).toBe("look");
    expect(parse("#/unit/%E0%A4%A/x").parts[0]).toBe("%E0%A4%A");
  });
});

describe("requests", () => {
  it("carry the header that no other page can send", async () => {
    const asked = answering(Response.json({ ok: true }));
    await post("/api/x", { a: 1 });
    const { headers, body } = asked.mock.calls[0]![1]!;
    expect((headers as Headers).get("X-Innervision")).toBe("1");
    expect(body).toBe('{"a":1}');
  });
  it("fail with the server's own sentence", async () => {
    answering(Response.json({ detail: "no layer 'conv6_1'" }, { status: 404 }));
    await expect(get("/api/x")).rejects.toMatchObject({ status: 404, message: "no layer 'conv6_1'" });
  });
  it("say so where nothing answers", async () => {
    vi.stubGlobal("fetch", () => Promise.reject(new TypeError("failed")));
    await expect(get("/api/x")).rejects.toBeInstanceOf(ApiError);
  });
  it("write a picture's name so that a header may hold it", async () => {
    const asked = answering(Response.json({ id: "1" }));
    await upload(new Blob(["x"]), "猫.png");
    expect((asked.mock.calls[0]![1]!.headers as Headers).get("X-Name")).toBe("%E7%8C%AB.png");
  });
});

describe("sprites", () => {
  it("must have as many bytes as their shape says", async () => {
    const headers = { "X-Shape": "2,3,4" };
    answering(new Response(new Uint8Array(24), { headers }));
    expect(await sprite("k", "conv1", 64)).toMatchObject({ channels: 2, h: 3, w: 4 });
    answering(new Response(new Uint8Array(23), { headers }));
    await expect(sprite("k", "conv1", 64)).rejects.toThrow("23 bytes");
  });
  it("of the camera come behind a header of their own", () => {
    const header = { layer: "c", channels: 1, h: 1, w: 2, lo: [0], hi: [1], predictions: [] };
    const text = new TextEncoder().encode(JSON.stringify(header));
    const bytes = new Uint8Array(4 + text.length + 2);
    new DataView(bytes.buffer).setUint32(0, text.length, true);
    bytes.set(text, 4);
    bytes.set([7, 9], 4 + text.length);
    expect([...liveFrame(bytes.buffer).sprite.data]).toEqual([7, 9]);
  });
  it("are asked for with three bytes a pixel", () => {
    expect([...rgb(Uint8ClampedArray.of(1, 2, 3, 255, 4, 5, 6, 255))]).toEqual([1, 2, 3, 4, 5, 6]);
  });
});

describe("words", () => {
  it("follow the language", () => {
    const t = speak({ en: { n: (n: number) => `${n} layers` }, zh: { n: (n: number) => `${n} 层` } });
    speech.use("zh");
    expect(t.n(3)).toBe("3 层");
    speech.use("en");
    expect(t.n(3)).toBe("3 layers");
  });
  it("write values short", () => {
    expect([0, 0.00123, 12.345, 4382.2, 1234567, Number.NaN].map(short)).toEqual(["0", "0.00123", "12.3", "4,382", "1.2e+6", "–"]);
  });
});
