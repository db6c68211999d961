/**
 * Which code comes when the reader asks for what was typed before?
 *
 * Pure. Positions count from the newest, 0; -1 is what is being typed.
 */

export class Past {
  private at = -1;
  private draft = "";

  constructor(private readonly codes: () => readonly string[]) {}

  /** The one before, or null where there is none. `typed`: what stands in the editor. */
  older(typed: string): string | null {
    return this.move(1, typed);
  }

  newer(typed: string): string | null {
    return this.move(-1, typed);
  }

  /** Start from what is typed again. */
  reset(): void {
    this.at = -1;
    this.draft = "";
  }

  private move(step: number, typed: string): string | null {
    const codes = this.codes();
    const next = this.at + step;
    if (next < -1 || next >= codes.length) return null;
    if (this.at === -1) this.draft = typed;
    this.at = next;
    return next === -1 ? this.draft : (codes[next] ?? null);
  }
}

/** Newest first, each once, nothing empty. `codes` oldest first. */
export const pastOf = (codes: readonly string[]): string[] =>
  [...new Set(codes.toReversed())].filter((code) => code.trim() !== "");
