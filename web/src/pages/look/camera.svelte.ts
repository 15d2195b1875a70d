/** The camera, and the loop that shows its frames to the panes that look through it. */

import { t } from "./words";

export class Camera {
  video = $state.raw<HTMLVideoElement | null>(null);
  on = $state(false);
  #stream: MediaStream | null = null;
  #canvas = document.createElement("canvas");
  #run = 0;

  /** Ask for the camera and call `each` frame after frame, with what cuts its middle square to a side. */
  async start(each: (square: (side: number) => ImageData) => Promise<void>): Promise<void> {
    if (!navigator.mediaDevices) throw new Error(t.cameraNone);
    const run = ++this.#run;
    let stream: MediaStream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 }, audio: false });
    } catch (error) {
      throw new Error(t.cameraDenied + (error as Error).message);
    }
    if (run !== this.#run) {
      for (const track of stream.getTracks()) track.stop();
      return;
    }
    this.#stream = stream;
    const video = document.createElement("video");
    video.muted = true;
    video.playsInline = true;
    video.srcObject = stream;
    await video.play();
    this.video = video;
    this.on = true;
    this.#loop(run, each);
  }

  async #loop(run: number, each: (square: (side: number) => ImageData) => Promise<void>): Promise<void> {
    const context = this.#canvas.getContext("2d", { willReadFrequently: true });
    const square = (side: number) => {
      if (this.#canvas.width !== side) this.#canvas.width = this.#canvas.height = side;
      this.#square(context!, side);
      return context!.getImageData(0, 0, side, side);
    };
    while (run === this.#run && context) {
      if (document.hidden) {
        await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
        continue;
      }
      await new Promise(requestAnimationFrame);
      if (run !== this.#run || !this.video) return;
      try {
        await each(square); // the next frame only when this one is through
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 500)); // told by the pane; then try again
      }
    }
  }

  #square(context: CanvasRenderingContext2D, side: number): void {
    const { videoWidth: w, videoHeight: h } = this.video!;
    const least = Math.min(w, h);
    context.drawImage(this.video!, (w - least) / 2, (h - least) / 2, least, least, 0, 0, side, side);
  }

  /** The present frame in full, as a picture to keep. */
  async picture(): Promise<Blob | null> {
    if (!this.video) return null;
    const side = Math.min(this.video.videoWidth, this.video.videoHeight);
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    if (!side || !context) return null;
    this.#square(context, side);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  stop(): void {
    this.#run++;
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    this.video = null;
    this.on = false;
  }
}
