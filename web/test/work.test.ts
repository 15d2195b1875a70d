/** The components of jobs, mounted: what a person sees and can do. */

import { flushSync, mount, tick, unmount, type Component } from "svelte";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import BeforeAfter from "../src/components/BeforeAfter.svelte";
import CommandForm from "../src/components/CommandForm.svelte";
import ConfusionMatrix from "../src/components/ConfusionMatrix.svelte";
import Curves from "../src/components/Curves.svelte";
import FilmStrip from "../src/components/FilmStrip.svelte";
import JobBar from "../src/components/JobBar.svelte";
import TrainingView from "../src/components/TrainingView.svelte";
import { ago } from "../src/components/time";
import { speech } from "../src/lib/i18n.svelte";
import { jobs, Watch } from "../src/lib/job.svelte";
import type { Command, Job } from "../src/lib/jobs";

let mounted: Record<string, unknown>[] = [];
let host: HTMLElement;

function show(component: Component<any>, props: Record<string, unknown>): HTMLElement {
  mounted.push(mount(component, { target: host, props }));
  flushSync();
  return host;
}
const all = (selector: string): HTMLElement[] => [...host.querySelectorAll<HTMLElement>(selector)];
const one = <T extends HTMLElement>(selector: string): T => {
  const found = host.querySelector<T>(selector);
  if (!found) throw new Error(`no ${selector} in ${host.innerHTML}`);
  return found;
};
const button = (name: string): HTMLButtonElement | undefined =>
  all("button").find((each) => each.textContent?.trim() === name) as HTMLButtonElement | undefined;

beforeEach(() => {
  speech.language = "en";
  host = document.createElement("div");
  document.body.append(host);
});
afterEach(() => {
  for (const each of mounted) void unmount(each);
  mounted = [];
  host.remove();
  vi.unstubAllGlobals();
});

const command: Command = {
  name: "dream",
  text: "Dream",
  groups: ["First", "More"],
  options: [
    { name: "source", kind: "picture", required: true, group: "First" },
    { name: "steps", kind: "int", default: 10, min: 1, group: "First", help: "at each octave" },
    { name: "net", kind: "choice", choices: ["vgg19"], default: "vgg19", group: "More" },
    { name: "jitter", kind: "int", default: 32, group: "More" },
  ],
};

describe("a command's form", () => {
  it("shows the first options, folds the others, and starts when all is right", () => {
    const started = vi.fn();
    show(CommandForm, { command, values: { source: "p", steps: 10 }, elsewhere: ["source"], submit: "Go", onstart: started });
    expect(all("label").map((label) => label.textContent)).toEqual(["Steps"]);
    const field = one<HTMLInputElement>("input");
    expect(field.value).toBe("10");
    field.value = "0";
    field.dispatchEvent(new Event("input", { bubbles: true }));
    flushSync();
    expect(one("p.wrong").textContent).toContain("1 or more");
    expect(field.getAttribute("aria-invalid")).toBe("true");
    button("Go")!.closest("form")!.dispatchEvent(new Event("submit", { cancelable: true, bubbles: true }));
    expect(started).not.toHaveBeenCalled();
    field.value = "20";
    field.dispatchEvent(new Event("input", { bubbles: true }));
    flushSync();
    button("Go")!.closest("form")!.dispatchEvent(new Event("submit", { cancelable: true, bubbles: true }));
    expect(started).toHaveBeenCalledOnce();
  });

  it("does not start without what is needed, and says so", () => {
    const started = vi.fn();
    show(CommandForm, { command, values: {}, elsewhere: ["source"], submit: "Go", onstart: started });
    one("form").dispatchEvent(new Event("submit", { cancelable: true, bubbles: true }));
    flushSync();
    expect(started).not.toHaveBeenCalled();
    expect(one("[role=alert]").textContent).toContain("needs another look");
  });

  it("says what has to be fetched first", () => {
    const data = { name: "data", kind: "choice" as const, choices: ["mnist", "mine"], fetched: { mnist: 11_594_722 }, group: "First" };
    const props = { command: { ...command, options: [data] }, submit: "Go", onstart: vi.fn() };
    show(CommandForm, { ...props, values: { data: "mine" } });
    expect(all("option").map((each) => each.textContent)).toEqual(["automatic", "mnist ↓ 12 MB", "mine"]);
    expect(host.textContent).not.toContain("fetched first");
    show(CommandForm, { ...props, values: { data: "mnist" } });
    expect(host.textContent).toContain("12 MB are fetched first");
  });

  it("speaks Chinese", () => {
    speech.language = "zh";
    show(CommandForm, { command, values: {}, elsewhere: ["source"], submit: "开始", onstart: vi.fn() });
    expect(one("label").textContent).toBe("步数");
    expect(one("summary").textContent).toContain("更多选项");
  });
});

