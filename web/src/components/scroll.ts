/** Bring something into view, if it is not there already. */

import { tick } from "svelte";

export async function bring(element: HTMLElement | undefined): Promise<void> {
  await tick(); // on a small screen the order of the page's parts may just have changed
  const top = element?.getBoundingClientRect().top ?? 0;
  if (top < 0 || top > innerHeight * 0.6) element?.scrollIntoView({ block: "start", behavior: "smooth" });
}
