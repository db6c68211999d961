/**
 * How are times, durations and sizes said?
 *
 * Pure. Times are POSIX seconds, durations seconds. What is said in local time takes the browser's time zone.
 */

const two = (value: number): string => String(value).padStart(2, "0");

/** `0.4 s`, `12.3 s`, `2 min 05 s`, `1 h 02 min`, `3 d 4 h`; never negative. */
export function formatDuration(seconds: number): string {
  const s = Math.max(0, seconds);
  if (s < 0.9995) return `${Math.round(s * 1000)} ms`;
  if (s < 59.95) return `${s.toFixed(1)} s`;
  const whole = Math.round(s);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole / 60) % 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole / 3600) % 24} h`;
}

/** Of something that runs: no milliseconds, which would only flicker. */
export function formatTicking(seconds: number): string {
  return seconds < 1
    ? "0 s"
    : seconds < 10
      ? `${(Math.floor(seconds * 10) / 10).toFixed(1)} s`
      : formatDuration(Math.floor(seconds)).replace(/\.0 s$/, " s");
}

/** `14:03:22`; with the day where it is another one than that of `now`. */
export function formatTime(at: number, now: number = Date.now() / 1000): string {
  const date = new Date(at * 1000);
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return date.toDateString() === new Date(now * 1000).toDateString() ? time : `${formatDay(at)} ${time}`;
}

/** `2026-11-21`. */
export function formatDay(at: number): string {
  const date = new Date(at * 1000);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

/** To the millisecond, with the day and the distance to UTC. */
export function formatExact(at: number): string {
  const date = new Date(at * 1000);
  const minutes = -date.getTimezoneOffset();
  const zone = `${minutes < 0 ? "-" : "+"}${two(Math.floor(Math.abs(minutes) / 60))}:${two(Math.abs(minutes) % 60)}`;
  const milliseconds = String(date.getMilliseconds()).padStart(3, "0");
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return `${formatDay(at)} ${time}.${milliseconds} ${zone}`;
}

/** For `datetime` of a `<time>`. */
export const formatMachine = (at: number): string => new Date(at * 1000).toISOString();

/** `1 execution`, `2 executions`, `12 000 executions`. */
export function countOf(count: number, one: string, many: string = `${one}s`): string {
  return `${formatCount(count)} ${count === 1 ? one : many}`;
}

/** Thousands apart by a thin space. */
export const formatCount = (count: number): string => String(count).replace(/\B(?=(\d{3})+$)/g, "\u2009");

export function formatBytes(count: number): string {
  if (count < 1024) return `${count} B`;
  if (count < 1 << 20) return `${(count / 1024).toFixed(1)} KiB`;
  return count < 2 ** 30 ? `${(count / (1 << 20)).toFixed(1)} MiB` : `${(count / 2 ** 30).toFixed(1)} GiB`;
}

/** The last part of a path. */
export const baseName = (path: string): string => path.slice(path.lastIndexOf("/") + 1) || path;

/** The first line that says something, cut. */
export function firstLine(text: string, length = 80): string {
  const line =
    text
      .split("\n")
      .find((part) => part.trim() !== "")
      ?.trim() ?? "";
  return line.length > length ? `${line.slice(0, length - 1)}…` : line;
}
