import { describe, expect, it } from "vitest";
import { confused, course, merged, mistakes, percent } from "../src/lib/measured";

const found = { classes: ["cat", "dog", "fox"], confusion: [[8, 2, 0], [5, 95, 0], [0, 0, 0]] };

describe("what was measured", () => {
  it("lists the pairs most often confused, by count", () => {
    expect(confused(found)).toEqual([
      { truth: "dog", taken: "cat", count: 5, share: 0.05 },
      { truth: "cat", taken: "dog", count: 2, share: 0.2 },
    ]);
    expect(confused(found, 1)).toHaveLength(1);
  });
  it("colours a mistake by its share of the row, the greatest as 1; an empty row not at all", () => {
    expect(mistakes(found.confusion)).toEqual([[0, 1, 0], [0.25, 0, 0], [0, 0, 0]]);
    expect(mistakes([[5]])).toEqual([[0]]);
  });
  it("reads a training's events, but for a last line that was cut", () => {
    const text = [
      { event: "step", count: 1, loss: 2.3, lr: 0.1 },
      { event: "step", count: 2, loss: 2.1, lr: 0.1 },
      { event: "epoch", count: 2, epoch: 1, loss: 2.2, accuracy: 0.4, validation_accuracy: 0.5 },
    ].map((e) => JSON.stringify(e)).join("\n");
    const read = course(`${text}\n{"event": "step", "cou`);
    expect(read.loss).toEqual([[1, 2.3], [2, 2.1]]);
    expect(read.epochs.accuracy).toEqual([[2, 0.4]]);
    expect(read.epochs.validation_accuracy).toEqual([[2, 0.5]]);
    expect(read.epochs.validation_loss).toEqual([]);
  });
  it("joins what was read with what comes live", () => {
    expect(merged([[1, 5], [2, 4]], [[2, 4.5], [3, 3]])).toEqual([[1, 5], [2, 4.5], [3, 3]]);
  });
  it("tells shares", () => expect(percent(0.9943)).toBe("99.43 %"));
});
