// What happens to pixels, as fer's Python does it: Pillow's gray and resizing to the bit, YuNet as
// OpenCV runs it (fer/data/detection.py), and damage (fer/evaluation/perturbations.py).
//
// A picture is {data, width, height, step}: values 0-255 row by row, `step` of them for each pixel:
// 1 for gray, 3 for RGB, 4 for RGBA, whose last one is left out. An input of the network is a
// Uint8Array of channels x size x size.

// As Python and NumPy round: halves to the even neighbour.
function rint(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// Pillow's convert("L"): ITU-R 601 luma in fixed point.
function toGray({ data, width, height, step }) {
  if (step === 1) return { data, width, height, step };
  const gray = new Uint8Array(width * height);
  for (let i = 0, at = 0; i < gray.length; i++, at += step) {
    gray[i] = (data[at] * 19595 + data[at + 1] * 38470 + data[at + 2] * 7471 + 0x8000) >> 16;
  }
  return { data: gray, width, height, step: 1 };
}

const BITS = 22; // of a weight, behind the point: Pillow's PRECISION_BITS

// For each of `to` values: the first of the `from` values that it is made of, and their weights.
function weightsOf(from, to) {
  const scale = from / to;
  const reach = Math.max(scale, 1);
  return Array.from({ length: to }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(from, Math.trunc(centre + reach + 0.5));
    const weights = new Float64Array(end - start);
    for (let i = 0; i < weights.length; i++) {
      weights[i] = Math.max(0, 1 - Math.abs((i + start - centre + 0.5) * (1 / reach)));
    }
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { start, weights: Int32Array.from(weights, (w) => Math.trunc(0.5 + (w / total) * 2 ** BITS)) };
  });
}

const HALF = 1 << (BITS - 1);

function resizeAcross({ data, width, height, step }, newWidth) {
  const channels = Math.min(step, 3);
  const out = new Uint8Array(newWidth * height * channels);
  const places = weightsOf(width, newWidth);
  for (let row = 0, to = 0; row < height; row++) {
    for (const { start, weights } of places) {
      for (let channel = 0; channel < channels; channel++) {
        let sum = HALF;
        let from = (row * width + start) * step + channel;
        for (let i = 0; i < weights.length; i++, from += step) sum += data[from] * weights[i];
        out[to++] = sum >> BITS;
      }
    }
  }
  return { data: out, width: newWidth, height, step: channels };
}

function resizeDown({ data, width, height, step }, newHeight) {
  const length = width * step;
  const out = new Uint8Array(newHeight * length);
  const sums = new Int32Array(length);
  weightsOf(height, newHeight).forEach(({ start, weights }, at) => {
    sums.fill(HALF);
    weights.forEach((weight, row) => {
      const from = (start + row) * length;
      for (let i = 0; i < length; i++) sums[i] += data[from + i] * weight;
    });
    for (let i = 0; i < length; i++) out[at * length + i] = sums[i] >> BITS;
  });
  return { data: out, width, height: newHeight, step };
}

// Pillow's resize with BILINEAR: first across, then down, each rounded to 8 bits. From version 13 on
// it begins with the other one where the height shrinks by much more than the width.
export function resize(picture, width, height) {
  const wide = width === picture.width ? picture : resizeAcross(picture, width);
  return height === picture.height ? wide : resizeDown(wide, height);
}

export function crop({ data, width, step }, { x, y, side }) {
  const out = new Uint8Array(side * side * step);
  for (let row = 0; row < side; row++) {
    const start = ((y + row) * width + x) * step;
    out.set(data.subarray(start, start + side * step), row * side * step);
  }
  return { data: out, width: side, height: side, step };
}

// A face of any size as the network's input.
export function toInput(picture, size, channels) {
  const small = resize(channels === 1 ? toGray(picture) : picture, size, size);
  const input = new Uint8Array(channels * size * size);
  for (let channel = 0; channel < channels; channel++) {
    const source = Math.min(channel, small.step - 1);
    for (let i = 0; i < size * size; i++) input[channel * size * size + i] = small.data[i * small.step + source];
  }
  return input;
}

// --- finding faces ---------------------------------------------------------------------------

const STRIDES = [8, 16, 32];
const DIVISOR = 32; // of the detector's input; OpenCV pads with black

