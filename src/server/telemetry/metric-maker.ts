/** Creates Prometheus metrics, with a label for the model if there are several. */

import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { ModelRegistry } from "../../engine/models/registry.ts";
import type { ServedModel } from "../../engine/models/served-model.ts";

/** Labels of what is counted for each model: none if the server has one model. */
export type Labels = { model?: string };

/** Creates metrics in one registry. */
export class Maker {
  readonly registry = new Registry();
  readonly #registers = [this.registry];
  readonly #several: boolean;

  constructor(readonly models: ModelRegistry) {
    this.#several = models.models.length > 1;
  }

  /** Return the labels of a model. */
  labels(name: string): Labels {
    return this.#several ? { model: name } : {};
  }

  /** Add a counter with a label for the model. */
  counter<L extends string>(name: string, help: string, ...labels: L[]): Counter<L | "model"> {
    const labelNames = this.#withModel(labels);
    return new Counter({ name, help, labelNames, registers: this.#registers });
  }

  /** Add a histogram with a label for the model. */
  histogram<L extends string>(
    name: string,
    help: string,
    buckets: number[],
    ...labels: L[]
  ): Histogram<L | "model"> {
    const labelNames = this.#withModel(labels);
    return new Histogram({ name, help, buckets, labelNames, registers: this.#registers });
  }

  /** Add a gauge that calls `read` at each scrape. */
  gauge(name: string, help: string, read: () => number): void {
    this.gauges(name, help, [], () => [[{}, read()]]);
  }

  /** Add a gauge with a value for each model for which `read` returns one. */
  gaugeOfModels(name: string, help: string, read: (model: ServedModel) => number | undefined): void {
    this.gauges(name, help, this.#withModel([]), () =>
      this.models.models.flatMap((model) => {
        const value = read(model);
        return value === undefined ? [] : [[this.labels(model.name), value]];
      }),
    );
  }

  /** Add a gauge with the labels and values of `read`. */
  gauges<L extends string>(
    name: string,
    help: string,
    labelNames: L[],
    read: () => [Partial<Record<L, string>>, number][],
  ): void {
    new Gauge<L>({
      name,
      help,
      labelNames,
      registers: this.#registers,
      collect() {
        this.reset();
        for (const [labels, value] of read()) this.set(labels, value);
      },
    });
  }

  #withModel<L extends string>(labels: L[]): (L | "model")[] {
    return this.#several ? [...labels, "model"] : labels;
  }
}
