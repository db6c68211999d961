/** On what ground does an element stand, in light or dark? */

/** Whatever made it so: this asks for the colour that `light-dark()` gives there. */
export function isDark(element: Element): boolean {
  const probe = document.createElement("span");
  probe.style.setProperty("color", "light-dark(#ffffff, #000000)");
  element.append(probe);
  const dark = getComputedStyle(probe).color === "rgb(0, 0, 0)";
  probe.remove();
  return dark;
}

/** The colour that is seen behind an element. */
export function groundOf(element: Element): string {
  for (let at: Element | null = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (colour !== "rgba(0, 0, 0, 0)") return colour;
  }
  return "Canvas";
}

/** Call back when the page may have turned from light to dark or back; returns how to stop that. */
export function onScheme(listener: () => void): () => void {
  const query = matchMedia("(prefers-color-scheme: dark)");
  const observer = new MutationObserver(listener);
  query.addEventListener("change", listener);
  observer.observe(document.documentElement, { attributeFilter: ["class", "style", "data-theme", "data-scheme"] });
  return () => {
    query.removeEventListener("change", listener);
    observer.disconnect();
  };
}
