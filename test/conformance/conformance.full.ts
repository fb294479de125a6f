/** The tokens, log-probabilities and rewards of a request do not depend on other requests: 200 cases. */

import { ROUND } from "./cases.ts";
import { SUBJECTS, testRounds } from "./run.ts";

testRounds(Math.ceil(200 / SUBJECTS.length / ROUND));