describe("curves", () => {
  const lines = [
    { name: "total", points: [[1, 100], [2, 10], [3, 1]] as const },
    { name: "style", points: [[1, 90], [2, 8], [3, 0.5]] as const },
  ];
  it("draw a path a line, and hide one at a click", () => {
    show(Curves, { lines, label: "Curves", log: true });
    expect(all("path")).toHaveLength(2);
    all("figcaption button")[1]!.click();
    flushSync();
    expect(all("path")).toHaveLength(1);
  });
  it("are read by arrow keys", () => {
    show(Curves, { lines, label: "Curves" });
    const svg = host.querySelector("svg")!;
    svg.dispatchEvent(new KeyboardEvent("keydown", { key: "Home", bubbles: true }));
    flushSync();
    expect(svg.getAttribute("aria-label")).toContain("steps 1: total 100, style 90");
  });
  it("draw what was measured once at the end of the way to it, with its level", () => {
    show(Curves, { lines: [{ name: "right", points: [[400, 0.9]] }], label: "Right" });
    const [dot, level] = [host.querySelector("circle")!, host.querySelector("line.level")!];
    expect(Number(dot.getAttribute("cx"))).toBe(40); // all that a page without a width gives it
    expect([level.getAttribute("x1"), level.getAttribute("x2")]).toEqual(["0", dot.getAttribute("cx")]);
    expect(all(".tick").map((each) => each.textContent)).toContain("0");
  });
  it("stand without any line", () => {
    show(Curves, { lines: [], label: "Curves" });
    expect(all("path")).toHaveLength(0);
  });
});

describe("pictures", () => {
  it("slide between before and after", () => {
    show(BeforeAfter, { before: "/a.png", after: "/b.png", label: "painting" });
    const range = one<HTMLInputElement>("input[type=range]");
    range.value = "80";
    range.dispatchEvent(new Event("input", { bubbles: true }));
    flushSync();
    expect(one(".pair").style.getPropertyValue("--share")).toBe("80%");
  });
  it("are chosen from a strip by keys", () => {
    const picked = vi.fn();
    const frames = [1, 2, 3].map((n) => ({ url: `/${n}.png`, label: `step ${n}` }));
    show(FilmStrip, { frames, label: "Snapshots", value: 1, onpick: picked });
    one("[role=toolbar]").dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
    expect(picked).toHaveBeenCalledWith(2);
  });
});

describe("a confusion matrix", () => {
  const found = (n: number) => ({
    n: 10, accuracy: 0.5, top5: null, loss: 1, ece: 0, ece_calibrated: 0, temperature: 1, per_class: [],
    classes: Array.from({ length: n }, (_, k) => `class ${k}`),
    confusion: Array.from({ length: n }, (_, y) => Array.from({ length: n }, (_, x) => (x === y ? 5 : x === y + 1 ? 2 : 0))),
  });
  it("is a table for few classes", () => {
    show(ConfusionMatrix, { found: found(3) });
    expect(all("tbody tr")).toHaveLength(3);
    expect(all("tbody td").map((cell) => cell.textContent)).toEqual(["5", "2", "", "", "5", "2", "", "", "5"]);
    expect(one("li").textContent).toContain("class 0 → class 1");
  });
  it("is a picture for many, and read by keys", () => {
    show(ConfusionMatrix, { found: found(40) });
    const canvas = one(".map");
    canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
    flushSync();
    expect(canvas.getAttribute("aria-label")).toContain("class 0 taken for class 1: 2");
  });
});

