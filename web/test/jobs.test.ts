import { describe, expect, it } from "vitest";
import {
  arrange, changed, defaults, duration, fault, faults, filed, filled, gathered, inputs, read, rechosen, remaining, result, snapshots, terms, words,
  type Command,
} from "../src/lib/jobs";

const stylize: Command = {
  name: "stylize",
  text: "Paint",
  groups: ["First", "Weights", "More"],
  presets: [
    { name: "gatys", text: "usual", values: {} },
    { name: "article", text: "large", values: { steps: 300 } },
  ],
  options: [
    { name: "content", kind: "picture", required: true, group: "First" },
    { name: "styles", kind: "pictures", required: true, group: "First" },
    { name: "preset", kind: "choice", choices: ["gatys", "article"], default: null, group: "First" },
    { name: "style-weight", kind: "float", default: 1000, group: "First", min: 0 },
    { name: "style_weights", kind: "text", group: "Weights" },
    { name: "steps", kind: "int", default: 100, group: "More" },
    { name: "size", kind: "int", choices: ["content"], default: 512, max: 8192, group: "More" },
    { name: "class_weights", kind: "bool", default: false },
    { name: "targets", kind: "text", multiple: true },
    { name: "output", kind: "text" },
    { name: "as_json", kind: "bool", default: false },
  ],
};
const option = (name: string) => stylize.options.find((each) => each.name === name)!;

describe("a form", () => {
  it("sets the first options out, folds the others by group, leaves the server's out", () => {
    const set = arrange(stylize, ["content", "styles"]);
    expect(set.first.map((o) => o.name)).toEqual(["preset", "style-weight"]);
    expect(set.groups.map((g) => [g.name, g.options.map((o) => o.name)])).toEqual([
      ["More", ["steps", "size", "class_weights", "targets"]],
      ["Weights", ["style_weights"]],
    ]);
  });

  it("lets a page name the first options itself", () => {
    const set = arrange(stylize, [], ["steps", "style_weight", "none-such"]);
    expect(set.first.map((o) => o.name)).toEqual(["steps", "style-weight"]);
  });

  it("sends what differs from its default, as the kind it is", () => {
    const values = { ...defaults(stylize), content: "p1", styles: ["p2"], steps: "40", "style-weight": "1e3", targets: "a:1\n b:2 \n" };
    expect(changed(stylize, values)).toEqual({ content: "p1", styles: ["p2"], steps: 40, targets: ["a:1", "b:2"] });
  });

  it("lets a preset's choices hold, and what was filled in by hand go over them", () => {
    const begun = { ...defaults(stylize), "style-weight": "5" };
    const chosen = rechosen(stylize, begun, option("preset"), "article");
    expect([chosen.steps, chosen["style-weight"]]).toEqual([300, "5"]);
    expect(changed(stylize, chosen)).toEqual({ preset: "article", "style-weight": 5 });
    expect(changed(stylize, { ...chosen, steps: 100 })).toEqual({ preset: "article", "style-weight": 5, steps: 100 });
    expect(rechosen(stylize, chosen, option("preset"), "gatys").steps).toBe(100);
  });

  it("is filled with a run's options over those of its preset, so that the same would be sent", () => {
    const given = { preset: "article", "style-weight": 5, content: "p1", output: null, unheard: 3 };
    const values = filled(stylize, given);
    expect([values.steps, values.size, values.content, values.unheard]).toEqual([300, 512, "p1", undefined]);
    expect(changed(stylize, values)).toEqual({ preset: "article", "style-weight": 5, content: "p1" });
    expect(changed(stylize, filled(stylize, { content: "p1", style_weight: 7 }))).toEqual({ content: "p1", "style-weight": 7 });
  });

  it("sends a switch that was turned off again by nobody", () => {
    expect(changed(stylize, { ...defaults(stylize), class_weights: false })).toEqual({});
    expect(changed(stylize, { ...defaults(stylize), class_weights: true })).toEqual({ class_weights: true });
  });

  it("says what is wrong with a field", () => {
    expect(fault(option("content"), null)).toEqual({ kind: "needed" });
    expect(fault(option("style-weight"), "1e3")).toBeNull();
    expect(fault(option("style-weight"), "much")).toEqual({ kind: "number" });
    expect(fault(option("style-weight"), -1)).toEqual({ kind: "least", bound: 0 });
    expect(fault(option("steps"), "1.5")).toEqual({ kind: "whole" });
    expect(fault(option("steps"), "")).toBeNull();
    expect(fault(option("size"), "content")).toBeNull();
    expect(fault(option("size"), "9000")).toEqual({ kind: "most", bound: 8192 });
    expect(fault(option("preset"), "picasso")).toEqual({ kind: "choice" });
    expect(fault({ ...option("preset"), of: "picture" }, "p17")).toBeNull();
    expect(read(option("style-weight"), "1e3")).toBe(1000);
    expect(faults(stylize, defaults(stylize)).map((o) => o.name)).toEqual(["content", "styles"]);
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
  const files = ["sheet.png", "painting.png", "snapshots/0040.png", "snapshots/0020.png", "inputs/content-a.png", "run.json"].map(
    (name) => ({ name, url: `/f/${name}` }),
  );
  it("tell the picture from figures, snapshots and what was read", () => {
    expect(result(files)?.name).toBe("painting.png");
    expect(result([{ ...files[0]!, kind: "result" }, files[1]!])?.name).toBe("sheet.png");
    expect(result(files.slice(2))?.name).toBe("snapshots/0020.png");
    expect(result([files[0]!, files[4]!])).toBeUndefined();
    expect(inputs(files).map((file) => file.name)).toEqual(["inputs/content-a.png"]);
  });
  it("are named by layers as the command names them", () =>
    expect(["relu1_1", "../relu/1", "卷积-2.b", "a b!'"].map(filed)).toEqual(["relu1_1", "..%2Frelu%2F1", "卷积-2.b", "a%20b%21%27"]));
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
