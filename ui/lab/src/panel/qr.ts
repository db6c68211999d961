/**
 * How does a link get from a screen into a phone?
 *
 * Pure. A QR code as the path of an SVG: dark on light whatever the theme, because cameras expect it so, and with the
 * four light modules around it that ISO/IEC 18004 asks for.
 */

import { encode } from "uqr";

const QUIET_MODULES = 4;

export interface QrCode {
  /** Modules on a side, the quiet ones too. */
  readonly size: number;
  /** The dark modules, one unit each. */
  readonly path: string;
}

/** Level M: a screen has no scratches, but a reflection. */
export function drawQr(text: string): QrCode {
  const { data, size } = encode(text, { ecc: "M", border: QUIET_MODULES });
  let path = "";
  for (const [y, row] of data.entries()) {
    for (let x = 0; x < size; x++) {
      let end = x;
      while (row[end]) end++;
      if (end > x) path += `M${x} ${y}h${end - x}v1h${x - end}z`;
      x = end;
    }
  }
  return { size, path };
}
