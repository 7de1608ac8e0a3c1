// Predictions of linear heads, and conversions of head pose. Equals `heads_pcl.py` and `head_pose_pcl.py`.

import { cutSquare } from "./faces.js";
import { draw, resize } from "./pixels.js";

const AXIS_COLOURS = ["rgb(214, 39, 40)", "rgb(44, 160, 44)", "rgb(31, 119, 180)"]; // Left ear, top of the head, nose.
const [AXIS_SHARE, AXIS_WIDTH_SHARE, SHOWN_PX] = [0.45, 0.02, 480];

/** Open a head of heads.json, whose numbers are in base64. */
export function openHead(head) {
  const decode = (text) => new Float32Array(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer);
  return { ...head, weight: decode(head.weight), bias: decode(head.bias) };
}

/** Read a feature of a face as an array; "face+pose" concatenates the two. */
export function readFeature(features, name) {
  return name.split("+").flatMap((part) => Array.from(features[part]));
}

/** Compute a head's prediction by label: the probabilities of classes, or the estimated numbers. */
export function applyHead({ labels, feature, problem_type, weight, bias }, features) {
  const values = readFeature(features, feature);
  if (weight.length !== labels.length * values.length) throw new Error("A head and the model are of different sizes.");
  let answers = labels.map((_, row) =>
    values.reduce((sum, value, column) => sum + value * weight[row * values.length + column], bias[row]),
  );
  if (problem_type === "single_label_classification") {
    const powers = answers.map((logit) => Math.exp(logit - Math.max(...answers)));
    const sum = powers.reduce((total, power) => total + power);
    answers = powers.map((power) => power / sum);
  }
  return Object.fromEntries(labels.map((label, row) => [label, answers[row]]));
}

/** Compute `Rx(pitch) @ Ry(yaw) @ Rz(roll)` from angles in degrees. */
function rotationMatrix({ yaw, pitch, roll }) {
  const [[cy, sy], [cp, sp], [cr, sr]] = [yaw, pitch, roll].map((degrees) => {
    const radians = (degrees * Math.PI) / 180;
    return [Math.cos(radians), Math.sin(radians)];
  });
  return [
    [cy * cr, -cy * sr, sy],
    [cp * sr + sp * sy * cr, cp * cr - sp * sy * sr, -sp * cy],
    [sp * sr - cp * sy * cr, sp * cr + cp * sy * sr, cp * cy],
  ];
}

/** Convert a head pose in a square that is rotated clockwise by an angle, in radians, to the head pose in the photo. */
export function turnBack(angles, angle) {
  const [right, up, back] = rotationMatrix(angles);
  const [cosine, sine] = [Math.cos(angle), Math.sin(angle)];
  const turnedRight = right.map((value, column) => cosine * value - sine * up[column]);
  const turnedUp = right.map((value, column) => sine * value + cosine * up[column]);
  const degrees = (y, x) => (Math.atan2(y, x) * 180) / Math.PI;
  return {
    yaw: degrees(turnedRight[2], Math.hypot(turnedUp[2], back[2])),
    pitch: degrees(-turnedUp[2], back[2]),
    roll: degrees(-turnedRight[1], turnedRight[0]),
  };
}

/** Draw a face with half of its sides added on every side, as far as the photo reaches, and its axes as `draw_axes`. */
export function drawAxes(canvas, photo, [left, top, right, bottom], angles) {
  const [width, height] = [right - left, bottom - top];
  const side = Math.min(photo.width, photo.height, Math.round(2 * Math.max(width, height)));
  const start = (middle, length) => Math.min(Math.max(Math.round(middle - side / 2), 0), length - side);
  const [x, y] = [(left + right) / 2, (top + bottom) / 2];
  const [startX, startY] = [start(x, photo.width), start(y, photo.height)];
  const { pixels } = cutSquare(photo, { x: startX + side / 2, y: startY + side / 2, side, angle: 0 }, "black");
  draw(canvas, resize(pixels, side, side, SHOWN_PX, SHOWN_PX));
  const scale = SHOWN_PX / side;
  const middle = [(x - startX) * scale, (y - startY) * scale];
  const shorter = Math.min(width, height) * scale;
  const pen = canvas.getContext("2d");
  pen.lineWidth = AXIS_WIDTH_SHARE * shorter;
  const [first, second] = rotationMatrix(angles);
  // The head's x points to the left of the image and its y up; right and down are the negatives.
  const ends = [
    [first[0], second[0]],
    [-first[1], -second[1]],
    [first[2], second[2]],
  ];
  ends.forEach(([across, down], axis) => {
    const end = [middle[0] + AXIS_SHARE * shorter * across, middle[1] + AXIS_SHARE * shorter * down];
    pen.strokeStyle = pen.fillStyle = AXIS_COLOURS[axis];
    pen.beginPath();
    pen.moveTo(...middle);
    pen.lineTo(...end);
    pen.stroke();
    pen.beginPath();
    pen.arc(...end, pen.lineWidth, 0, 2 * Math.PI);
    pen.fill();
  });
}
