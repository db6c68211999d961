/** Something high is cut off until its reader wants all of it. */

import type { View } from "./context.ts";
import { make, makeButton } from "./dom.ts";

/** Higher things are cut to this; what is a little higher is not. Pixels. */
const HEIGHT = 400;
const SLACK = 80;

export class ClampView implements View {
  readonly element = make("div", "out-clamp");
  private readonly box = make("div", "out-clamped");
  private readonly button = makeButton("Show all", () => this.toggle());
  private readonly observer: ResizeObserver;
  private open = false;

  constructor(private readonly inner: View) {
    this.box.append(inner.element);
    this.element.append(this.box);
    this.observer = new ResizeObserver(() => this.measure());
    this.observer.observe(inner.element);
    this.box.style.setProperty("max-block-size", `${HEIGHT + SLACK}px`);
    // who moves into it with the keyboard must see where they are
    this.box.addEventListener("focusin", () => {
      if (!this.open && this.button.isConnected && this.box.scrollTop > 0) this.toggle();
    });
  }

  destroy(): void {
    this.observer.disconnect();
    this.inner.destroy();
  }

  private measure(): void {
    const high = this.inner.element.getBoundingClientRect().height > HEIGHT + SLACK;
    if (high === this.button.isConnected) return;
    if (high) this.element.append(this.button);
    else this.button.remove();
    this.show(high);
  }

  private toggle(): void {
    this.open = !this.open;
    this.show(true);
    if (!this.open) this.element.scrollIntoView({ block: "nearest" });
  }

  private show(high: boolean): void {
    const cut = high && !this.open;
    this.box.classList.toggle("out-cut", cut);
    this.box.scrollTop = 0;
    this.box.style.setProperty("max-block-size", cut ? `${HEIGHT}px` : high ? "none" : `${HEIGHT + SLACK}px`);
    this.button.textContent = this.open ? "Show less" : "Show all";
    this.button.setAttribute("aria-expanded", String(this.open));
  }
}
