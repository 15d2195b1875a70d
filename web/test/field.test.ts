import { describe, expect, it } from "vitest";

import { fieldBox } from "../src/lib/field";

const px = (b: { x: number; y: number; w: number; h: number }, side: number) => [
  Math.round(b.x * side),
  Math.round(b.y * side),
  Math.round((b.x + b.w) * side),
  Math.round((b.y + b.h) * side),
];
const input = (side: number) => ({ h: side, w: side });

describe("fieldBox", () => {
  it("agrees with padded convolutions worked out by hand", () => {
    // 3×3, padding 1: place (0, 0) sees -1..2, of which 0..2 is on the picture
    expect(px(fieldBox({ y: 0, x: 0 }, input(224), input(224), 3, 1), 224)).toEqual([0, 0, 2, 2]);
    expect(px(fieldBox({ y: 5, x: 7 }, input(224), input(224), 3, 1), 224)).toEqual([6, 4, 9, 7]);
    // two 3×3, then 2×2 pooling: field 6, step 2; place 1 sees 0..6
    expect(px(fieldBox({ y: 1, x: 1 }, input(112), input(224), 6, 2), 224)).toEqual([0, 0, 6, 6]);
  });
  it("agrees with convolutions without padding", () => {
    // LeNet's C1: 5×5 on 32 gives 28 places; place i sees i..i+5
    expect(px(fieldBox({ y: 27, x: 3 }, input(28), input(32), 5, 1), 32)).toEqual([3, 27, 8, 32]);
  });
  it("is the whole picture for a unit of one value, or where the field is unknown", () => {
    expect(fieldBox({ y: 0, x: 0 }, input(1), input(224), null, null)).toEqual({ x: 0, y: 0, w: 1, h: 1 });
  });
  it("never leaves the picture", () => {
    for (const i of [0, 6, 13]) {
      const b = fieldBox({ y: i, x: i }, input(14), input(224), 252, 16);
      expect(Math.min(b.x, b.y)).toBeGreaterThanOrEqual(0);
      expect(Math.max(b.x + b.w, b.y + b.h)).toBeLessThanOrEqual(1);
    }
  });
});
