// @vitest-environment node
import { describe, expect, it } from "vitest";

import { dead, grid, hit, order } from "../src/lib/sheet";

const layer = { lo: [0, 0, -1, 0], hi: [3, 0, 5, 3], mean: [1, 0, 0.5, 1] };

describe("order", () => {
  it("keeps the channels' order unless asked for the strongest, equal ones by number", () => {
    expect(order(layer, false, false)).toEqual([0, 1, 2, 3]);
    expect(order(layer, true, false)).toEqual([0, 3, 2, 1]);
  });
  it("leaves out channels that are zero everywhere", () => {
    expect(dead(layer, 1)).toBe(true);
    expect(order(layer, true, true)).toEqual([0, 3, 2]);
  });
});

describe("grid", () => {
  const area = { width: 800, height: 600, dpr: 1 };

  it("fits all maps with the largest tiles that do", () => {
    for (const n of [1, 3, 64, 128, 256]) {
      const g = grid(n, { h: 28, w: 28 }, area);
      expect(g.columns * (g.tileW + g.gap) - g.gap).toBeLessThanOrEqual(800);
      expect(g.rows * (g.tileH + g.gap) - g.gap).toBeLessThanOrEqual(600);
      if (g.tileW < 220) {
        // brute force: no tile a pixel larger would fit
        const w = g.tileW + 1;
        const columns = Math.floor((800 + g.gap) / (w + g.gap));
        expect(Math.ceil(n / columns) * (w + g.gap) - g.gap).toBeGreaterThan(600);
      }
    }
  });
  it("scrolls rather than showing maps too small to read", () => {
    const g = grid(4096, { h: 14, w: 14 }, area);
    expect(g.tileW).toBeGreaterThanOrEqual(26);
    expect(g.rows * (g.tileH + g.gap)).toBeGreaterThan(600);
  });
  it("keeps a map's proportions, and a wished width", () => {
    const g = grid(10, { h: 20, w: 40 }, area, 100);
    expect([g.tileW, g.tileH]).toEqual([100, 50]);
  });
  it("survives an area of nothing and a layer of nothing", () => {
    expect(grid(0, { h: 1, w: 1 }, { width: 0, height: 0, dpr: 2 }).columns).toBe(1);
  });
});

describe("hit", () => {
  const g = { columns: 3, rows: 2, tileW: 10, tileH: 20, gap: 2 };

  it("tells the tile and the place within it", () => {
    expect(hit(g, 5, 12 + 5, 22 + 10)).toEqual({ index: 4, u: 0.5, v: 0.5 });
  });
  it("is nothing in a gap, past the last map, or beside the sheet", () => {
    expect(hit(g, 5, 11, 5)).toBeNull();
    expect(hit(g, 5, 24 + 5, 22 + 5)).toBeNull();
    expect(hit(g, 5, 36 + 5, 5)).toBeNull();
    expect(hit(g, 5, -1, 5)).toBeNull();
  });
});
