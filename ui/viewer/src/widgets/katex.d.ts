declare module "katex/contrib/auto-render" {
  import type { KatexOptions } from "katex";

  interface Options extends KatexOptions {
    delimiters: { left: string; right: string; display: boolean }[];
  }
  export default function renderMathInElement(element: HTMLElement, options: Options): void;
}
