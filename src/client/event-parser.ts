/** Incremental parser of server-sent events (HTML standard, section 9.2). */

/** An event. Its type is part of its data. */
export interface Message {
  /** Undefined if the event has no id. */
  id: string | undefined;
  data: string;
}

/** Parses a stream piece by piece. Text without a blank line after it is never an event. */
export class EventParser {
  #rest = "";
  #id: string | undefined;
  #data: string[] = [];

  /** Return the events that `piece` completes. */
  push(piece: string): Message[] {
    const messages: Message[] = [];
    // A CR at the end may be the first half of a CR LF.
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
