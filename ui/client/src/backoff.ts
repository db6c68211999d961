/**
 * How long to wait before the next attempt to connect.
 *
 * Pure, but for chance, which is passed in: each pause is about twice the one before, until an attempt has worked.
 * The jitter keeps many pages from coming back at once when an agent starts again.
 */

const FIRST_S = 0.1;
const MOST_S = 5;

export class Backoff {
  private nextS = FIRST_S;
  private readonly random: () => number;

  /** `random`: from 0 (inclusive) to 1. */
  constructor(random: () => number = Math.random) {
    this.random = random;
  }

  /** The next pause. Seconds. `worked`: the last attempt was one that succeeded. */
  pauseS(worked: boolean): number {
    if (worked) this.nextS = FIRST_S;
    const pause = this.nextS * (0.5 + this.random() / 2);
    this.nextS = Math.min(this.nextS * 2, MOST_S);
    return pause;
  }
}
