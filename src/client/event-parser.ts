/** Server-sent events out of text that comes in pieces (HTML standard, section 9.2). */

/** An event; its type is in its data. */
export interface Message {
  /** Absent if it has none of its own. */
  id: string | undefined;
  data: string;
}

/** Takes a stream's text piece by piece. What is not ended by a blank line is never an event. */
export class EventParser {
  #rest = "";
  #id: string | undefined;
  #data: string[] = [];

  /** The events that `piece` completes. */
  push(piece: string): Message[] {
    const messages: Message[] = [];
    // A CR at the end may be half of a CR LF.
    const lines = (this.#rest + piece).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop()!;
    for (const line of lines) {
      if (line !== "") this.#field(line);
      else if (this.#data.length > 0) {
        messages.push({ id: this.#id, data: this.#data.join("\n") });
        this.#id = undefined;
        this.#data = [];
      }
    }
    return messages;
  }

  #field(line: string): void {
    const [, name, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line)!;
    if (name === "data") this.#data.push(value ?? "");
    else if (name === "id") this.#id = value ?? "";
  }
}
