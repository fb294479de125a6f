/** Generated from results.schema.json by `npm run types`; do not edit. */

export type paths = Record<string, never>;
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /** @description What one run of the load test measured */
        Results: {
            /** @enum {integer} */
            format_version: 1;
            name: string;
            /** Format: date-time */
            started: string;
            /** @description Of the whole run, start of the servers included */
            seconds: number;
            /** @description False where it was interrupted, or time or requests ran out */
            complete: boolean;
            /** @description Measurements that were planned and not made */
            left_out: number;
            settings: components["schemas"]["Settings"];
            environment: components["schemas"]["Environment"];
            model: components["schemas"]["Model"];
            sides: components["schemas"]["Side"][];
            cells: components["schemas"]["Cell"][];
            knees: components["schemas"]["Knee"][];
            quality: components["schemas"]["Quality"][];
            warnings: string[];
        };
        Settings: {
            /** @description The command line after the program */
            flags: string[];
            /** @description Of the first request; each has its own */
            seed: number;
            repeats: number;
            /** @description What the measurements were fitted into */
            time_s: number;
            /** @description What the knees are held to */
            p99_limit_ms: number;
        };
        Environment: {
            cpu: string;
            cores: number;
            memory_bytes: number;
            platform: string;
            /** @description Of the working tree, with + where tracked files had changes */
            commit?: string;
            versions: {
                [key: string]: string;
            };
        };
        Model: {
            name: string;
            parameters: number;
            context_length: number;
        };
        /** @description The server under test, or a peer */
        Side: {
            name: string;
            title: string;
            settings: {
                [key: string]: string | number | boolean;
            };
            /** @description Why it could not be measured */
            left_out?: string;
        };
        Shape: {
            name: string;
            weight: number;
            /** @description Absent for a model that has none */
            steps?: number;
            /** @description New tokens */
            length: number;
            /** @enum {string} */
            guidance?: "none" | "rgas";
            prompt?: string;
        };
        Load: {
            /** @constant */
            kind: "closed";
            /** @description Each asks again once it is answered */
            clients: number;
        } | {
            /** @constant */
            kind: "open";
            /** @description Poisson arrivals a second */
            rate: number;
        };
        Cell: {
            id: string;
            side: string;
            load: components["schemas"]["Load"];
            /**
             * @description none: a loop without a server
             * @enum {string}
             */
            transport: "post" | "sse" | "ws" | "none";
            shapes: components["schemas"]["Shape"][];
            measurements: components["schemas"]["Measurement"][];
            summary: components["schemas"]["Summary"];
        };
        /** @description Milliseconds, from a histogram of three significant digits */
        Quantiles: {
            count: number;
            mean: number;
            p50: number;
            p90: number;
            p99: number;
            max: number;
        };
        /** @description Absent where nothing of the kind was seen */
        Times: {
            /** @description Closed loop: from sending. Open loop: from when the request should have been sent. To the whole answer, correct ones alone */
            latency?: components["schemas"]["Quantiles"];
            /** @description To the first step of a stream */
            first_step?: components["schemas"]["Quantiles"];
            /** @description Between steps of a stream */
            step_gap?: components["schemas"]["Quantiles"];
            /** @description In the server before the first pass, as it says */
            queue?: components["schemas"]["Quantiles"];
            /** @description Open loop: how late the client sent */
            send_lag?: components["schemas"]["Quantiles"];
        };
        Measurement: {
            repeat: number;
            /** @description After the start of the run */
            started_s: number;
            /** @description First request to last answer */
            seconds: number;
            /** @description Answered, and the answer correct */
            requests: number;
            /** @description New tokens of those */
            tokens: number;
            requests_per_second: number;
            tokens_per_second: number;
            passes_per_second?: components["schemas"]["Passes"];
            times_ms: components["schemas"]["Times"];
            /** @description Of mixed traffic, by the shape's name */
            shapes?: {
                [key: string]: components["schemas"]["Times"];
            };
            batch?: components["schemas"]["Batch"];
            /** @description Requests without a correct answer, by kind */
            errors: {
                [key: string]: number;
            };
            /** @description Steps that came merged into one event, because the client read too slowly */
            merged_steps?: number;
            client_cpu_cores?: number;
            server?: components["schemas"]["ServerUse"];
            /** @description What all other programs on this machine used meanwhile; absent where the server's use is not known */
            other_cpu_cores?: number;
            /** @description Open loop: at least 0.9 of the offered rate was answered, at most 1% of it with errors */
            kept_up?: boolean;
            /** @description Rounds a millisecond of a fixed loop just before: how fast the machine was then */
            machine_speed: number;
        };
        Passes: {
            student: number;
            discriminator: number;
            gradient: number;
        };
        /** @description From the server's metrics, so of everything it did meanwhile */
        Batch: {
            /** @description Calls of the model */
            calls: number;
            /** @description Rows a call, mean */
            rows: number;
            /** @description Share of the time in which a call ran; above 1 with several runtime processes; absent: unknown */
            busy?: number;
        };
        ServerUse: {
            cpu_cores: number;
            /** @description At the end */
            rss_bytes: number;
            /**
             * @description processes: with its runtime processes; server: without them, all that a server elsewhere tells
             * @enum {string}
             */
            of: "processes" | "server";
        };
        /** @description Over the repeats */
        Spread: {
            median: number;
            lowest: number;
            highest: number;
        };
        Summary: {
            repeats: number;
            errors: {
                [key: string]: number;
            };
            /** @description Medians and ranges over the repeats, by name */
            figures: {
                [key: string]: components["schemas"]["Spread"];
            };
            /** @description Of all repeats together */
            times_ms: components["schemas"]["Times"];
            shapes?: {
                [key: string]: components["schemas"]["Times"];
            };
        };
        /** @description The highest rate tried at which p99 stayed within the limit and the server kept up */
        Knee: {
            shape: components["schemas"]["Shape"];
            /** @enum {string} */
            transport: "post" | "sse" | "ws";
            /** @description 0: not even the lowest */
            requests_per_second: components["schemas"]["Spread"];
            repeats: number[];
            /** @description A higher rate was tried and failed; else the knee lies further up */
            reached: boolean;
        };
        Quality: {
            /** @enum {string} */
            sampler: "plain" | "rgas" | "autoregressive";
            steps?: number;
            /** @description Of its samples, to a judge */
            perplexity: number;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export type operations = Record<string, never>;
