/** The tokens, log-probabilities and rewards of a request do not depend on other requests: one round. */

import { testRounds } from "./run.ts";

testRounds(1);
