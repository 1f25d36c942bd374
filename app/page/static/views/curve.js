// The curve of a training's loss over its steps.

import { html, svg } from "./html.js";

const WIDTH = 320; // as in the viewBox below
const HEIGHT = 120;
const EDGE = { left: 38, right: 8, top: 10, bottom: 20 };
const SMOOTHING = 0.9; // share of the mean so far in each point of the smooth line; one loss alone says little

// `losses`: Map of step -> loss. Steps may be missing: an event stream keeps the last thousand events.
export function curveView(losses, steps) {
  const points = [...losses].sort(([one], [other]) => one - other);
  if (!points.length) return html`<p class="curve note">The loss of each step appears here.</p>`;
  const values = points.map(([, loss]) => loss);
  const low = Math.min(...values);
  const high = Math.max(...values, low + 1e-6);
  const last = Math.max(steps, points.at(-1)[0], 2);
  const x = (step) => EDGE.left + ((step - 1) / (last - 1)) * (WIDTH - EDGE.left - EDGE.right);
  const y = (loss) => EDGE.top + ((high - loss) / (high - low)) * (HEIGHT - EDGE.top - EDGE.bottom);
  const line = (pairs) => pairs.map(([step, loss]) => `${x(step).toFixed(1)},${y(loss).toFixed(1)}`).join(" ");
  const bottom = HEIGHT - EDGE.bottom;
  return html`
    <svg class="curve" viewBox="0 0 320 120" role="img" aria-label=${inWords(points, low, high)}>
      ${svg`
        <path class="axes" d="M${EDGE.left} ${EDGE.top}V${bottom}H${WIDTH - EDGE.right}" />
        <polyline class="each" points=${line(points)} />
        <polyline class="smooth" points=${line(smooth(points))} />
        <text x=${EDGE.left - 4} y=${EDGE.top + 4} text-anchor="end">${short(high)}</text>
        <text x=${EDGE.left - 4} y=${bottom} text-anchor="end">${short(low)}</text>
        <text x=${EDGE.left} y=${HEIGHT - 6}>loss by step</text>
        <text x=${WIDTH - EDGE.right} y=${HEIGHT - 6} text-anchor="end">${last}</text>
      `}
    </svg>
  `;
}

function smooth(points) {
  let mean = points[0][1];
  return points.map(([step, loss], index) => {
    const share = Math.min(SMOOTHING, index / (index + 1));
    mean = share * mean + (1 - share) * loss;
    return [step, mean];
  });
}

function inWords(points, low, high) {
  const [step, loss] = points.at(-1);
  return `Loss of ${points.length} steps: from ${short(low)} to ${short(high)}, ${short(loss)} at step ${step}`;
}

function short(loss) {
  return loss >= 100 || loss < 0.001 ? loss.toExponential(1) : String(Number(loss.toPrecision(3)));
}
