import { cosine, cutFace, encode, findFacesOf, openModel, swap } from "./model.js";
import { crop, draw, readImage, toInput } from "./pixels.js";

const element = (id) => document.getElementById(id);
const photos = [null, null]; // Their features.
const files = [null, null];

function tell(text, isError = false) {
  element("status").textContent = text;
  element("status").classList.toggle("error", isError);
}

async function choose(index, file) {
  if (!file) return;
  let image;
  try {
    image = await readImage(file);
  } catch {
    tell(`${file.name} is not an image that this browser can read.`, true);
    return;
  }
  files[index] = file;
  const model = await opened;
  tell("Computing …");
  let note = "";
  if (model.detector && element("detect").checked) {
    const faces = await findFacesOf(model, image);
    note = describe(faces);
    if (faces.length) image = cutFace(model, image, faces[0]);
  }
  element(`note-${index}`).textContent = note;
  const square = crop(image.pixels, image.width, image.height, model.size);
  draw(element(`seen-${index}`), square);
  photos[index] = await encode(model, toInput(square));
  tell(photos.every(Boolean) ? "" : "Now a second photo.");
  if (photos.every(Boolean)) await compare(model);
}

/** What was found in a photo and what is taken of it, in a sentence. */
function describe(faces) {
  if (!faces.length) return "No face is found, so that the whole photo is taken as one.";
  const [left, top, right, bottom] = faces[0].box.map(Math.round);
  const place = `from (${left}, ${top}) to (${right}, ${bottom}) px`;
  return faces.length === 1 ? `One face is found, ${place}.` : `${faces.length} faces are found; taken is the largest, ${place}.`;
}

/** One feature of a photo; "face+pose" is both, one behind the other. */
function readFeature(photo, name) {
  return name.split("+").flatMap((part) => Array.from(photo[part]));
}

async function compare(model) {
  const [first, second] = photos;
  for (const name of ["face", "pose", "trunk"]) {
    element(`cosine-${name}`).textContent = cosine(first[name], second[name]).toFixed(3);
  }
  const { verification_threshold: threshold, verification_feature: feature = "face" } = model.config;
  if (threshold != null) {
    const isSame = cosine(readFeature(first, feature), readFeature(second, feature)) >= threshold;
    element("verdict").textContent = `At the model's threshold of ${threshold.toFixed(3)} (${feature}): ${
      isSame ? "the same person" : "different people"
    }. It is often wrong.`;
  }
  if (model.decoder) {
    draw(element("swap-0"), await swap(model, first.face, second.pose));
    draw(element("swap-1"), await swap(model, second.face, first.pose));
  }
  element("swaps").hidden = !model.decoder;
  element("results").hidden = false;
}

for (const index of [0, 1]) {
  const [input, zone] = [element(`file-${index}`), element(`zone-${index}`)];
  input.addEventListener("change", () => choose(index, input.files[0]));
  element("detect").addEventListener("change", () => choose(index, files[index]));
  zone.addEventListener("dragover", (event) => event.preventDefault());
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    choose(index, event.dataTransfer.files[0]);
  });
}

tell("Opening the model …");
export const opened = openModel();
opened.then(
  (model) => {
    element("detection").hidden = !model.detector;
    tell("Choose two photos.");
  },
  (error) => {
    const reason = typeof WebAssembly === "undefined" ? "This browser has no WebAssembly." : error.message;
    tell(`The model does not open: ${reason}`, true);
  },
);
