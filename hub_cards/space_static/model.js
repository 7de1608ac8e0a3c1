// Runs the exported model with @huggingface/transformers in WebAssembly. Only files of this site are fetched.

import { cutSquare, findFaces, laySquare } from "./faces.js";
import { applyHead, openHead, turnBack } from "./heads.js";
import { crop, mirror, readImage, toInput } from "./pixels.js";
import { AutoModel, Tensor, env } from "./vendor/transformers.js";

const here = new URL(".", import.meta.url);
env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = here.pathname;
env.useBrowserCache = false;
env.useWasmCache = false; // The cache runs the library from a blob URL, which the page's security policy forbids.
env.backends.onnx.wasm.wasmPaths = {
  mjs: new URL("vendor/ort-wasm-simd-threaded.asyncify.mjs", here).href,
  wasm: new URL("vendor/ort-wasm-simd-threaded.asyncify.wasm", here).href,
};
env.backends.onnx.wasm.numThreads = 1; // More threads need HTTP headers that simple servers do not send.

/**
 * Open the model in `folder`, relative to the page.
 * @param {string} dtype `"fp32"`, or `"q8"` for the 8-bit file.
 */
export async function openModel(folder = "model", dtype = "fp32") {
  const [config, processor, stored] = await Promise.all(
    ["config", "preprocessor_config", "heads"].map(async (name) => (await fetchFile(`${folder}/${name}.json`)).json()),
  );
  const heads = Object.fromEntries(Object.entries(stored).map(([name, head]) => [name, openHead(head)]));
  const encoder = await AutoModel.from_pretrained(folder, { dtype, device: "wasm" });
  const hasDecoder = config.architectures?.[0] === "PCLForPreTraining";
  const decoder =
    hasDecoder && (await AutoModel.from_pretrained(folder, { model_file_name: "decoder_model", dtype: "fp32", device: "wasm" }));
  const size = processor.crop_size.height;
  return { config, processor, size, encoder, decoder, heads, detector: await openDetector(folder) };
}

const fetchFile = (path) => fetch(new URL(path, here));

/** Open the face detector if the folder has one. */
async function openDetector(folder) {
  const { ok } = await fetch(new URL(`${folder}/onnx/face_detector.onnx`, here), { method: "HEAD" });
  return ok && AutoModel.from_pretrained(folder, { model_file_name: "face_detector", dtype: "fp32", device: "wasm" });
}

/** Find the faces in a photo with the settings of the model's image processor, the largest first. */
export function findFacesOf(model, photo) {
  const run = async (values, width, height) => {
    const outputs = await model.detector({ "input.1": new Tensor("float32", values, [1, 3, height, width]) });
    return ["537", "538", "539", "540"].map((name) => outputs[name]);
  };
  return findFaces(run, photo, model.processor.face_detector);
}

/** Cut a face out of a photo with the settings of the model's image processor. `angle` of the square is in radians. */
export function cutFace(model, photo, face) {
  const settings = { align: "eyes", margin: 0.15, padding: "black", ...model.processor.face_crop };
  const square = laySquare(settings, face);
  return { ...cutSquare(photo, square, settings.padding), angle: square.angle };
}

/** Compute the features by name, each a Float32Array, from values in [0, 1], channels first. */
export async function encode(model, values) {
  const side = Math.sqrt(values.length / 3);
  const pixel_values = new Tensor("float32", values, [1, 3, side, side]);
  const outputs = await model.encoder({ pixel_values });
  return { trunk: outputs.pooler_output.data, face: outputs.face_features.data, pose: outputs.pose_features.data };
}

/** Compute the features of a face crop at a side in px. */
export function encodeFace(model, face, side = model.size) {
  return encode(model, toInput(crop(face.pixels, face.width, face.height, side)));
}

/** Compute the predictions of all heads for a face crop, by head and label; head pose is relative to the photo. */
export async function askHeads(model, face, features) {
  const bySide = { [model.size]: features };
  const answers = {};
  for (const [name, head] of Object.entries(model.heads)) {
    bySide[head.side] ??= await encodeFace(model, face, head.side);
    answers[name] = applyHead(head, bySide[head.side]);
  }
  if (answers.head_pose && face.angle) answers.head_pose = turnBack(answers.head_pose, face.angle);
  return answers;
}

/** Fetch a sample as a file, as if a user had chosen it. */
export async function fetchSample(name) {
  return new File([await (await fetchFile(`samples/${name}`)).blob()], name);
}

/** Fetch the drawn faces of the page, and compute their features. */
export async function encodeSamples(model) {
  const samples = [];
  for (const name of await (await fetchFile("samples/faces.json")).json()) {
    samples.push({ name, features: await encodeFace(model, await readImage(await fetchSample(name))) });
  }
  return samples;
}

/** Split the features of a face crop into what a swap keeps and what it exchanges: to which side the head is turned. */
export async function splitForSwap(model, face, { face: faceFeature, pose }) {
  const values = toInput(crop(face.pixels, face.width, face.height, model.size));
  const { pose: mirrored } = await encode(model, mirror(values));
  const together = faceFeature.map((value, index) => value + pose[index]);
  const length = Math.sqrt(together.reduce((sum, value) => sum + value * value, 0)) || 1;
  const turn = pose.map((value, index) => (value - mirrored[index]) / 2 / length);
  return { kept: together.map((value, index) => value / length - turn[index]), turn };
}

/** Decode the face of one image turned as another, channels first. */
export async function swap(model, { kept }, { turn }) {
  const tensor = (features) => new Tensor("float32", features, [1, features.length]);
  const outputs = await model.decoder({ face_features: tensor(kept), pose_features: tensor(turn) });
  return outputs.images.data;
}

export function cosine(first, second) {
  let [product, one, other] = [0, 0, 0];
  first.forEach((value, index) => {
    product += value * second[index];
    one += value * value;
    other += second[index] * second[index];
  });
  return product / Math.sqrt(one * other);
}
