/** What the server says in English, in Chinese; and the styles of a painting. */

import { flushSync, mount, unmount } from "svelte";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import StylePicker from "../src/components/StylePicker.svelte";
import { called } from "../src/components/words";
import { chosen, described, explained, stepped, told, titled } from "../src/lib/chinese";
import { speech } from "../src/lib/i18n.svelte";
import { words as spaced, type Command, type Option } from "../src/lib/jobs";
import { studio } from "../src/lib/studio.svelte";
import table from "../src/locales/zh.json";

const [english, chinese] = table.commands.dream.options.steps as [string, string];
const steps: Option = { name: "steps", kind: "int", help: `${english} [default: 10]` };
const dream: Command = { name: "dream", text: table.commands.dream.text[0]!, options: [steps] };

beforeEach(() => (speech.language = "zh"));
afterEach(() => (speech.language = "en"));

describe("a command's words", () => {
  it("are Chinese where the page is", () => {
    expect(explained("dream", steps)).toBe(chinese);
    expect(described(dream)).toBe(table.commands.dream.text[1]);
    expect(called("late_steps", true, spaced)).toBe("末段步数");
    expect(called("to", true, spaced, "find-lr")).not.toBe(called("to", true, spaced, "export"));
    expect([titled("dream"), titled("excite")]).toEqual(["梦境", "激发单元"]);
    speech.language = "en";
    expect(explained("dream", steps)).toBe(english);
    expect([described(dream), titled("excite")]).toEqual([dream.text, "excite"]);
  });
  it("stay the server's own where it says something else by now", () => {
    expect(explained("dream", { ...steps, help: "something else" })).toBe("something else");
    expect(explained("nothing", steps)).toBe(english);
    expect(described({ ...dream, text: "Another." })).toBe("Another.");
    expect(called("quite_new", true, spaced)).toBe("Quite new");
  });
  it("tell what a choice means beside the value, which is what is sent", () => {
    const color: Option = { name: "color", kind: "choice", choices: ["keep"] };
    expect([chosen(color, "keep"), chosen(color, "quite-new")]).toEqual([`${table.choices.color.keep} keep`, "quite-new"]);
    speech.language = "en";
    expect(chosen(color, "keep")).toBe("keep");
  });
  it("go without the default that ends them", () => {
    expect(told({ help: "pixels [default: relu4_4,relu5_1; for others the last]" })).toBe("pixels");
    expect(told({ help: "of [x] the rest" })).toBe("of [x] the rest");
    expect(told({})).toBe("");
  });
});

describe("a step", () => {
  it("is told in Chinese where it is known, and a file by its name", () => {
    expect(stepped("epoch 3/20, loss 0.1234")).toBe("第 3 / 20 轮，损失 0.1234");
    expect(stepped("octave 2, 256 × 170 px")).toBe("第 2 个尺寸，256 × 170 像素");
    expect(stepped("octave 2, 256 x 170 px")).toBe("第 2 个尺寸，256 × 170 像素"); // of runs made before
    expect([stepped("relu5_1, step 3 of 80"), stepped("measuring")]).toEqual(["relu5_1，第 3 / 80 步", "正在测量"]);
    expect([stepped("relu5_1"), stepped("/srv/runs/a/cat.png")]).toEqual(["relu5_1", "cat.png"]);
    speech.language = "en";
    expect(stepped("epoch 3/20, loss 0.1234")).toBe("epoch 3/20, loss 0.1234");
  });
});

describe("styles", () => {
  let host: HTMLElement;
  beforeEach(() => {
    speech.language = "en";
    host = document.createElement("div");
    document.body.append(host);
    const picture = (id: string) => ({ id, name: `${id}.png`, width: 4, height: 4 });
    studio.state = { version: "1", networks: [], pictures: [], samples: ["a", "b", "c"].map(picture), device: "cpu", threads: 1 };
  });
  afterEach(() => {
    host.remove();
    studio.state = null;
  });
  const on = (label: string) => host.querySelector<HTMLElement>(`.thumb[aria-label="${label}"]`)!;

  it("are each marked, taken off by another press, and weighed", () => {
    const onchange = vi.fn();
    const props = { label: "Styles", help: "", chosen: ["a", "c"], weights: { a: 2 }, onchange };
    const mounted = mount(StylePicker, { target: host, props });
    flushSync();
    const marked = ["a.png", "b.png", "c.png"].map((each) => on(each).getAttribute("aria-pressed"));
    expect(marked).toEqual(["true", "false", "true"]);
    on("b.png").click();
    expect(onchange).toHaveBeenLastCalledWith(["a", "c", "b"], { a: 2 });
    on("a.png").click();
    expect(onchange).toHaveBeenLastCalledWith(["c"], { a: 2 });
    host.querySelector<HTMLElement>('[aria-label="Remove c.png"]')!.click();
    expect(onchange).toHaveBeenLastCalledWith(["a"], { a: 2 });
    const [first, second] = host.querySelectorAll<HTMLInputElement>("input[type=range]");
    expect([first!.value, second!.value]).toEqual(["2", "1"]);
    second!.value = "0.5";
    second!.dispatchEvent(new Event("input", { bubbles: true }));
    expect(onchange).toHaveBeenLastCalledWith(["a", "c"], { a: 2, c: 0.5 });
    void unmount(mounted);
  });
});
