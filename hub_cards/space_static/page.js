import { drawAxes, readFeature } from "./heads.js";
import { askHeads, cosine, cutFace, encodeFace, encodeSamples, fetchSample, findFacesOf, openModel, splitForSwap, swap } from "./model.js";
import { crop, draw, readImage } from "./pixels.js";

const NEAREST = 4; // Number of sample faces to show.
const element = (id) => document.getElementById(id);
const photos = [null, null]; // Features of the two photos.
const files = [null, null];
let samples = [];

function tell(text, isError = false) {
  element("status").textContent = text;
  element("status").classList.toggle("error", isError);
}

const tellError = (error) => tell(error.message, true);

/** Compute the answers for a photo, after those for the photos that were chosen before. */
function choose(index, file) {
  if (file) answered = answered.then(() => answer(index, file)).catch(tellError);
}

async function answer(index, file) {
  const model = await opened;
  tell("Computing …");
  const photo = await readImage(file).catch(() => {
    throw new Error(`${file.name} is not an image that this browser can read.`);
  });
  files[index] = file;
  let [note, box, face] = ["", [0, 0, photo.width, photo.height], photo];
  if (model.detector && element("detect").checked) {
    const faces = await findFacesOf(model, photo);
    note = describe(faces);
    if (faces.length) [box, face] = [faces[0].box, cutFace(model, photo, faces[0])];
  }
  element(`note-${index}`).textContent = note;
  draw(element(`seen-${index}`), crop(face.pixels, face.width, face.height, model.size));
  photos[index] = await encodeFace(model, face);
  if (model.decoder) Object.assign(photos[index], await splitForSwap(model, face, photos[index]));
  if (index === 0) {
    showAnswers(await askHeads(model, face, photos[0]), photo, box);
    for (const feature of ["face", "pose"]) showNearest(feature);
  }
  if (photos.every(Boolean)) await compare(model);
  tell("");
}

/** Describe the faces found in a photo, and which one is used, in a sentence. */
function describe(faces) {
  if (!faces.length) return "No face is found, so that the whole photo is taken as one.";
  const [left, top, right, bottom] = faces[0].box.map(Math.round);
  const place = `from (${left}, ${top}) to (${right}, ${bottom}) px`;
  return faces.length === 1 ? `One face is found, ${place}.` : `${faces.length} faces are found; taken is the largest, ${place}.`;
}

/** Show the predictions of the heads for the first photo, if there are heads. */
function showAnswers({ head_pose: angles, expression, age }, photo, box) {
  if (angles) {
    drawAxes(element("axes"), photo, box, angles);
    for (const [angle, degrees] of Object.entries(angles)) {
      element(angle).textContent = `${degrees < 0 ? "−" : "+"}${Math.abs(degrees).toFixed(1)}°`;
    }
  }
  if (expression) {
    const sorted = Object.entries(expression).sort((one, other) => other[1] - one[1]);
    element("bars").replaceChildren(...sorted.map(([label, probability]) => makeBar(label, probability)));
  }
  if (age) element("years").textContent = Object.values(age)[0].toFixed(0);
}

function makeBar(label, probability) {
  const row = element("bar").content.cloneNode(true);
  row.querySelector("dt").textContent = label;
  row.querySelector("i").style.width = `${100 * probability}%`;
  row.querySelector(".share").textContent = `${Math.round(100 * probability)}%`;
  return row;
}

function showNearest(feature) {
  const cosines = samples.map(({ name, features }) => [cosine(photos[0][feature], features[feature]), name]);
  const nearest = cosines.sort(([one], [other]) => other - one).slice(0, NEAREST);
  const figures = nearest.map(([similarity, name]) => {
    const figure = element("sample").content.cloneNode(true);
    Object.assign(figure.querySelector("img"), { src: `samples/${name}`, alt: name.replace(/\.png$/, "") });
    figure.querySelector("figcaption").textContent = similarity.toFixed(3);
    return figure;
  });
  element(`nearest-${feature}`).replaceChildren(...figures);
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
    draw(element("swap-0"), await swap(model, first, second));
    draw(element("swap-1"), await swap(model, second, first));
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
export const opened = openModel().catch((error) => {
  const reason = typeof WebAssembly === "undefined" ? "This browser has no WebAssembly." : error.message;
  throw new Error(`The model does not open: ${reason}`);
});
/** Promise that settles after the answers for the last chosen photo; at first, those for the examples. */
export let answered = opened.then(showExamples).catch(tellError);

/** Show only the sections for which there is a model. */
export function showPanels({ detector, heads }) {
  element("detection").hidden = !detector;
  for (const name of ["head_pose", "expression", "age"]) element(name).hidden = !heads[name];
}

async function showExamples(model) {
  showPanels(model);
  samples = await encodeSamples(model);
  const first = model.detector ? "astronaut.jpg" : "person1-front.png"; // The second one is a face crop and needs no detector.
  await answer(0, await fetchSample(first));
  await answer(1, await fetchSample("person4-left.png"));
}
