/**
 * What are the values of a bundle, and when are two of them the same?
 *
 * Pure. A blob is the bytes of a value; which value they stand for says its media type.
 */

import type { Json } from "./records.ts";

/** Media types whose values are base64 in a bundle of Jupyter. */
const BINARY = /^(image\/(?!svg)|audio\/|video\/|application\/pdf$)/;

const JSON_TYPE = /^application\/(.*\+)?json$/;

/** Whether values of this media type are base64. */
export const isBinaryType = (mediaType: string): boolean => BINARY.test(mediaType);

/** The bytes of a blob as they stand in a bundle of this media type; what is no JSON although it should be is text. */
export function decodeBlob(bytes: Uint8Array, mediaType: string): Json {
  if (isBinaryType(mediaType)) return toBase64(bytes);
  const text = new TextDecoder().decode(bytes);
  if (!JSON_TYPE.test(mediaType)) return text;
  try {
    return JSON.parse(text) as Json;
  } catch {
    return text;
  }
}

function toBase64(bytes: Uint8Array): string {
  let binary = "";
  for (let at = 0; at < bytes.length; at += 0x8000) {
    binary += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  }
  return btoa(binary);
}

type Fields = { [key: string]: unknown };

/**
 * Whether two values of JSON, in which bytes may stand, are the same.
 *
 * @param sameText when texts that are not equal are the same all the same.
 */
export function sameValue(
  one: unknown,
  other: unknown,
  sameText: (one: string, other: string) => boolean = () => false,
): boolean {
  if (one === other) return true;
  if (typeof one === "string" && typeof other === "string") return sameText(one, other);
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) return false;
  if (one instanceof Uint8Array && other instanceof Uint8Array) {
    return one.length === other.length && one.every((byte, at) => byte === other[at]);
  }
  const [keys, others] = [Object.keys(one), Object.keys(other)];
  return (
    keys.length === others.length &&
    Array.isArray(one) === Array.isArray(other) &&
    keys.every((key) => key in other && sameValue((one as Fields)[key], (other as Fields)[key], sameText))
  );
}
