// Put the page, its library and a model into one folder: npm run build -- path/to/repository [site]

import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { isDeepStrictEqual } from "node:util";

// Name of the linear layer and kind of the answer, for each folder of a head below the model's.
const HEADS = {
  expression: ["classifier", "single_label_classification"],
  head_pose: ["regressor", "regression"],
  age: ["classifier", "regression"],
};

const [repository, site = "site"] = process.argv.slice(2);
if (!repository || !fs.existsSync(path.join(repository, "onnx", "model.onnx"))) {
  refuse(`${repository ?? "no folder"} holds no onnx/model.onnx: give a folder that pcl push wrote`);
}
const here = import.meta.dirname;
const library = path.join(here, "node_modules", "@huggingface", "transformers");
if (!fs.existsSync(library)) refuse("the library is not here yet: npm install");
const runtime = path.dirname(createRequire(path.join(library, "package.json")).resolve("onnxruntime-web"));

function refuse(reason) {
  console.error(`error: ${reason}`);
  process.exit(1);
}

function readJson(...parts) {
  return JSON.parse(fs.readFileSync(path.join(repository, ...parts), "utf8"));
}

/** Extract the linear layer of a head, if it exists, from a file that also holds the encoder. */
function readHead([name, [layer, problem_type]]) {
  const file = path.join(repository, name, "model.safetensors");
  if (!fs.existsSync(file)) return [];
  const { id2label, head_feature: feature, image_size: side, ...config } = readJson(name, "config.json");
  const labels = Object.values(id2label ?? {});
  if (config.problem_type !== problem_type) refuse(`${name}/ is not a ${problem_type} head but a ${config.problem_type} head`);
  if (!isDeepStrictEqual(readJson(name, "preprocessor_config.json").face_crop, processor.face_crop)) {
    refuse(`${name}/ cuts faces out otherwise than the model`);
  }
  const bytes = fs.readFileSync(file);
  const start = 8 + Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString("utf8", 8, start));
  const readTensor = (tensor) => {
    const { dtype, shape, data_offsets } = header[tensor] ?? {};
    if (dtype !== "F32" || shape[0] !== labels.length) refuse(`${file} holds no ${tensor} of ${labels.length} float32 rows`);
    return bytes.toString("base64", ...data_offsets.map((offset) => start + offset));
  };
  return [[name, { labels, feature, side, problem_type, weight: readTensor(`${layer}.weight`), bias: readTensor(`${layer}.bias`) }]];
}

function copy(from, ...to) {
  const target = path.join(site, ...to);
  fs.mkdirSync(path.dirname(target), { recursive: true });
  fs.copyFileSync(from, target);
}

const processor = readJson("preprocessor_config.json");
const heads = Object.fromEntries(Object.entries(HEADS).flatMap(readHead));

fs.rmSync(site, { recursive: true, force: true });
for (const name of ["index.html", "page.js", "model.js", "heads.js", "faces.js", "pixels.js", "style.css", "README.md"]) copy(path.join(here, name), name);
copy(path.join(library, "dist", "transformers.min.js"), "vendor", "transformers.js");
for (const name of ["ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"]) copy(path.join(runtime, name), "vendor", name);
for (const name of ["config.json", "preprocessor_config.json"]) copy(path.join(repository, name), "model", name);
for (const name of fs.readdirSync(path.join(repository, "onnx"))) {
  if (name.endsWith(".onnx")) copy(path.join(repository, "onnx", name), "model", "onnx", name);
}
fs.writeFileSync(path.join(site, "model", "heads.json"), JSON.stringify(heads));
const samples = path.join(here, "..", "space", "samples");
const images = fs.readdirSync(samples).filter((name) => /\.(png|jpg)$/.test(name));
for (const name of ["LICENSE", ...images]) copy(path.join(samples, name), "samples", name);
fs.writeFileSync(path.join(site, "samples", "faces.json"), JSON.stringify(images.filter((name) => name.endsWith(".png"))));
console.log(`${site} is ready: python -m http.server --directory ${site}, then http://localhost:8000`);
