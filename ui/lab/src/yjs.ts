/**
 * The Yjs that JupyterLab has loaded already.
 *
 * In the bundle this module stands in yjs's place: a second one in the page would cost 60 kB, and complain. What is
 * here is there once {@link useYjs} was called, so nothing of it may be used while modules are evaluated.
 */

import type * as Yjs from "yjs";

export let AbstractType: typeof Yjs.AbstractType;
export let Array: typeof Yjs.Array;
export let Doc: typeof Yjs.Doc;
export let Map: typeof Yjs.Map;
export let Text: typeof Yjs.Text;
export let YEvent: typeof Yjs.YEvent;
export let applyUpdate: typeof Yjs.applyUpdate;
export let encodeStateAsUpdate: typeof Yjs.encodeStateAsUpdate;
export let encodeStateVector: typeof Yjs.encodeStateVector;

export function useYjs(shared: typeof Yjs): void {
  ({ AbstractType, Array, Doc, Map, Text, YEvent, applyUpdate, encodeStateAsUpdate, encodeStateVector } = shared);
}
