// Detects faces in a photo with CenterFace, and cuts them out. Equals `detection_pcl.py` and `crop_pcl.py`.

import { resize } from "./pixels.js";

const STRIDE = 4; // Pixels between neighbouring positions of the network's output maps.
const MULTIPLE = 32; // The sides of the network's input must be a multiple of this.
const STEP = 0.125; // Rounding of a square's centre, in px, and of its angle, in degrees.
const SAME_FACE = 0.3; // Smallest intersection over union at which two boxes belong to one face.
const DEFAULTS = { longest_px: 640, min_score: 0.5, min_side_px: 16 };
// Positions of eyes, nose and corners of the mouth in the square around a face's box, as fractions of its side.
const TEMPLATE = [
  [0.3235, 0.3804],
  [0.6765, 0.3804],
  [0.5, 0.5822],
  [0.3546, 0.7445],
  [0.6454, 0.7445],
];

/**
 * Find the faces in a photo, sorted from the largest to the smallest.
 * @param {(values: Float32Array, width: number, height: number) => Promise<object[]>} run The network: takes an image
 *   (channels first, levels from 0 to 255), and returns four maps `{ data, dims }`: heat, extents, offsets and points.
 * @returns {Promise<{box: number[], points: number[][], score: number}[]>} Faces, in px of the photo.
 */
export async function findFaces(run, photo, settings = {}) {
  const { longest_px, min_score, min_side_px } = { ...DEFAULTS, ...settings };
  const scale = longest_px / Math.max(photo.width, photo.height);
  const [width, height] = [photo.width, photo.height].map((side) => Math.max(1, roundToEven(side * scale)));
  const [across, down] = [width, height].map((side) => Math.ceil(side / MULTIPLE) * MULTIPLE);
  const small = resize(photo.pixels, photo.width, photo.height, width, height);
  const values = new Float32Array(3 * across * down); // The area beside the photo stays black.
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let channel = 0; channel < 3; channel++) {
        values[(channel * down + y) * across + x] = small[(y * width + x) * 3 + channel];
      }
    }
  }
  const faces = decode(await run(values, across, down), min_score, photo.width / width, photo.height / height);
  for (const { box } of faces) {
    [box[0], box[2]] = [box[0], box[2]].map((x) => Math.min(Math.max(x, 0), photo.width));
    [box[1], box[3]] = [box[1], box[3]].map((y) => Math.min(Math.max(y, 0), photo.height));
  }
  const large = faces.filter(({ box }) => Math.min(box[2] - box[0], box[3] - box[1]) >= min_side_px);
  return distinct(large).sort((one, other) => area(other.box) - area(one.box));
}

function decode([heat, extents, offsets, marks], minScore, scaleX, scaleY) {
  const [rows, columns] = heat.dims.slice(2);
  const faces = [];
  for (let place = 0; place < rows * columns; place++) {
    if (heat.data[place] <= minScore) continue;
    const at = (map, channel) => map.data[channel * rows * columns + place];
    const [height, width] = [0, 1].map((channel) => Math.exp(at(extents, channel)) * STRIDE);
    const top = (Math.floor(place / columns) + at(offsets, 0) + 0.5) * STRIDE - height / 2;
    const left = ((place % columns) + at(offsets, 1) + 0.5) * STRIDE - width / 2;
    // y before x for each point, as fractions of the box.
    const points = TEMPLATE.map((_, point) => [
      (at(marks, 2 * point + 1) * width + left) * scaleX,
      (at(marks, 2 * point) * height + top) * scaleY,
    ]);
    const box = [left * scaleX, top * scaleY, (left + width) * scaleX, (top + height) * scaleY];
    faces.push({ box, points, score: heat.data[place] });
  }
  return faces;
}

const area = ([left, top, right, bottom]) => (right - left) * (bottom - top);

function distinct(faces) {
  const kept = [];
  for (const face of [...faces].sort((one, other) => other.score - one.score)) {
    if (kept.every(({ box }) => overlap(face.box, box) < SAME_FACE)) kept.push(face);
  }
  return kept;
}

function overlap(one, other) {
  const across = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const down = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  const shared = Math.max(across, 0) * Math.max(down, 0);
  return shared / Math.max(area(one) + area(other) - shared, 1e-9);
}

