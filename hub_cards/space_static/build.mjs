// Put the page, its library and a model into one folder: npm run build -- path/to/repository [site]

import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const [repository, site = "site"] = process.argv.slice(2);
if (!repository || !fs.existsSync(path.join(repository, "onnx", "model.onnx"))) {
  console.error(`error: ${repository ?? "no folder"} holds no onnx/model.onnx: give a folder that pcl push wrote`);
  process.exit(1);
}
const here = import.meta.dirname;
const library = path.join(here, "node_modules", "@huggingface", "transformers");
if (!fs.existsSync(library)) {
  console.error("error: the library is not here yet: npm install");
  process.exit(1);
}
const runtime = path.dirname(createRequire(path.join(library, "package.json")).resolve("onnxruntime-web"));

function copy(from, ...to) {
  const target = path.join(site, ...to);
  fs.mkdirSync(path.dirname(target), { recursive: true });
  fs.copyFileSync(from, target);
}

fs.rmSync(site, { recursive: true, force: true });
for (const name of ["index.html", "page.js", "model.js", "faces.js", "pixels.js", "style.css", "README.md"]) copy(path.join(here, name), name);
copy(path.join(library, "dist", "transformers.min.js"), "vendor", "transformers.js");
for (const name of ["ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"]) copy(path.join(runtime, name), "vendor", name);
for (const name of ["config.json", "preprocessor_config.json"]) copy(path.join(repository, name), "model", name);
for (const name of fs.readdirSync(path.join(repository, "onnx"))) {
  if (name.endsWith(".onnx")) copy(path.join(repository, "onnx", name), "model", "onnx", name);
}
console.log(`${site} is ready: python -m http.server --directory ${site}, then http://localhost:8000`);