function overlap(one, other) {
  const across = Math.min(one.x + one.width, other.x + other.width) - Math.max(one.x, other.x);
  const down = Math.min(one.y + one.height, other.y + other.height) - Math.max(one.y, other.y);
  const shared = Math.max(across, 0) * Math.max(down, 0);
  return shared / (one.width * one.height + other.width * other.height - shared);
}

// The surest ones of boxes that show the same face; `box` gives what is compared of each.
function surest(faces, most, box = (face) => face) {
  const kept = [];
  for (const face of faces.sort((one, other) => other.confidence - one.confidence)) {
    if (kept.every((other) => overlap(box(face), box(other)) <= most)) kept.push(face);
  }
  return kept;
}

// What the detector says of a picture, in that picture's pixels: OpenCV's FaceDetectorYN.
function decode(outputs, paddedWidth, options) {
  const faces = [];
  for (const stride of STRIDES) {
    const [cls, obj, bbox] = ["cls", "obj", "bbox"].map((name) => outputs[`${name}_${stride}`].data);
    const columns = paddedWidth / stride;
    for (let i = 0; i < cls.length; i++) {
      const confidence = Math.sqrt(clamp(cls[i], 0, 1) * clamp(obj[i], 0, 1));
      if (confidence <= options.min_confidence) continue;
      const width = Math.exp(bbox[4 * i + 2]) * stride;
      const height = Math.exp(bbox[4 * i + 3]) * stride;
      const x = ((i % columns) + bbox[4 * i]) * stride - width / 2;
      const y = (Math.floor(i / columns) + bbox[4 * i + 1]) * stride - height / 2;
      faces.push({ x, y, width, height, confidence });
    }
  }
  const whole = ({ x, y, width, height }) =>
    ({ x: Math.trunc(x), y: Math.trunc(y), width: Math.trunc(width), height: Math.trunc(height) });
  return surest(faces, options.overlap, whole);
}

async function searchAt(picture, scale, detect, options) {
  const [width, height] = [picture.width, picture.height].map((side) => Math.max(1, rint(side * scale)));
  if (Math.min(width, height) < options.least) return [];
  const { data, step } = resize(picture, width, height);
  const [across, down] = [width, height].map((side) => Math.ceil(side / DIVISOR) * DIVISOR);
  const planes = new Float32Array(3 * across * down);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let channel = 0; channel < 3; channel++) { // OpenCV's order is BGR
        planes[((2 - channel) * down + y) * across + x] = data[(y * width + x) * step + channel];
      }
    }
  }
  return decode(await detect(planes, across, down), across, options).map((face) => {
    const side = Math.max(face.width, face.height) / scale;
    const x = (face.x + face.width / 2) / scale - side / 2;
    const y = (face.y + face.height / 2) / scale - side / 2;
    return { x, y, width: side, height: side, confidence: face.confidence };
  });
}

// The square around a face in whole pixels, moved and shrunk into its picture.
function fit(face, { width, height }) {
  const side = Math.max(1, Math.min(rint(face.width), width, height));
  const x = clamp(rint(face.x + face.width / 2 - side / 2), 0, width - side);
  const y = clamp(rint(face.y + face.height / 2 - side / 2), 0, height - side);
  return { x, y, side };
}

// Squares {x, y, side} of the faces in an RGB or RGBA picture, the surest first. `detect` runs YuNet
// on (planes, width, height), `options` are those of fer/data/detection.py.
export async function findFaces(picture, detect, options) {
  const longer = Math.max(picture.width, picture.height);
  const shorter = Math.min(picture.width, picture.height);
  const found = [];
  let target = Math.max(options.usual, Math.min(options.smallest / options.min_size, shorter));
  for (;;) {
    const scale = Math.min(target / shorter, Math.max(options.longest / longer, 1 / shorter));
    found.push(...(await searchAt(picture, scale, detect, options)));
    if (target === options.usual) break;
    target = Math.max(options.usual, target / options.step);
  }
  return surest(found, options.overlap)
    .filter((face) => face.width >= options.min_size * shorter)
    .map((face) => fit(face, picture));
}

// --- damage ----------------------------------------------------------------------------------

// Random numbers that are the same each time, so that only the severity differs (mulberry32).
function randomNumbers(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let bits = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits;
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}

