/** The shelf of pictures, by keys. */

import { flushSync, mount, unmount } from "svelte";
import { expect, it, vi } from "vitest";

import Shelf from "../src/lib/components/Shelf.svelte";
import { studio } from "../src/lib/studio.svelte";

it("is one stop of Tab along which the arrow keys go, where it is asked to be", () => {
  const picture = (id: string) => ({ id, name: id, width: 4, height: 4 });
  studio.state = { version: "1", networks: [], pictures: [picture("own")], samples: ["a", "b"].map(picture), device: "cpu", threads: 1 };
  const host = document.body.appendChild(document.createElement("div"));
  const onpick = vi.fn();
  const mounted = mount(Shelf, { target: host, props: { value: "a", along: true, onpick } });
  flushSync();
  const stops = () => [...host.querySelectorAll<HTMLElement>("button")].filter((each) => each.tabIndex === 0).map((each) => each.ariaLabel ?? each.getAttribute("aria-label"));
  expect(stops()).toEqual(["a"]);
  const press = (key: string) => {
    document.activeElement!.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    flushSync();
  };
  host.querySelector<HTMLElement>('[aria-label="a"]')!.focus();
  press("ArrowRight");
  expect(document.activeElement?.getAttribute("aria-label")).toBe("b");
  expect(stops()).toEqual(["b"]);
  press("ArrowRight");
  expect(document.activeElement?.getAttribute("aria-label")).toBe("b"); // it ends there
  press("ArrowLeft");
  press("ArrowLeft");
  expect(stops()).toEqual(["own", "Remove own"]);
  expect(onpick).not.toHaveBeenCalled(); // going along chooses nothing
  void unmount(mounted);
  host.remove();
  studio.state = null;
});
