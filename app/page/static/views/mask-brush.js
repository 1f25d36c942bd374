// The element on which a mask is painted: the image, the mask over it, and the brush. `mask.js` has the strokes.

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

class MaskBrush extends HTMLElement {
  #image = new Image();
  #canvas = document.createElement("canvas");
  #isPainting = false;
  #cursor = null; // where the keyboard's brush is, in pixels of the image

  connectedCallback() {
    if (this.childElementCount) return;
    this.#image.alt = "";
    this.#canvas.tabIndex = 0;
    this.#canvas.setAttribute("role", "img");
    this.#canvas.setAttribute("aria-label", "Mask: paint the part that is to change");
    this.append(this.#image, this.#canvas);
    this.#canvas.addEventListener("pointerdown", (event) => this.#press(event));
    this.#canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) this.#canvas.addEventListener(end, () => this.#release());
    this.#canvas.addEventListener("keydown", (event) => this.#key(event));
    this.#canvas.addEventListener("blur", () => this.#moveCursor(null));
  }

  mask = null; // set before the input

  // { key, url, width, height }; `key` says which image it is.
  set input(input) {
    if (this.#image.src !== input.url) this.#image.src = input.url;
    this.mask.fit(input.width, input.height, input.key);
    if (this.#canvas.width !== input.width || this.#canvas.height !== input.height) {
      Object.assign(this.#canvas, { width: input.width, height: input.height });
    }
  }

  // { share, erases }: the brush's width in percent of the image's shorter side, and whether it takes away.
  brush = { share: 15, erases: false };

  // Set after any change of the mask.
  set revision(_) {
    this.#draw();
  }

  get #size() {
    return Math.max(1, (Math.min(this.mask.width, this.mask.height) * this.brush.share) / 100);
  }

  #point(event) {
    const box = this.#canvas.getBoundingClientRect();
    const scale = [this.mask.width / box.width, this.mask.height / box.height];
    return [(event.clientX - box.left) * scale[0], (event.clientY - box.top) * scale[1]];
  }

  #press(event) {
    if (event.button !== 0) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#isPainting = true;
    this.mask.begin(this.#size, this.brush.erases, this.#point(event));
    this.#draw();
  }

  #move(event) {
    if (!this.#isPainting) return;
    for (const one of event.getCoalescedEvents?.() ?? [event]) this.mask.extend(this.#point(one));
    this.#draw();
  }

  #release() {
    if (!this.#isPainting) return;
    this.#isPainting = false;
    this.dispatchEvent(new CustomEvent("painted"));
  }

  #key(event) {
    const [x, y] = this.#cursor ?? [this.mask.width / 2, this.mask.height / 2];
    if (event.key in ARROWS) {
      const [right, down] = ARROWS[event.key];
      const inside = (value, end) => Math.min(Math.max(value, 0), end);
      const step = this.#size / 2;
      this.#moveCursor([inside(x + right * step, this.mask.width), inside(y + down * step, this.mask.height)]);
    } else if (event.key === " ") {
      this.#cursor = [x, y];
      this.mask.begin(this.#size, this.brush.erases, [x, y]);
      this.dispatchEvent(new CustomEvent("painted"));
    } else {
      return;
    }
    event.preventDefault();
  }

  #moveCursor(cursor) {
    this.#cursor = cursor;
    this.#draw();
  }

  #draw() {
    const context = this.#canvas.getContext("2d");
    this.mask.draw(context, stripes(context));
    if (this.#cursor === null) return;
    context.strokeStyle = "white";
    context.lineWidth = Math.max(1, this.mask.width / 150);
    context.beginPath();
    context.arc(...this.#cursor, this.#size / 2, 0, 2 * Math.PI);
    context.stroke();
  }
}

// Light and dark stripes are seen on any image.
function stripes(context) {
  const width = Math.max(1, Math.round(context.canvas.width / 64));
  const tile = new OffscreenCanvas(2 * width, 1);
  const paint = tile.getContext("2d");
  for (const [index, color] of ["#fff", "#111"].entries()) {
    paint.fillStyle = color;
    paint.fillRect(index * width, 0, width, 1);
  }
  return context.createPattern(tile, "repeat");
}

customElements.define("mask-brush", MaskBrush);
