/**
 * JupyterLab's words in the user's language.
 *
 * Whatever a person reads goes through a variable named `trans`, because by that name the tools of language packs find
 * it. `%1` stands for the first value; of `_n` that is the count.
 */

import type { Trans } from "./panel/env.ts";

/** The bundle's name in a language pack: `rtc_kernel.json`. */
export const DOMAIN = "rtc_kernel";

/** English, where JupyterLab brings no translator. */
export const PLAIN: Trans = {
  __: (text, ...values) => fill(text, values),
  _n: (one, many, count, ...values) => fill(count === 1 ? one : many, [count, ...values]),
};

/** The bundle with functions that may be passed on alone; what is written, where there is none. */
export const bindTrans = (bundle: Trans | null | undefined): Trans =>
  bundle
    ? {
        __: (text, ...values) => bundle.__(text, ...values),
        _n: (one, many, count, ...values) => bundle._n(one, many, count, ...values),
      }
    : PLAIN;

const fill = (text: string, values: readonly unknown[]): string =>
  text.replace(/%(\d+)/g, (_, index: string) => String(values[Number(index) - 1]));
