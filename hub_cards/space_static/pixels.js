// Image processing as in PCLImageProcessor: resize the shorter side, crop the central square, rescale to [0, 1].

/** Compute the weights of the input pixels in each output pixel along one axis: bilinear, with antialiasing. */
function weightsOf(from, to) {
  const scale = from / to;
  const support = Math.max(scale, 1);
  return Array.from({ length: to }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(from, Math.trunc(centre + support + 0.5));
    const weights = [];
    for (let index = first; index < last; index++) {
      weights.push(Math.max(0, 1 - Math.abs((index - centre + 0.5) / support)));
    }
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

/** Resize along one axis. Values are rounded to whole numbers, as in an 8-bit image. */
function resizeAxis(pixels, width, height, to, isAcross) {
  const [from, across, down] = isAcross ? [width, to, height] : [height, width, to];
  const weightsOfAll = weightsOf(from, to);
  const step = 3 * (isAcross ? 1 : width);
  const resized = new Uint8ClampedArray(across * down * 3);
  for (let y = 0; y < down; y++) {
    for (let x = 0; x < across; x++) {
      const { first, weights } = weightsOfAll[isAcross ? x : y];
      for (let channel = 0; channel < 3; channel++) {
        let sum = 0;
        let place = (isAcross ? y * width + first : first * width + x) * 3 + channel;
        for (let offset = 0; offset < weights.length; offset++, place += step) sum += weights[offset] * pixels[place];
        resized[(y * across + x) * 3 + channel] = Math.floor(sum + 0.5);
      }
    }
  }
  return resized;
}

/** Resize an image bilinearly with antialiasing. */
export function resize(pixels, width, height, across, down) {
  const narrow = across === width ? pixels : resizeAxis(pixels, width, height, across, true);
  return down === height ? narrow : resizeAxis(narrow, across, height, down, false);
}

/**
 * Resize an image, and crop its central square to the model's image size.
 * @param {Uint8ClampedArray} pixels Red, green and blue of every pixel.
 * @returns {Uint8ClampedArray} Red, green and blue of `size * size` pixels.
 */
export function crop(pixels, width, height, size) {
  const [across, down] =
    width < height ? [size, Math.trunc((size * height) / width)] : [Math.trunc((size * width) / height), size];
  const small = resize(pixels, width, height, across, down);
  const [left, top] = [Math.trunc((across - size) / 2), Math.trunc((down - size) / 2)];
  const square = new Uint8ClampedArray(size * size * 3);
  for (let row = 0; row < size; row++) {
    const start = ((top + row) * across + left) * 3;
    square.set(small.subarray(start, start + size * 3), row * size * 3);
  }
  return square;
}

/** Open a file as upright RGB pixels, with transparent pixels in white. Rejects if the file is not an image. */
export async function readImage(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const pixels = new Uint8ClampedArray((data.length / 4) * 3);
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
    pixels[to] = data[from];
    pixels[to + 1] = data[from + 1];
    pixels[to + 2] = data[from + 2];
  }
  return { pixels, width: bitmap.width, height: bitmap.height };
}

/** Rescale pixels to [0, 1], channels first. */
export function toInput(square) {
  const plane = square.length / 3;
  const values = new Float32Array(square.length);
  for (let place = 0; place < plane; place++) {
    for (let channel = 0; channel < 3; channel++) values[channel * plane + place] = square[place * 3 + channel] / 255;
  }
  return values;
}

/** Mirror a square image of values, channels first. */
export function mirror(values) {
  const size = Math.sqrt(values.length / 3);
  return values.map((_, place) => values[place - (place % size) + size - 1 - (place % size)]);
}

/** Draw a square image from 8-bit pixels, or from values of the model, channels first. */
export function draw(canvas, square) {
  const size = Math.sqrt(square.length / 3);
  const isPlanar = square instanceof Float32Array;
  const image = new ImageData(size, size);
  for (let place = 0; place < size * size; place++) {
    for (let channel = 0; channel < 3; channel++) {
      image.data[place * 4 + channel] = isPlanar ? 255 * square[channel * size * size + place] : square[place * 3 + channel];
    }
    image.data[place * 4 + 3] = 255;
  }
  canvas.width = canvas.height = size;
  canvas.getContext("2d").putImageData(image, 0, 0);
}
