// Painted masks, one for each tab: strokes over an image, in the image's pixels, and the PNG that a request takes.
// Knows no view.

export const PAINTED = "painted"; // value of the field while its mask has not been uploaded

const DOT = 0.01; // pixels; a line without any length is not drawn

class Mask {
  revision = 0; // grows with every change
  #strokes = []; // { size, erases, points: [[x, y], …] } or { fills }
  #isInverted = false;

  get isEmpty() {
    return !this.#isInverted && !this.#strokes.some((stroke) => !stroke.erases);
  }

  // Sizes the mask for an image; another image's mask is forgotten.
  fit(width, height, key) {
    if (this.key !== key) this.clear();
    Object.assign(this, { width, height, key });
  }

  begin(size, erases, point) {
    this.revision++;
    this.#strokes.push({ size, erases, points: [point] });
  }

  extend(point) {
    this.revision++;
    this.#strokes.at(-1)?.points.push(point);
  }

  undo() {
    this.revision++;
    this.#strokes.pop();
  }

  invert() {
    this.revision++;
    this.#isInverted = !this.#isInverted;
  }

  clear() {
    this.revision++;
    this.#strokes = [];
    this.#isInverted = false;
  }

  // Draws what is masked in one style, and leaves the rest transparent.
  draw(context, style) {
    context.clearRect(0, 0, this.width, this.height);
    Object.assign(context, { lineCap: "round", lineJoin: "round", strokeStyle: style });
    for (const { size, erases, points } of this.#strokes) {
      context.globalCompositeOperation = erases ? "destination-out" : "source-over";
      context.lineWidth = size;
      context.beginPath();
      context.moveTo(...points[0]);
      for (const [x, y] of points) context.lineTo(x + DOT, y);
      context.stroke();
    }
    if (this.#isInverted) {
      context.globalCompositeOperation = "source-out";
      context.fillStyle = style;
      context.fillRect(0, 0, this.width, this.height);
    }
    context.globalCompositeOperation = "source-over";
  }

  // A PNG as large as the image: white is regenerated, black is kept.
  encode() {
    const canvas = new OffscreenCanvas(this.width, this.height);
    const context = canvas.getContext("2d");
    this.draw(context, "white");
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "black";
    context.fillRect(0, 0, this.width, this.height);
    return canvas.convertToBlob({ type: "image/png" });
  }
}

const masks = new Map();

// The mask of a tab's image.
export function maskOf(tab) {
  if (!masks.has(tab)) masks.set(tab, new Mask());
  return masks.get(tab);
}