describe("a job's bar", () => {
  const job = (more: Partial<Job>): Job => ({ id: "j", command: "dream", options: {}, state: "running", ...more });
  function bar(more: Partial<Job>): Watch {
    const watch = new Watch();
    watch.job = job(more);
    show(JobBar, { watch });
    return watch;
  }
  it("offers to stop what is at work, and tells how far it is", () => {
    bar({ step: 5, of: 20 });
    expect(button("Stop")).toBeDefined();
    expect(one("[role=progressbar]").getAttribute("aria-valuenow")).toBe("25");
    expect(host.textContent).toContain("5 of 20");
  });
  it("says that the server is away, for as long as it is", async () => {
    bar({ step: 5, of: 20 });
    jobs.error = "The studio's server does not answer.";
    await tick();
    expect(host.textContent).toContain("does not answer");
    jobs.error = "";
    await tick();
    expect(host.textContent).not.toContain("does not answer");
  });
  it("offers to resume what was stopped", () => {
    bar({ state: "stopped", resumable: true, resume: "on" });
    expect(button("Resume")).toBeDefined();
    expect(button("Stop")).toBeUndefined();
  });
  it("says what failed, and asks before it deletes", async () => {
    bar({ state: "failed", error: "no layer 'conv9_9'" });
    expect(host.textContent).toContain("no layer 'conv9_9'");
    button("Delete")!.click();
    await tick();
    expect(button("Delete for good")).toBeDefined();
    button("Keep it")!.click();
    await tick();
    expect(button("Delete")).toBeDefined();
  });
  it("leaves runs of the command line alone", () => {
    bar({ state: "done", own: false });
    expect(button("Delete")).toBeUndefined();
  });
});

describe("a training", () => {
  const watched = (state: Job["state"]): Watch => {
    const watch = new Watch();
    watch.job = { id: "j", command: "train", options: {}, state, files: [] };
    return watch;
  };
  it("that came to nothing has no numbers and no curves", () => {
    show(TrainingView, { watch: watched("failed") });
    expect(all("dl, .panel")).toHaveLength(0);
  });
  it("that is at work keeps their place", () => {
    show(TrainingView, { watch: watched("running") });
    expect(all("dl")).toHaveLength(1);
    expect(all(".two .panel")).toHaveLength(2);
  });
});

describe("a watched job", () => {
  class Source {
    static made: Source[] = [];
    static CLOSED = 2;
    readyState = 1;
    onerror: (() => void) | null = null;
    #heard = new Map<string, (event: MessageEvent) => void>();
    constructor(readonly url: string) {
      Source.made.push(this);
    }
    addEventListener(name: string, hear: (event: MessageEvent) => void) {
      this.#heard.set(name, hear);
    }
    close() {
      this.readyState = 2;
    }
    say(name: string, data: unknown) {
      this.#heard.get(name)?.({ data: JSON.stringify(data) } as MessageEvent);
    }
  }

  it("grows by its events, and a step told twice stands once", async () => {
    Source.made = [];
    vi.stubGlobal("EventSource", Source);
    const whole: Job = { id: "j", command: "stylize", options: {}, state: "running", files: [] };
    vi.stubGlobal("fetch", vi.fn(async () => new Response(JSON.stringify(whole))));
    const watch = new Watch();
    await watch.open("j");
    const source = Source.made.at(-1)!;
    expect(source.url).toBe("/api/jobs/j/events");
    for (const step of [1, 2, 3, 2, 3]) source.say("step", { step, of: 9, terms: { total: 10 - step } });
    expect(watch.lines.get("total")).toEqual([[1, 9], [2, 8], [3, 7]]);
    source.say("step", { step: 3, of: 9, terms: { loss: 0.5, accuracy: 0.9 } });
    expect([...watch.lines.keys()]).toEqual(["total", "training_loss", "training_accuracy"]);
    source.say("file", { name: "snapshots/0002.png", kind: "preview", url: "/f/2.png?v=a" });
    expect(watch.frame).toBe("/f/2.png?v=a");
    source.say("state", { state: "stopped" });
    expect(watch.job?.state).toBe("stopped");
    watch.close();
    expect(source.readyState).toBe(2);
  });
});

describe("time", () => {
  it("is told in the language spoken", () => {
    const now = Date.UTC(2026, 0, 10);
    expect(ago(now - 3 * 60_000, now)).toBe("3 minutes ago");
    expect(ago(now - 20_000, now)).toBe("just now");
    expect(ago(now - 26 * 3_600_000, now)).toBe("yesterday");
    speech.language = "zh";
    expect(ago(now - 3 * 60_000, now)).toBe("3分钟前");
    expect(ago(0)).toBe("");
  });
});
