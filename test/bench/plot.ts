/** A line plot as SVG, in the few elements that every viewer of markdown shows, light or dark. */

export interface PlotSeries {
  name: string;
  /** In the order of x. */
  points: readonly (readonly [x: number, y: number])[];
}

export interface Plot {
  title: string;
  x: string;
  y: string;
  series: readonly PlotSeries[];
}

const size = { width: 720, height: 400, left: 64, right: 20, top: 36, bottom: 48 };
const colours = ["#2f6fde", "#d9822b", "#3a9d5d", "#b0449a"];

/** The least of 1, 2 or 5 times a power of ten that divides `most` into at most five steps. */
export function stepFor(most: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(most, 1e-9) / 5));
  return power * ([1, 2, 5, 10].find((factor) => most / (power * factor) <= 5) ?? 10);
}

const escaped = (text: string): string =>
  text.replace(/[&<>"]/g, (char) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[char] ?? char);

/** Both axes begin at zero. */
export function svgPlot({ title, x, y, series }: Plot): string {
  const { width, height, left, right, top, bottom } = size;
  const all = series.flatMap(({ points }) => points);
  const axis = (which: 0 | 1) => {
    const most = Math.max(...all.map((point) => point[which]), 0);
    const step = stepFor(most);
    return { step, end: Math.max(Math.ceil(most / step), 1) * step };
  };
  const [across, up] = [axis(0), axis(1)];
  const atX = (value: number) => left + (value / across.end) * (width - left - right);
  const atY = (value: number) => height - bottom - (value / up.end) * (height - top - bottom);
  const label = (value: string, at: number, over: number, anchor: string) =>
    `<text x="${at.toFixed(1)}" y="${over.toFixed(1)}" text-anchor="${anchor}">${escaped(value)}</text>`;
  const grid: string[] = [];
  for (let tick = 0; tick <= up.end + up.step / 2; tick += up.step) {
    const line = atY(tick).toFixed(1);
    grid.push(`<path d="M${left} ${line}H${width - right}" stroke="#8888" stroke-width="0.5"/>`);
    grid.push(label(`${Number(tick.toPrecision(6))}`, left - 6, atY(tick) + 4, "end"));
  }
  for (let tick = 0; tick <= across.end + across.step / 2; tick += across.step)
    grid.push(label(`${Number(tick.toPrecision(6))}`, atX(tick), height - bottom + 18, "middle"));
  const lines = series.map(({ name, points }, index) => {
    const colour = colours[index % colours.length];
    const path = points.map(([px, py], at) => `${at === 0 ? "M" : "L"}${atX(px).toFixed(1)} ${atY(py).toFixed(1)}`);
    const legend = top + 14 + index * 18;
    return [
      `<path d="${path.join("")}" fill="none" stroke="${colour}" stroke-width="2"/>`,
      `<path d="M${left + 12} ${legend - 4}h22" stroke="${colour}" stroke-width="2"/>`,
      label(name, left + 40, legend, "start"),
    ].join("\n");
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12" fill="#808080">
<title>${escaped(title)}</title>
<text x="${width / 2}" y="20" text-anchor="middle" font-size="14">${escaped(title)}</text>
${grid.join("\n")}
${lines.join("\n")}
${label(x, (left + width - right) / 2, height - 10, "middle")}
<text x="16" y="${height / 2}" text-anchor="middle" transform="rotate(-90 16 ${height / 2})">${escaped(y)}</text>
</svg>
`;
}
