/** JupyterLab's translator, and what stands in for it. Pure. */

import type { Trans } from "./env.ts";

const fill = (text: string, values: readonly unknown[]): string =>
  text.replace(/%(\d)/g, (_, at: string) => String(values[Number(at) - 1] ?? ""));

/** English, as it is written. */
export const PLAIN: Trans = {
  __: (text, ...values) => fill(text, values),
  _n: (one, many, count, ...values) => fill(count === 1 ? one : many, values),
};

interface Bundle {
  __(text: string, ...values: unknown[]): string;
  _n(one: string, many: string, count: number, ...values: unknown[]): string;
}

/** Functions of it are used alone. */
export const bindTrans = (bundle: Bundle | null | undefined): Trans =>
  bundle
    ? {
        __: (text, ...values) => bundle.__(text, ...values),
        _n: (one, many, count, ...values) => bundle._n(one, many, count, ...values),
      }
    : PLAIN;
