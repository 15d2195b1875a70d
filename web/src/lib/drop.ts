/** Pictures that are dropped or pasted. */

import type { Attachment } from "svelte/attachments";

import type { Picture } from "./api";
import { studio } from "./studio.svelte";

/** Send what pictures there are to the server, one by one, and hand on each that it took. */
export async function brought(data: DataTransfer | null, take: (picture: Picture) => void): Promise<void> {
  for (const file of [...(data?.files ?? [])].filter((each) => each.type.startsWith("image/"))) {
    const taken = await studio.add([file]);
    if (taken) take(taken);
  }
}

/** Let pictures be dropped on an element; it has the class `over` while they are held above it. */
export function dropped(take: (picture: Picture) => void): Attachment<HTMLElement> {
  return (node) => {
    const over = (on: boolean) => node.classList.toggle("over", on);
    const above = (event: DragEvent) => {
      event.preventDefault();
      over(true);
    };
    const away = (event: DragEvent) => {
      if (!node.contains(event.relatedTarget as Node | null)) over(false);
    };
    const fall = (event: DragEvent) => {
      event.preventDefault();
      event.stopPropagation();
      over(false);
      void brought(event.dataTransfer, take);
    };
    node.addEventListener("dragover", above);
    node.addEventListener("dragleave", away);
    node.addEventListener("drop", fall);
    return () => {
      node.removeEventListener("dragover", above);
      node.removeEventListener("dragleave", away);
      node.removeEventListener("drop", fall);
    };
  };
}
