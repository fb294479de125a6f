/** `/v2`: the Open Inference Protocol (KServe). Texts are tensors of BYTES. */

import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Engine } from "../../engine/engine.ts";
import { InvalidRequestError, NotFoundError } from "../../errors.ts";
import type { Admission } from "../access/admission.ts";
import { noRoute, sendAs } from "../listener/refuse.ts";
import { type Schemas, VERSION } from "../openapi.ts";
import { checkReady } from "../readiness.ts";
import { schemaOf } from "../route-schema.ts";
import { answersOf, cancelOnClose } from "../streaming/cancellation.ts";
import { recordOf } from "../telemetry/record.ts";

/** The tensors of every model. */
const INPUT = { name: "text_input", datatype: "BYTES", shape: [-1] };
const OUTPUT = { name: "text_output", datatype: "BYTES", shape: [-1] };

interface ByName {
  Params: { model: string };
}

export async function inferenceRoutes(
  app: FastifyInstance,
  { engine, admission }: { engine: Engine; admission: Admission },
) {
  const config = { access: "open" as const };
  const { name } = engine.model.manifest;
  const checkModel = (model: string) => {
    if (model !== name) throw new NotFoundError(`the model ${model} is not served here: it is ${name}`);
  };
  app.setErrorHandler(sendAs(({ detail }): Schemas["InferenceError"] => ({ error: detail })));
  app.setNotFoundHandler(noRoute);
  app.get(
    "/",
    { schema: schemaOf("inferenceServer") },
    async (): Promise<Schemas["InferenceServer"]> => ({
      name: "didi-serve",
      version: VERSION,
      extensions: [],
    }),
  );
  app.get(
    "/health/live",
    { config, schema: schemaOf("inferenceLive") },
    async (): Promise<Schemas["InferenceLive"]> => ({ live: true }),
  );
  app.get(
    "/health/ready",
    { config, schema: schemaOf("inferenceReady") },
    async (): Promise<Schemas["InferenceReady"]> => {
      checkReady(engine);
      return { ready: true };
    },
  );
  app.get<ByName>(
    "/models/:model",
    { schema: schemaOf("inferenceModel") },
    async ({ params }): Promise<Schemas["InferenceModel"]> => {
      checkModel(params.model);
      return { name, platform: "onnxruntime_onnx", inputs: [INPUT], outputs: [OUTPUT] };
    },
  );
  app.get<ByName>(
    "/models/:model/ready",
    { schema: schemaOf("inferenceModelReady") },
    async ({ params }): Promise<Schemas["InferenceModelReady"]> => {
      checkModel(params.model);
      checkReady(engine);
      return { name, ready: true };
    },
  );
  interface Infer extends ByName {
    Body: Schemas["InferenceRequest"];
    Reply: Schemas["InferenceResponse"];
  }
  // The name of the model is checked before the body.
  const preValidation = async ({ params }: FastifyRequest<Infer>) => checkModel(params.model);
  app.post<Infer>(
    "/models/:model/infer",
    { schema: schemaOf("infer"), preValidation },
    async (request, reply) => {
      const { id, inputs, parameters } = request.body;
      const [input] = inputs as [Schemas["TextTensor"]];
      const refuse = (path: string, message: string) => new InvalidRequestError([{ path, message }]);
      if (input.name !== INPUT.name) throw refuse("/inputs/0/name", `must be ${INPUT.name}`);
      if (input.shape[0] !== input.data.length)
        throw refuse("/inputs/0/shape", `must be the number of texts, [${input.data.length}]`);
      const settings = { steps: 16, ...parameters };
      const handles = await admission.submitAll(
        request,
        input.data.map((prompt) => ({ ...settings, prompt })),
      );
      recordOf(request)?.add(...handles);
      cancelOnClose(reply.raw, handles);
      const data = (await answersOf(handles)).map(({ samples }) => samples[0]!.text);
      const output = { ...OUTPUT, datatype: "BYTES" as const, shape: [data.length], data };
      return { id: id ?? handles[0]!.id, model_name: name, outputs: [output] };
    },
  );
}
