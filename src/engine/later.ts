/** What is told to those who listen once the next call is on its way: a runtime process need not wait for that. */
export class Later {
  #untold: (() => void)[] = [];

  push(tell: () => void): void {
    this.#untold.push(tell);
  }

  /** Tells everything, in order. A listener that fails keeps nobody else waiting. */
  tell(): void {
    for (const tell of this.#untold.splice(0))
      try {
        tell();
      } catch (error) {
        process.emitWarning(error as Error);
      }
  }
}
