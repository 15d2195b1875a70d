import { describe, expect, it } from "vitest";
import {
  arrange, changed, defaults, duration, fault, gathered, read, remaining, result, snapshots, terms, words,
  type Command,
} from "./jobs";

const stylize: Command = {
  name: "stylize",
  text: "Paint",
  options: [
    { name: "content", kind: "picture", required: true },
    { name: "styles", kind: "pictures", required: true },
    { name: "style_weights", kind: "text", group: "Weights" },
    { name: "style-weight", kind: "float", default: 1000, group: "Weights" },
    { name: "steps", kind: "int", default: 100, group: "Descent" },
    { name: "preset", kind: "choice", choices: ["gatys", "article"], default: null },
    { name: "class_weights", kind: "bool", default: false },
    { name: "targets", kind: "text", multiple: true },
    { name: "output", kind: "text" },
    { name: "as_json", kind: "bool", default: false },
  ],
};

describe("a form", () => {
  it("sets the first options out, folds the others by group, leaves the server's out", () => {
    const set = arrange(stylize, ["style_weight", "preset", "none-such"], ["content", "styles"]);
    expect(set.first.map((o) => o.name)).toEqual(["style-weight", "preset"]);
    expect(set.groups.map((g) => [g.name, g.options.map((o) => o.name)])).toEqual([
      ["Weights", ["style_weights"]],
      ["Descent", ["steps"]],
      ["", ["class_weights", "targets"]],
    ]);
  });

  it("sends what differs from its default, as the kind it is", () => {
    const values = { ...defaults(stylize), content: "p1", styles: ["p2"], steps: "40", "style-weight": 1000, targets: "a:1\n b:2 \n" };
    expect(changed(stylize, values)).toEqual({ content: "p1", styles: ["p2"], steps: 40, targets: ["a:1", "b:2"] });
  });

  it("sends a switch that was turned off again by nobody", () => {
    expect(changed(stylize, { ...defaults(stylize), class_weights: false })).toEqual({});
    expect(changed(stylize, { ...defaults(stylize), class_weights: true })).toEqual({ class_weights: true });
  });

  it("says what is wrong with a field", () => {
    const [content, , , weight, steps, preset] = stylize.options;
    expect(fault(content!, null)).toBe("needed");
    expect(fault(weight!, "1e3")).toBeNull();
    expect(fault(weight!, "much")).toBe("number");
    expect(fault(steps!, "1.5")).toBe("whole");
    expect(fault(steps!, "")).toBeNull();
    expect(fault(preset!, "picasso")).toBe("choice");
    expect(read(weight!, "1e3")).toBe(1000);
  });

  it("speaks in words", () => expect(words("style_layer-weights_")).toBe("Style layer weights"));
});

describe("a step", () => {
  it("holds terms beside its place", () => {
    const step = { step: 3, of: 9, text: "x", seconds: 1, octave: 2, value: 4.5, values: { "style relu1_1": 1, "style relu2_1": 2, content: 3 } };
    expect(terms(step)).toEqual({ value: 4.5, "style relu1_1": 1, "style relu2_1": 2, content: 3 });
    expect(gathered(terms(step))).toEqual({ value: 4.5, style: 3, content: 3 });
  });

  it("drops what is no number", () => expect(terms({ step: 1, total: NaN, loss: null, a: "b" })).toEqual({}));
});

describe("a run's files", () => {
  const files = ["sheet.png", "painted.png", "snapshots/0040.png", "snapshots/0020.png", "curve.png", "run.json"].map(
    (name) => ({ name, url: `/f/${name}` }),
  );
  it("tell the picture from figures and snapshots", () => {
    expect(result(files)?.name).toBe("painted.png");
    expect(result(files, "/somewhere/painted.png")?.name).toBe("painted.png");
    expect(result([files[0]!])).toBeUndefined();
  });
  it("give the snapshots by their steps", () => expect(snapshots(files).map((s) => s.step)).toEqual([20, 40]));
});

describe("time", () => {
  it("is told as a person reads it", () => expect([0.2, 40, 240, 7500].map(duration)).toEqual(["1 s", "40 s", "4 min", "2 h 05 min"]));
  it("remains by the pace so far", () => {
    expect(remaining(10, 40, 5)).toBe(15);
    expect(remaining(30, 40, 5, 20)).toBe(5);
    expect(remaining(0, 40, 5)).toBeUndefined();
    expect(remaining(40, 40, 5)).toBeUndefined();
  });
});
