/** `/v2`: the Open Inference Protocol (KServe). Texts are tensors of BYTES. */

import { errorCodes, type FastifyInstance, type FastifyRequest } from "fastify";
import { invalid, NotFoundError } from "../../errors.ts";
import type { Admission } from "../access/admission.ts";
import { bytesOf, fillTensors, JSON_LENGTH, jsonEnd } from "../inference/tensors.ts";
import { jsonReader } from "../json.ts";
import { noRoute, sendAs } from "../listener/refuse.ts";
import { type Schemas, VERSION } from "../openapi.ts";
import { checkReady } from "../readiness.ts";
import { schemaOf } from "../route-schema.ts";
import { answersOf, cancelOnClose, closing } from "../streaming/cancellation.ts";
import { recordOf } from "../telemetry/record.ts";

/** The tensors of every model. */
const INPUT = { name: "text_input", datatype: "BYTES", shape: [-1] };
const OUTPUT = { name: "text_output", datatype: "BYTES", shape: [-1] };

/** A model has one version. */
const VERSION_OF_MODEL = "1";

interface ByName {
  Params: { model: string; version?: string };
}

export async function inferenceRoutes(app: FastifyInstance, { admission }: { admission: Admission }) {
  const config = { access: "open" as const };
  app.setErrorHandler(sendAs(({ detail }): Schemas["InferenceError"] => ({ error: detail })));
  app.setNotFoundHandler(noRoute);
  addTensorBodies(app);
  app.get(
    "/",
    { schema: schemaOf("inferenceServer") },
    async (): Promise<Schemas["InferenceServer"]> => ({
      name: "didi-serve",
      version: VERSION,
      extensions: ["binary_tensor_data"],
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
      checkReady(admission.models);
      return { ready: true };
    },
  );
  for (const path of ["/models/:model", "/models/:model/versions/:version"])
    modelRoutes(app, path, admission);
}

/** Add the routes of a model at a path that names it, with its version or without. */
function modelRoutes(app: FastifyInstance, path: string, admission: Admission) {
  const { models } = admission;
  const suffix = path.includes(":version") ? "Version" : "";
  const checkModel = async ({ params: { model, version = VERSION_OF_MODEL } }: FastifyRequest<ByName>) => {
    models.find(model);
    if (version !== VERSION_OF_MODEL)
      throw new NotFoundError(`${model} has no version ${version}: it is ${VERSION_OF_MODEL}`);
  };
  const described = { versions: [VERSION_OF_MODEL], platform: "onnxruntime_onnx" };
  app.get<ByName>(
    path,
    { schema: schemaOf(`inferenceModel${suffix}`), preValidation: checkModel },
    async ({ params }): Promise<Schemas["InferenceModel"]> => ({
      name: params.model,
      ...described,
      inputs: [INPUT],
      outputs: [OUTPUT],
    }),
  );
  app.get<ByName>(
    `${path}/ready`,
    { schema: schemaOf(`inferenceModel${suffix}Ready`), preValidation: checkModel },
    async ({ params: { model: name } }): Promise<Schemas["InferenceModelReady"]> => {
      checkReady(models, name);
      return { name, ready: true };
    },
  );
  interface Infer extends ByName {
    Body: Schemas["InferenceRequest"];
    Reply: Schemas["InferenceResponse"] | Buffer;
  }
  // The name of the model is checked before the body.
  app.post<Infer>(
    `${path}/infer`,
    {
      schema: schemaOf(`infer${suffix}`),
      preValidation: checkModel as (request: FastifyRequest<Infer>) => Promise<void>,
    },
    async (request, reply) => {
      const { id, inputs, outputs, parameters } = request.body;
      const { binary_data_output, priority: _, ...settings } = { steps: 16, ...parameters };
      const { shape, data } = textsOf(inputs[0]!);
      const name = request.params.model;
      const requests = data.map((prompt) => ({ ...settings, prompt }));
      const answers = await admission.use(request, name, closing(reply.raw), async (submission) => {
        const handles = await submission.submitAll(requests);
        recordOf(request)?.add(...handles);
        cancelOnClose(reply.raw, handles);
        return answersOf(handles);
      });
      const texts = answers.map(({ samples }) => samples[0]!.text);
      const head = { id: id ?? answers[0]!.id, model_name: name, model_version: VERSION_OF_MODEL };
      const output = { ...OUTPUT, datatype: "BYTES" as const, shape };
      if (outputs?.[0]?.parameters?.binary_data ?? binary_data_output ?? false) {
        const bytes = bytesOf(texts);
        const parameters = { binary_data_size: bytes.length };
        const json = Buffer.from(JSON.stringify({ ...head, outputs: [{ ...output, parameters }] }));
        reply.header(JSON_LENGTH, json.length).type("application/octet-stream");
        return Buffer.concat([json, bytes]);
      }
      return { ...head, outputs: [{ ...output, data: texts }] };
    },
  );
}

/**
 * Return the texts of the input tensor. Throws InvalidRequestError for another tensor, or another shape than
 * theirs.
 */
function textsOf({ name, shape, data }: Schemas["TextTensor"]) {
  if (name !== INPUT.name) throw invalid("/inputs/0/name", `must be ${INPUT.name}, and is ${name}`);
  const size = shape.reduce((product, length) => product * length, 1);
  if (size !== data.length)
    throw invalid(
      "/inputs/0/shape",
      `must be the number of texts, [${data.length}], and is [${shape.join()}]`,
    );
  return { shape, data };
}

/** Read bodies with binary tensors, and bodies without a Content-Type: Triton's clients send none. */
function addTensorBodies(app: FastifyInstance): void {
  const readJson = jsonReader(app);
  const read = async (request: FastifyRequest, body: Buffer) => {
    const end = jsonEnd(request.headers[JSON_LENGTH], body);
    const json = await readJson(request, body.subarray(0, end));
    fillTensors(json, body.subarray(end));
    return json;
  };
  app.removeContentTypeParser("application/json");
  app.addContentTypeParser(["application/json", "application/octet-stream"], { parseAs: "buffer" }, read);
  app.addContentTypeParser("*", { parseAs: "buffer" }, async (request: FastifyRequest, body: Buffer) => {
    const { origin, "content-type": type } = request.headers;
    // A page may send a body without a type to any origin, unasked.
    if (type === undefined && origin === undefined) return read(request, body);
    throw new errorCodes.FST_ERR_CTP_INVALID_MEDIA_TYPE(type ?? "none");
  });
}
