import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { Layer, Picture } from "../src/lib/api";
import { Pane, kinds } from "../src/pages/look/pane.svelte";

const layer = (name: string, kind: string, parameters = 0, inputs: string[] = []): Layer => ({
  name,
  kind,
  parameters,
  inputs,
  shape: [2, 1, 1],
  field: 3,
  stride: 1,
  window: null,
  through: "",
  maps: true,
});
const LAYERS = [
  layer("conv1", "Conv2d", 10),
  layer("bn1", "BatchNorm2d", 4, ["conv1"]),
  layer("relu1", "ReLU", 0, ["bn1"]),
  layer("fc", "Linear", 8, ["relu1"]),
];
/** A look as the server packs it: each layer of two channels of one place, sprites of those in `came`. */
function packed(key: string, came: string[]): Response {
  const seen = { kind: "", channels: 2, h: 1, w: 1, dead: 0, etag: "" };
  const layers = LAYERS.map(({ name }) => ({ ...seen, name, ...(came.includes(name) ? { sprite: [1, 1] } : {}) }));
  const view = { width: 2, height: 2, box: [0, 0, 2, 2] };
  const told = { key, seconds: 0, view, predictions: [{ label: "cat", p: 1 }], layers };
  const head = new TextEncoder().encode(JSON.stringify(told));
  const numbers = new Float32Array(LAYERS.flatMap((_, i) => [i, 0, i + 1, 1, 0.5, 0.25]));
  const sprites = layers.flatMap((layer, i) => ("sprite" in layer ? [10 * i, 10 * i + 1] : []));
  return new Response(new Blob([new Uint32Array([head.length]), head, numbers, new Uint8Array(sprites)]));
}

const picture: Picture = { id: "p", name: "p", width: 2, height: 2 };

let asked: string[];
let slow: Promise<void> | null;
let large: string; // the layer whose sprite finds no room in the look's answer

beforeEach(() => {
  asked = [];
  slow = null;
  large = "";
  let looks = 0;
  // answers whatever was asked, even what was given up: an answer may be on its way already
  vi.stubGlobal("fetch", async (url: string, init?: RequestInit) => {
    asked.push(url);
    if (url === "/api/networks/net") {
      return Response.json({ id: "net", name: "net", input_size: 8, side: 8, fits: "any", largest: 64, classes: [], layers: LAYERS });
    }
    if (url === "/api/look") {
      const { sprites } = JSON.parse(String(init?.body)) as { sprites: string[] };
      asked.push(...sprites.map((name) => `with the look: ${name}`));
      if (slow) await slow;
      return packed(`k${++looks}`, sprites.filter((name) => name !== large));
    }
    return new Response(new Uint8Array(2), { headers: { "X-Shape": "2,1,1" } });
  });
});
afterEach(() => vi.unstubAllGlobals());

const sprites = () => asked.filter((url) => url.includes("cell="));

describe("a pane", () => {
  it("is given the layers in sight with the look, the chosen one first, and asks for none again", async () => {
    const pane = new Pane();
    await pane.open("net");
    for (const name of pane.layers) pane.want(name);
    pane.select("bn1");
    await pane.see(picture);
    pane.select("fc");
    pane.select("conv1");
    pane.want("fc");
    const given = asked.filter((url) => url.startsWith("with the look"));
    expect(given).toEqual(["bn1", "conv1", "relu1", "fc"].map((name) => `with the look: ${name}`));
    expect(sprites()).toEqual([]);
    expect(pane.predictions[0]?.label).toBe("cat");
    const fc = pane.seen.get("fc")!;
    expect([fc.key, ...fc.sprite.data]).toEqual(["k1", 30, 31]);
    expect([...Array.from(fc.layer.lo), ...Array.from(fc.layer.hi), ...Array.from(fc.layer.mean)]).toEqual([3, 0, 4, 1, 0.5, 0.25]);
  });

  it("asks for a large layer by itself, once, however often it is chosen", async () => {
    large = "fc";
    const pane = new Pane();
    await pane.open("net");
    for (const name of pane.layers) pane.want(name);
    await pane.see(picture);
    pane.select("fc");
    pane.select("conv1");
    pane.want("fc");
    expect(sprites()).toEqual(["/api/look/k1/fc?cell=64"]);
    expect(pane.seen.get("fc")?.key).toBe("k1");
  });

  it("asks for no layer out of sight", async () => {
    const pane = new Pane();
    await pane.open("net");
    pane.want("conv1");
    await pane.see(picture);
    expect(asked.filter((url) => url.includes("fc"))).toHaveLength(0);
  });

  it("drops the answer to a picture that another has replaced", async () => {
    const pane = new Pane();
    await pane.open("net");
    let go = () => {};
    slow = new Promise((resolve) => (go = resolve));
    const first = pane.see(picture);
    slow = null;
    await pane.see({ ...picture, id: "q" });
    go();
    await first;
    expect(pane.picture?.id).toBe("q");
    expect(pane.look?.key).toBe("k1");
    expect(pane.error).toBe("");
    expect(pane.busy).toBe(false);
  });

  it("frozen, keeps what it saw while the other goes on", async () => {
    const pane = new Pane();
    await pane.open("net");
    pane.want("conv1");
    await pane.see(picture);
    const kept = new Pane(pane);
    await pane.see({ ...picture, id: "q" });
    expect(kept.seen.get("conv1")?.key).toBe("k1");
    expect(pane.seen.get("conv1")?.key).toBe("k2");
  });

  it("tells what the server refused", async () => {
    const pane = new Pane();
    await pane.open("net");
    vi.stubGlobal("fetch", async () => Response.json({ detail: "too large" }, { status: 400 }));
    await pane.see(picture);
    expect(pane.error).toBe("too large");
    expect(pane.busy).toBe(false);
  });
});

describe("kinds", () => {
  it("tells nonlinearities and weights apart; none would be all", () => {
    expect([...kinds(LAYERS, "rectified")]).toEqual(["relu1"]);
    expect([...kinds(LAYERS, "weighted")]).toEqual(["conv1", "fc"]);
    expect(kinds([layer("a", "Odd")], "rectified").size).toBe(1);
  });
});