/**
 * Place the square of a face, as `FaceCrop.square` does.
 * @param {{align: string, margin: number}} crop
 * @returns {{x: number, y: number, side: number, angle: number}} Centre and side in px, clockwise angle in radians.
 */
export function laySquare({ align, margin }, { box: [left, top, right, bottom], points }) {
  let [x, y, side, angle] = [(left + right) / 2, (top + bottom) / 2, Math.max(right - left, bottom - top), 0];
  if (align === "five_points") [x, y, side, angle] = fit(points);
  if (align === "eyes") angle = Math.atan2(points[1][1] - points[0][1], points[1][0] - points[0][0]);
  // Rounded, because the last digits of the points differ between machines and must not change the pixels.
  const inSteps = (value) => roundToEven(value / STEP) * STEP;
  const radians = (inSteps((angle * 180) / Math.PI) * Math.PI) / 180;
  return { x: inSteps(x), y: inSteps(y), side: Math.max(1, roundToEven(side * (1 + 2 * margin))), angle: radians };
}

/** Fit the square whose template is closest to five points, by least squares on complex numbers. */
function fit(points) {
  const mean = (all) => [0, 1].map((axis) => all.reduce((sum, point) => sum + point[axis], 0) / all.length);
  const [seen, fixed] = [mean(points), mean(TEMPLATE)];
  let [real, imaginary, length] = [0, 0, 0];
  points.forEach(([x, y], index) => {
    const [u, v] = [TEMPLATE[index][0] - fixed[0], TEMPLATE[index][1] - fixed[1]];
    real += u * (x - seen[0]) + v * (y - seen[1]);
    imaginary += u * (y - seen[1]) - v * (x - seen[0]);
    length += u * u + v * v;
  });
  [real, imaginary] = [real / length, imaginary / length];
  const [u, v] = [0.5 - fixed[0], 0.5 - fixed[1]];
  const centre = [seen[0] + real * u - imaginary * v, seen[1] + imaginary * u + real * v];
  return [...centre, Math.hypot(real, imaginary), Math.atan2(imaginary, real)];
}

/**
 * Cut a square out of a photo at the scale of the photo, as `FaceSquare.cut` does.
 * @returns {{pixels: Uint8ClampedArray, width: number, height: number}}
 */
export function cutSquare({ pixels, width, height }, { x, y, side, angle }, padding) {
  const cut = new Uint8ClampedArray(side * side * 3);
  const [cosine, sine] = [Math.cos(angle), Math.sin(angle)];
  const corner = [Math.floor(x - side / 2 + 0.5), Math.floor(y - side / 2 + 0.5)];
  const isEdge = padding === "edge";
  const inside = (value, length) => Math.min(Math.max(value, 0), length - 1);
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      const [u, v] = [column + 0.5 - side / 2, row + 0.5 - side / 2];
      let [px, py] = [x + cosine * u - sine * v, y + sine * u + cosine * v];
      if (!angle) [px, py] = [corner[0] + column + 0.5, corner[1] + row + 0.5]; // Without rotation, whole pixels are copied.
      if (!isEdge && (px < 0 || py < 0 || px >= width || py >= height)) continue;
      const [left, top] = [Math.floor(px - 0.5), Math.floor(py - 0.5)];
      const [right, below] = [px - 0.5 - left, py - 0.5 - top];
      for (let channel = 0; channel < 3; channel++) {
        const at = (across, down) => pixels[(inside(down, height) * width + inside(across, width)) * 3 + channel];
        const upper = at(left, top) + (at(left + 1, top) - at(left, top)) * right;
        const lower = at(left, top + 1) + (at(left + 1, top + 1) - at(left, top + 1)) * right;
        cut[(row * side + column) * 3 + channel] = Math.floor(upper + (lower - upper) * below);
      }
    }
  }
  return { pixels: cut, width: side, height: side };
}

/** Round halves to the even neighbour, as Python's `round` does. */
function roundToEven(value) {
  const whole = Math.round(value);
  return whole - value === 0.5 && whole % 2 ? whole - 1 : whole;
}
