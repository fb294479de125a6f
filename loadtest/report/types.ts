/** What a results file holds, in the words of results.schema.json, which the types are generated from. */

import type { components } from "./results-types.ts";

type Schemas = components["schemas"];

export type Results = Schemas["Results"];
export type Cell = Schemas["Cell"];
export type Shape = Schemas["Shape"];
export type Load = Schemas["Load"];
export type Measurement = Schemas["Measurement"];
export type Summary = Schemas["Summary"];
export type Times = Schemas["Times"];
export type Quantiles = Schemas["Quantiles"];
export type Spread = Schemas["Spread"];
export type Knee = Schemas["Knee"];
export type SideInfo = Schemas["Side"];
export type Quality = Schemas["Quality"];
export type Environment = Schemas["Environment"];

/** How a request goes to the server; `none` is a loop without one. */
export type Transport = Cell["transport"];

/** A cell before it is measured. */
export type PlannedCell = Omit<Cell, "measurements" | "summary">;
