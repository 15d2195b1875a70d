// @vitest-environment node
import { describe, expect, it } from "vitest";

import { draw, only } from "../src/lib/graph";

const chain = (...names: string[]) => names.map((name, i) => ({ name, inputs: i ? [names[i - 1]!] : [] }));

describe("draw", () => {
  it("lays a chain in one straight lane", () => {
    const d = draw(chain("a", "b", "c"));
    expect(d.places).toEqual([
      { name: "a", rank: 0, lane: 0 },
      { name: "b", rank: 1, lane: 0 },
      { name: "c", rank: 2, lane: 0 },
    ]);
    expect([d.ranks, d.lanes]).toEqual([3, 1]);
  });

  it("leads a residual edge past the block in a lane of its own", () => {
    const d = draw([
      { name: "in", inputs: [] },
      { name: "conv1", inputs: ["in"] },
      { name: "conv2", inputs: ["conv1"] },
      { name: "add", inputs: ["conv2", "in"] },
    ]);
    expect(d.places.map((p) => p.lane)).toEqual([0, 0, 0, 0]);
    expect(d.edges.find((e) => e.from === "in" && e.to === "add")?.via).toEqual([1, 1]);
    expect(d.full).toEqual([true, false]);
  });

  it("never puts two layers, or a layer and a passing edge, in one place", () => {
    // a block of four branches of different lengths that are joined again, twice over
    const block = (n: number, from: string) => [
      { name: `a${n}`, inputs: [from] },
      { name: `b1${n}`, inputs: [from] },
      { name: `b2${n}`, inputs: [`b1${n}`] },
      { name: `c1${n}`, inputs: [from] },
      { name: `c2${n}`, inputs: [`c1${n}`] },
      { name: `c3${n}`, inputs: [`c2${n}`] },
      { name: `d${n}`, inputs: [from] },
      { name: `cat${n}`, inputs: [`a${n}`, `b2${n}`, `c3${n}`, `d${n}`] },
    ];
    const d = draw([{ name: "in", inputs: [] }, ...block(1, "in"), ...block(2, "cat1")]);
    const cells = d.places.map((p) => `${p.rank}/${p.lane}`);
    const rank = new Map(d.places.map((p) => [p.name, p.rank]));
    for (const e of d.edges) e.via.forEach((lane, i) => cells.push(`${rank.get(e.from)! + 1 + i}/${lane}`));
    expect(new Set(cells).size).toBe(cells.length);
    for (const e of d.edges) expect(e.via.length).toBe(rank.get(e.to)! - rank.get(e.from)! - 1);
  });

  it("takes a network of nothing, and edges from what it does not know", () => {
    expect(draw([])).toMatchObject({ places: [], edges: [], lanes: 0 });
    expect(draw([{ name: "a", inputs: ["elsewhere"] }]).edges).toEqual([]);
  });
});

describe("only", () => {
  it("leads edges past the layers left out", () => {
    const layers = [
      { name: "conv1", inputs: [] },
      { name: "relu1", inputs: ["conv1"] },
      { name: "conv2", inputs: ["relu1"] },
      { name: "relu2", inputs: ["conv2", "relu1"] },
    ];
    expect(only(layers, (name) => name.startsWith("relu"))).toEqual([
      { name: "relu1", inputs: [] },
      { name: "relu2", inputs: ["relu1"] },
    ]);
  });
});
