/** What do the buttons show? Strokes in a box of 16 by 16; the words are in the buttons' labels. */

import type { JSX } from "preact";

const PATHS = {
  copy: "M5.5 5.5V2.5h8v8h-3M2.5 5.5h8v8h-8z",
  link: "M6.5 9.5l3-3M7 4.5l1.6-1.6a2.6 2.6 0 0 1 3.6 0l.9.9a2.6 2.6 0 0 1 0 3.6L11.5 9" +
    "M9 11.5l-1.6 1.6a2.6 2.6 0 0 1-3.6 0l-.9-.9a2.6 2.6 0 0 1 0-3.6L4.5 7",
  more: "M3.2 8h.1M8 8h.1M12.8 8h.1",
  stop: "M4 4h8v8H4z",
  close: "M3.5 3.5l9 9M12.5 3.5l-9 9",
  down: "M8 2.5v10M3.5 8.5L8 13l4.5-4.5",
  save: "M8 2v8M4.5 7L8 10.5 11.5 7M2.5 13.5h11",
  light:
    "M8 5a3 3 0 1 0 0 6a3 3 0 1 0 0-6M8 1v1.6M8 13.4V15M1 8h1.6M13.4 8H15" +
    "M3 3l1.2 1.2M11.8 11.8L13 13M13 3l-1.2 1.2M4.2 11.8L3 13",
  dark: "M13.5 9.8A6 6 0 0 1 6.2 2.5a6 6 0 1 0 7.3 7.3z",
  system: "M2 3h12v8H2zM6 14h4M8 11v3",
  keys: "M1.5 4.5h13v8h-13zM4 7.2h.1M6.7 7.2h.1M9.4 7.2h.1M12 7.2h.1M5 10h6",
  play: "M4.5 2.5L13 8l-8.5 5.5z",
  pause: "M5 3v10M11 3v10",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 1 0 0-9M10.5 10.5L14 14",
  fit: "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10",
  plus: "M8 3v10M3 8h10",
  minus: "M3 8h10",
  chart: "M2 3.5h6M5 8h7M4 12.5h10",
  go: "M2.5 8h8.5M7.5 4.5L11 8l-3.5 3.5M13.5 3v10",
  folded: "M6 4l4 4-4 4",
  open: "M4 6l4 4 4-4",
  share: "M11.5 5.5a1.8 1.8 0 1 0 0-3.6a1.8 1.8 0 1 0 0 3.6M4.5 9.8a1.8 1.8 0 1 0 0-3.6a1.8 1.8 0 1 0 0 3.6" +
    "M11.5 14.1a1.8 1.8 0 1 0 0-3.6a1.8 1.8 0 1 0 0 3.6M6.1 7.1l3.8-2.5M6.1 8.9l3.8 2.5",
  restart: "M13 8a5 5 0 1 1-1.5-3.6M13 2.5V5h-2.5",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }): JSX.Element {
  return (
    <svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