// As a Gaussian where there are many, which nobody can tell apart in eight bits.
function poisson(mean, random) {
  if (mean > 50) {
    const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    return Math.max(0, Math.round(mean + Math.sqrt(mean) * normal));
  }
  const limit = Math.exp(-mean);
  let count = 0;
  for (let product = random(); product > limit; product *= random()) count++;
  return count;
}

function blur(input, size, { sigma }) {
  const pixels = sigma * size;
  const reach = rint(6 * pixels + 1) >> 1; // the taps that OpenCV takes for eight bits
  const kernel = Array.from({ length: 2 * reach + 1 }, (_, i) => Math.exp(-((i - reach) ** 2) / (2 * pixels ** 2)));
  const total = kernel.reduce((sum, weight) => sum + weight, 0);
  const mirrored = (at) => (at < 0 ? -at : at >= size ? 2 * size - 2 - at : at);
  const pass = (values, line, next) => {
    const out = new Float64Array(values.length);
    for (let plane = 0; plane < values.length; plane += size * size) {
      for (let a = 0; a < size; a++) {
        for (let b = 0; b < size; b++) {
          let sum = 0;
          kernel.forEach((weight, i) => {
            sum += weight * values[plane + a * line + mirrored(b + i - reach) * next];
          });
          out[plane + a * line + b * next] = sum / total;
        }
      }
    }
    return out;
  };
  return Uint8Array.from(pass(pass(input, size, 1), 1, size), Math.round);
}

function occlusion(input, size, parameters, { place }) {
  const side = rint(parameters.size * size);
  const [left, top] = place.map((share) => clamp(rint(share * size - side / 2), 0, size - side));
  const out = input.slice();
  for (let plane = 0; plane < out.length; plane += size * size) {
    for (let row = top; row < top + side; row++) {
      out.fill(0, plane + row * size + left, plane + row * size + left + side);
    }
  }
  return out;
}

function lowLight(input, size, { gain, photons }, { gamma }) {
  const random = randomNumbers(1);
  return input.map((value) => {
    const count = poisson(gain * photons * (value / 255) ** gamma, random);
    return rint(255 * Math.min(1, count / photons) ** (1 / gamma));
  });
}

const DAMAGE = { blur, occlusion, low_light: lowLight };
const NONE = { sigma: 0, size: 0, gain: 1 };

// Parameters of a severity from 0, none, to the last of `steps`; between two of them in between.
function parametersAt(steps, severity) {
  const last = Math.ceil(severity);
  const share = severity - last + 1;
  const between = ([key, value]) => {
    const before = (steps[last - 2] ?? NONE)[key] ?? value;
    return [key, key === "gain" ? before ** (1 - share) * value ** share : before + share * (value - before)];
  };
  return Object.fromEntries(Object.entries(steps[last - 1]).map(between));
}

// An input with damage of each kind, in this order: `severities` is name -> severity, `steps` name
// -> parameters of each severity, `options` {gamma, place: centre of the patch in shares}.
export function damaged(input, size, severities, steps, options) {
  return Object.entries(severities).reduce(
    (values, [name, severity]) =>
      severity > 0 ? DAMAGE[name](values, size, parametersAt(steps[name], severity), options) : values,
    input,
  );
}

// --- maps ------------------------------------------------------------------------------------

// What of a map (height x width) speaks for its emotion, 0 to 1, at `size` x `size`: bilinear.
export function enlargeMap(map, height, width, size) {
  const places = (count) => Array.from({ length: size }, (_, i) => {
    const at = clamp(((i + 0.5) * count) / size - 0.5, 0, count - 1);
    const low = Math.floor(at);
    return { low, high: Math.min(low + 1, count - 1), share: at - low };
  });
  const rows = places(height);
  const columns = places(width);
  const value = (row, column) => Math.max(0, map[row * width + column]);
  const out = new Float32Array(size * size);
  rows.forEach((row, y) => columns.forEach((column, x) => {
    const upper = value(row.low, column.low) * (1 - column.share) + value(row.low, column.high) * column.share;
    const lower = value(row.high, column.low) * (1 - column.share) + value(row.high, column.high) * column.share;
    out[y * size + x] = upper * (1 - row.share) + lower * row.share;
  }));
  const most = out.reduce((one, other) => Math.max(one, other), 0);
  return most > 0 ? out.map((one) => one / most) : out;
}
