// @vitest-environment node
import { describe, expect, it } from "vitest";

import type { Sight, Window } from "../src/lib/api";
import { fieldBox, sightBox } from "../src/lib/field";

const square = (side: number): Sight => ({ width: side, height: side, box: [0, 0, side, side] });
const window = (size: number, stride: number, start: number): Window => ({
  size: [size, size],
  stride: [stride, stride],
  start: [start, start],
});
const px = (y: number, x: number, w: Window | null, side: number) => {
  const b = fieldBox({ y, x }, w, square(side), { width: side, height: side });
  return [b.x, b.y, b.x + b.w, b.y + b.h].map((part) => Math.round(part * side));
};

describe("fieldBox", () => {
  it("agrees with convolutions worked out by hand", () => {
    // 3×3, padding 1: place (0, 0) sees -1..2, of which 0..2 lies on the picture
    expect(px(0, 0, window(3, 1, -1), 224)).toEqual([0, 0, 2, 2]);
    expect(px(5, 7, window(3, 1, -1), 224)).toEqual([6, 4, 9, 7]);
    // LeNet's C1, 5×5 without padding: place i sees i..i+5
    expect(px(27, 3, window(5, 1, 0), 32)).toEqual([3, 27, 8, 32]);
  });
  it("is all that the network is given where there is no window", () => {
    expect(px(3, 3, null, 32)).toEqual([0, 0, 32, 32]);
  });
  it("never leaves the picture", () => {
    for (const i of [0, 6, 13, 40]) {
      const [x0, y0, x1, y1] = px(i, i, window(252, 16, -118), 224) as [number, number, number, number];
      expect(Math.min(x0, y0)).toBeGreaterThanOrEqual(0);
      expect(Math.max(x1, y1)).toBeLessThanOrEqual(224);
      expect(x1).toBeGreaterThan(x0);
    }
  });
  it("lies within the middle square where the network takes squares", () => {
    const sight: Sight = { width: 32, height: 32, box: [100, 0, 300, 200] };
    const picture = { width: 400, height: 200 };
    expect(sightBox(sight, picture)).toEqual({ x: 0.25, y: 0, w: 0.5, h: 1 });
    const b = fieldBox({ y: 0, x: 16 }, window(16, 1, 0), sight, picture);
    expect([b.x, b.y, b.w, b.h]).toEqual([0.5, 0, 0.25, 0.5]);
  });
});
